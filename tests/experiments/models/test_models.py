"""Wide residual, AlexNet and LeNet networks: sizes, training, types."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common import classification
from experiments.data import mnist
from experiments.models import alexnet
from experiments.models import convnet
from experiments.models import layers
from experiments.models import wide_resnet
import sparsity

KEY = jax.random.key(0)


def make_wide(dtype='float32', **changes):
  arguments = {'depth': 22, 'width': 2, 'dropout': 0.0, 'num_classes': 10}
  return wide_resnet.wide_resnet(
    **{**arguments, **changes}, compute_dtype=dtype
  )


def make_alexnet(dtype='float32', **changes):
  arguments = {'dropout': 0.0, 'num_classes': 10}
  return alexnet.alexnet(**{**arguments, **changes}, compute_dtype=dtype)


def make_lenet5(dtype='float32', **changes):
  return convnet.lenet5(**{'num_classes': 10, **changes}, compute_dtype=dtype)


def conv_size(kernel, inputs, outputs):
  return kernel * kernel * inputs * outputs


# name: make, shape of an image, (weights, scales and offsets, biases)
NETWORKS = {
  'wide_resnet': (
    make_wide,
    (32, 32, 3),
    (
      conv_size(3, 3, 16)
      + sum(
        conv_size(1, before, after)
        + conv_size(3, before, after)
        + 5 * conv_size(3, after, after)
        for before, after in ((16, 32), (32, 64), (64, 128))
      )
      + 128 * 10,
      2 * (16 + 5 * 32 + 32 + 5 * 64 + 64 + 5 * 128 + 128),
      10,
    ),
  ),
  'alexnet': (
    make_alexnet,
    (32, 32, 3),
    (
      conv_size(3, 3, 64)
      + conv_size(3, 64, 128)
      + conv_size(3, 128, 256)
      + 2 * conv_size(3, 256, 256)
      + 4 * 4 * 256 * 512
      + 512 * 512
      + 512 * 10,
      0,
      64 + 128 + 3 * 256 + 2 * 512 + 10,
    ),
  ),
  'lenet5': (make_lenet5, (28, 28, 1), (61_470, 0, 236)),
}


def shapes_of(network, shape):
  images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  return jax.eval_shape(lambda x: network.init(KEY, x, True), images)


@pytest.mark.parametrize('name', NETWORKS)
def test_every_parameter_is_a_weight_a_bias_or_of_a_norm(name):
  make, shape, expected = NETWORKS[name]
  params, _ = shapes_of(make(), shape)
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  leaves = list(sparsity.select.named_leaves(params))
  counts = (
    sum(x.size for x in weights.values()),
    sum(x.size for _, leaf, x in leaves if leaf in ('scale', 'offset')),
    sum(x.size for _, leaf, x in leaves if leaf == 'b'),
  )
  assert counts == expected
  assert sum(counts) == sum(x.size for _, _, x in leaves)


@pytest.mark.parametrize(
  ('make', 'shape', 'num_weights'),
  [
    (make_wide, (32, 32, 3), '1,076,912 weights, 2,720 scales'),
    (make_alexnet, (32, 32, 3), '3,914,432 weights'),
    (make_lenet5, (28, 28, 1), '61,470 weights'),
  ],
)
def test_the_numbers_in_the_documentation_are_right(make, shape, num_weights):
  params, _ = shapes_of(make(), shape)
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  count = sum(x.size for x in weights.values())
  assert num_weights.startswith(f'{count:,}')
  modules = (wide_resnet.wide_resnet, alexnet.alexnet, convnet.lenet5)
  assert any(num_weights in ' '.join(fn.__doc__.split()) for fn in modules)


@pytest.fixture(scope='module', params=sorted(NETWORKS))
def network(request):
  """Returns networks by compute type, parameters, state and images."""
  make, shape, _ = NETWORKS[request.param]
  shape = (16, 16, 3) if shape[-1] == 3 else shape
  images = jax.random.normal(KEY, (4, *shape))
  init = jax.jit(make().init, static_argnums=2)
  return make, *init(KEY, images, True), images


def test_bfloat16_computes_nearly_the_same(network):
  make, params, state, images = network
  outputs = [
    jax.jit(make(dtype).apply, static_argnums=4)(
      params, state, None, images, True
    )[0]
    for dtype in ('float32', 'bfloat16')
  ]
  assert {x.dtype for x in outputs} == {jnp.dtype(jnp.float32)}
  assert outputs[0].shape == (4, 10)
  error = jnp.abs(outputs[0] - outputs[1]).max()
  assert 0 < error < 0.1 * jnp.std(outputs[0])


@pytest.mark.parametrize('make', [make_wide, make_alexnet])
def test_dropout_is_in_training_only(make):
  changes = {'depth': 10, 'width': 1} if make is make_wide else {}
  network = make(dropout=0.5, **changes)
  images = jax.random.normal(KEY, (2, 8, 8, 3))
  params, state = jax.jit(network.init, static_argnums=2)(KEY, images, True)
  apply = jax.jit(network.apply, static_argnums=4)
  train = [
    apply(params, state, jax.random.key(seed), images, True)[0]
    for seed in (1, 1, 2)
  ]
  np.testing.assert_array_equal(train[0], train[1])
  assert not np.allclose(train[0], train[2])
  evaluated = [
    apply(params, state, rng, images, False)[0]
    for rng in (jax.random.key(1), jax.random.key(2))
  ]
  np.testing.assert_array_equal(*evaluated)


def test_lenet5_learns_from_a_few_batches():
  network = make_lenet5()
  train = mnist.load(data_dir=None).train
  images, labels = (x[:4000] for x in train)
  optimizer = optax.adam(3e-3)
  params, state = network.init(KEY, images[:1], True)

  @jax.jit
  def step(params, opt_state, images, labels):
    def loss_fn(params):
      logits, _ = network.apply(params, state, None, images, True)
      return classification.cross_entropy(logits, labels), logits

    (loss, logits), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
      params
    )
    updates, opt_state = optimizer.update(gradients, opt_state)
    params = optax.apply_updates(params, updates)
    return params, opt_state, loss, classification.accuracy(logits, labels)

  opt_state = optimizer.init(params)
  history = []
  for i in range(80):
    batch = slice(50 * i, 50 * (i + 1))
    params, opt_state, *row = step(
      params, opt_state, images[batch], labels[batch]
    )
    history.append(row)
  loss, accuracy = np.mean(history[-5:], axis=0)
  assert history[0][0] > 2
  assert loss < 0.5
  assert accuracy > 0.85


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: make_wide(depth=21), r'depth = 6n \+ 4 .* got 21'),
    (lambda: make_wide(depth=4), r'depth = 6n \+ 4 .* got 4'),
    (lambda: make_wide(width=0), 'expected width and num_classes >= 1'),
    (lambda: make_wide(dropout=1.0), r'dropout in \[0, 1\), got 1.0'),
    (lambda: make_alexnet(dropout=-0.1), r'dropout in \[0, 1\), got -0.1'),
    (lambda: make_alexnet(num_classes=0), 'expected num_classes >= 1, got 0'),
    (lambda: make_lenet5(num_classes=0), 'expected num_classes >= 1, got 0'),
    (lambda: make_lenet5('int8'), 'expected compute_dtype out of'),
  ],
)
def test_bad_arguments_are_errors_at_once(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_convolution_is_padded_alike_for_even_and_odd_sizes():
  def forward(x, is_training):
    del is_training
    return layers.conv(x, 1, 3, stride=2, name='conv')

  network = layers.transform(forward, compute_dtype='float32')
  image = jax.random.normal(KEY, (1, 8, 8, 1))
  params, state = network.init(KEY, image, True)
  kernel = params['conv']['w'][:, :, 0, 0]
  padded = np.pad(image[0, :, :, 0], 1)
  expected = [
    [np.sum(padded[i : i + 3, j : j + 3] * kernel) for j in range(0, 8, 2)]
    for i in range(0, 8, 2)
  ]
  even, _ = network.apply(params, state, None, image, True)
  np.testing.assert_allclose(even[0, :, :, 0], expected, rtol=1e-5, atol=1e-6)
  odd, _ = network.apply(params, state, None, image[:, :7, :7], True)
  assert odd.shape == even.shape
  np.testing.assert_allclose(odd[:, :3, :3], even[:, :3, :3], rtol=1e-6)
