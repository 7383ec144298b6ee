"""Whole networks trained masked, skipping and compact, to the same end."""

import functools
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import language
from experiments.models import convnet
from experiments.models import layers
from experiments.models import lenet
from experiments.models import transformer_xl
import sparsity
from sparsity import masked as masked_lib
import topkast


class Problem(NamedTuple):
  """What is trained; the network's state may be a memory."""

  params: Any
  net_state: Any
  objective: Any  # weights, net_state, batch -> loss, net_state
  batches: Any  # [T, ...]


def make_images(net, shape, num):
  """Returns classes that differ, so that there is something to learn."""
  size = int(np.prod(shape[1:]))
  means = 0.5 * jax.random.normal(jax.random.key(7), (10, size))

  def batch(key):
    keys = jax.random.split(key)
    labels = jax.random.randint(keys[0], shape[:1], 0, 10)
    noise = jax.random.normal(keys[1], (shape[0], size))
    return (means[labels] + noise).reshape(shape), labels

  batches = jax.vmap(batch)(jax.random.split(jax.random.key(1), num))
  params, net_state = net.init(jax.random.key(0), batches[0][0], True)

  def objective(weights, net_state, batch):
    logits, net_state = net.apply(weights, net_state, None, batch[0], True)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return jnp.mean(losses), net_state

  return Problem(params, net_state, objective, batches)


def make_lenet(num):
  net = lenet.lenet(hidden=(300, 100), num_classes=10)
  return make_images(net, (32, 784), num)


def make_residual(num):
  """Returns what a residual network is made of, few of each."""

  def forward(x, is_training):
    x = layers.conv(x, 16, 3, name='stem')
    shortcut = layers.conv(x, 32, 1, stride=2, name='shortcut')
    for i, (channels, kernel, stride) in enumerate(
      ((8, 1, 1), (8, 3, 2), (32, 1, 1))
    ):
      x = layers.conv(x, channels, kernel, stride=stride, name=f'conv_{i}')
      x = layers.batch_norm(jax.nn.relu(x), is_training, name=f'norm_{i}')
    return layers.Linear(10)(jnp.mean(x + shortcut, (1, 2)))

  net = layers.transform(forward, compute_dtype='float32')
  return make_images(net, (4, 9, 8, 3), num)


def make_language(num):
  """Returns Transformer-XL, small, on a text of a few repeated phrases."""
  sizes = language.model(
    vocab_size=12,
    num_layers=2,
    d_model=32,
    num_heads=2,
    d_head=16,
    d_inner=48,
    dropout=0.0,
    attention_dropout=0.0,
    clamp_len=None,
  )
  net = transformer_xl.transformer_xl(**sizes)
  batch_size, length = 4, 8
  phrases = jax.random.randint(jax.random.key(7), (3, 5), 0, 12)
  order = jax.random.randint(jax.random.key(1), (batch_size, num * 8), 0, 3)
  text = phrases[order].reshape(batch_size, -1)[:, : num * length + 1]
  inputs, targets = (
    part.reshape(batch_size, num, length).swapaxes(0, 1)
    for part in (text[:, :-1], text[:, 1:])
  )

  def objective(weights, memory, batch):
    losses, memory = net.apply(weights, memory, None, *batch, True)
    return jnp.mean(losses), memory

  params = net.init(jax.random.key(0))
  memory = net.memory(batch_size, length)
  return Problem(params, memory, objective, (inputs, targets))


def make_scan(problem, update, see=sparsity.forward_weights):
  """Returns many steps in one dispatch; masked or compact is no matter."""

  def step(carry, batch):
    params, state, net_state = carry
    weights = see(params, state)
    gradient = sparsity.value_and_grad(problem.objective, has_aux=True)
    (loss, net_state), gradients = gradient(weights, net_state, batch)
    updates, state = update(gradients, state, params)
    return (optax.apply_updates(params, updates), state, net_state), loss

  return jax.jit(functools.partial(jax.lax.scan, step))


def compare(problem, every, inner):
  """Returns the ends and losses of masked, skipping and compact training."""
  tx = topkast.topkast(
    inner,
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=every,
    distribution='erdos_renyi_kernel',
  )
  training = sparsity.compact.compact(tx)
  params, net_state, _, batches = problem
  ends = []
  for see in (
    sparsity.forward_weights,
    functools.partial(sparsity.masked_weights, tx),
  ):
    (end, end_state, _), expected = make_scan(problem, tx.update, see)(
      (params, tx.init(params), net_state), batches
    )
    ends.append((end, end_state, expected))
  scan = make_scan(problem, training.update)
  params, state, stored = training.init(params)
  losses = []
  for i in range(0, len(expected), every):
    part = jax.tree.map(lambda x, i=i: x[i : i + every], batches)
    (params, state, net_state), loss = scan((params, state, net_state), part)
    losses.append(loss)
    if training.is_due(i + every):
      params, state, stored = training.refresh(params, state, stored)
  found = training.unpack(params, state, stored)
  return *ends, (*found, jnp.concatenate(losses))


def assert_same(masked, compact, tolerance):
  """Asserts that sets are the same, losses and weights to rounding."""
  # Not the same kernels, so not the same roundings.
  assert not np.array_equal(compact[2], masked[2])
  np.testing.assert_allclose(compact[2], masked[2], rtol=10 * tolerance)
  overlap = sparsity.overlap(compact[1].sets.forward, masked[1].sets.forward)
  assert overlap > 0.9999
  paths = sparsity.select.selected_paths(masked[0], sparsity.is_weight)
  found = sparsity.select.pick(compact[0], paths)
  for path, w in paths.items():
    error = jnp.linalg.norm(found[path] - w)
    assert error < tolerance * jnp.linalg.norm(w), path


@pytest.fixture(autouse=True)
def skip_in_small_layers(monkeypatch):
  """Has products skip what is masked in layers of any size."""
  monkeypatch.setattr(masked_lib, 'SMALLEST', 1)


@pytest.mark.slow
def test_lenet_over_200_steps_is_the_same_to_rounding():
  inner = optax.sgd(0.05, momentum=0.9)
  masked, skipping, compact = compare(make_lenet(200), 25, inner)
  assert masked[2][-20:].mean() < 0.5 * masked[2][:20].mean()
  assert_same(masked, skipping, 1e-4)
  assert_same(masked, compact, 1e-4)


@pytest.mark.slow
def test_transformer_xl_over_200_steps_is_the_same_to_rounding():
  inner = optax.sgd(0.05, momentum=0.9)
  masked, skipping, compact = compare(make_language(200), 25, inner)
  assert masked[2][-20:].mean() < 0.5 * masked[2][:20].mean()
  assert_same(masked, skipping, 1e-3)
  assert_same(masked, compact, 1e-3)


@pytest.mark.slow
def test_a_residual_network_is_the_same_to_rounding():
  masked, skipping, compact = compare(make_residual(6), 2, optax.sgd(0.01))
  assert_same(masked, skipping, 1e-4)
  assert_same(masked, compact, 1e-4)


def test_convolutions_by_patches_take_compact_weights():
  net = convnet.lenet5(num_classes=10, compute_dtype='float32')
  x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
  params, state = net.init(jax.random.key(0), x, True)
  tx = topkast.topkast(
    optax.sgd(0.1), forward_density=0.2, backward_density=0.2
  )
  masks = tx.init(params)
  weights = sparsity.compact.pack(params, masks.sets.forward)
  is_compact = sparsity.compact.is_compact
  assert any(map(is_compact, jax.tree.leaves(weights, is_leaf=is_compact)))
  y, _ = net.apply(weights, state, None, x, False)
  expected, _ = net.apply(
    sparsity.forward_weights(params, masks), state, None, x, False
  )
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_models_have_haikus_own_parameters(monkeypatch):
  net = lenet.lenet(hidden=(30,), num_classes=10)
  ours = net.init(jax.random.key(0), jnp.ones((2, 50)), True)
  monkeypatch.setattr(layers, 'Linear', hk.Linear)
  theirs = net.init(jax.random.key(0), jnp.ones((2, 50)), True)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
