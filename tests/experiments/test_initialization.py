"""`config.method.init`: signal and gradient of sparse networks at step 0."""

import functools

import jax
import numpy as np
import optax
import pytest

from configs import mnist_methods
from configs import text_transformer_xl
from experiments import methods
from experiments.data import mnist
from experiments.models import lenet
from experiments.models import transformer_xl
from experiments.tasks import classification
import sparsity
from tests import oracles

SEED = 1


def start(make, variant, *, alpha=1.0, **changes):
  """Returns a method and its state before the first step."""
  config = (mnist_methods if make is image else text_transformer_xl).get_config(
    variant
  )
  config, init = config.to_dict(), make()[0]
  method = methods.make_method(
    {**config['method'], **changes},
    {'alpha': alpha, 'optimizer_in': 'theta'},
    config['optimizer'],
    1,
  )
  state = jax.jit(functools.partial(methods.init_state, method, init, SEED))()
  return method, state


@functools.cache
def image():
  """Returns LeNet-5's initial values, and a function of its weights."""
  data = mnist.load(data_dir=None).train
  images, labels = data.inputs[:64], data.labels[:64]
  network = lenet.lenet5(num_classes=10)

  def loss(weights):
    logits, _ = network.apply(weights, {}, None, images, True)
    return classification.cross_entropy(logits, labels), logits

  return lambda key: network.init(key, images[:1], True), loss


@functools.cache
def language():
  """Returns the same of a small Transformer-XL, with log-probabilities."""
  model = text_transformer_xl.get_config('dense').model.to_dict()
  model = transformer_xl.transformer_xl(**model | {'num_layers': 2})
  tokens = jax.random.randint(jax.random.key(0), (2, 17), 0, 256)

  def loss(weights):
    memory, inputs = model.memory(2, 16), tokens[:, :-1]
    nll, _ = model.apply(weights, memory, None, inputs, tokens[:, 1:], False)
    logits, _ = model.predict(weights, memory, inputs)
    return nll.mean(), logits

  return lambda key: (model.init(key), {}), loss


@functools.cache
def measure(make):
  """Returns a compiled function: weights to deviation and gradient's norm."""

  def compute(weights):
    gradients, logits = jax.grad(make()[1], has_aux=True)(weights)
    logits -= logits.mean(-1, keepdims=True)
    return logits.std(), optax.tree.norm(gradients)

  return jax.jit(compute)


@functools.cache
def found(make, variant, **changes):
  method, state = start(make, variant, **changes)
  weights = method.to_weights(state.params)
  return measure(make)(method.forward_weights(weights, state.opt_state))


@pytest.mark.parametrize(
  ('make', 'density'),
  [
    (image, 0.2),
    (image, 0.05),
    (image, 0.02),
    (language, 0.02),
    *(
      pytest.param(language, density, marks=pytest.mark.nightly)
      for density in (0.2, 0.05)
    ),
  ],
)
def test_signal_and_gradient_of_random_masks_are_those_of_dense(make, density):
  dense = np.array(found(make, 'dense'))
  ratio = np.array(found(make, f'static,density={density}')) / dense
  assert (ratio > 0.25).all(), ratio
  assert (ratio < 4).all(), ratio


def test_without_it_the_signal_dies():
  dense = np.array(found(image, 'dense'))
  ratio = np.array(found(image, 'static,density=0.02', init='dense')) / dense
  assert (ratio < 0.02).all(), ratio


def test_it_changes_the_weights_and_nothing_of_the_masks():
  plain, scaled, powered = (
    start(image, 'static,density=0.1', **options)
    for options in ({'init': 'dense'}, {}, {'alpha': 2.0})
  )
  masks = sparsity.active_sets(plain[1].opt_state)
  theta = plain[0].to_weights(plain[1].params)
  expected = sparsity.rescale(theta, plain[1].opt_state)
  assert not np.allclose(expected['conv_2']['w'], theta['conv_2']['w'], rtol=1)
  for method, state in (scaled, powered):
    oracles.assert_same(sparsity.active_sets(state.opt_state), masks)
    oracles.assert_close(method.to_weights(state.params), expected)
