"""Whole networks trained compact and masked, to the same end."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.models import convnet
from experiments.models import layers
from experiments.models import lenet
import sparsity
import topkast


def make_lenet():
  return lenet.lenet(hidden=(300, 100), num_classes=10), (32, 784)


def make_residual():
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

  return layers.transform(forward, compute_dtype='float32'), (4, 9, 8, 3)


def test_convolutions_by_patches_take_compact_weights():
  net = convnet.lenet5(num_classes=10, compute_dtype='float32')
  x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
  params, state = net.init(jax.random.key(0), x, True)
  masks = topkast.topkast(
    optax.sgd(0.1), forward_density=0.2, backward_density=0.2
  ).init(params)
  weights = sparsity.compact.pack(params, masks.sets.forward)
  assert any(
    map(
      sparsity.compact.is_compact,
      jax.tree.leaves(weights, is_leaf=sparsity.compact.is_compact),
    )
  )
  y, _ = net.apply(weights, state, None, x, False)
  expected, _ = net.apply(
    sparsity.forward_weights(params, masks), state, None, x, False
  )
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def make_batches(shape, num):
  """Returns classes that differ, so that there is something to learn."""
  size = int(np.prod(shape[1:]))
  means = 0.5 * jax.random.normal(jax.random.key(7), (10, size))

  def batch(key):
    keys = jax.random.split(key)
    labels = jax.random.randint(keys[0], shape[:1], 0, 10)
    noise = jax.random.normal(keys[1], (shape[0], size))
    return (means[labels] + noise).reshape(shape), labels

  return jax.vmap(batch)(jax.random.split(jax.random.key(1), num))


def make_scan(net, update):
  """Returns many steps in one dispatch; masked or compact is no matter."""

  def objective(weights, net_state, batch):
    logits, net_state = net.apply(weights, net_state, None, batch[0], True)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    return jnp.mean(losses), net_state

  def step(carry, batch):
    params, state, net_state = carry
    weights = sparsity.forward_weights(params, state)
    gradient = sparsity.value_and_grad(objective, has_aux=True)
    (loss, net_state), gradients = gradient(weights, net_state, batch)
    updates, state = update(gradients, state, params)
    return (optax.apply_updates(params, updates), state, net_state), loss

  return jax.jit(functools.partial(jax.lax.scan, step))


def compare(make, num_steps, every, inner):
  """Returns the losses and ends of masked and of compact training."""
  net, shape = make()
  tx = topkast.topkast(
    inner,
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=every,
    distribution='erdos_renyi_kernel',
  )
  training = sparsity.compact.compact(tx)
  batches = make_batches(shape, num_steps)
  params, net_state = net.init(jax.random.key(0), batches[0][0], True)
  (masked, masked_state, _), expected = make_scan(net, tx.update)(
    (params, tx.init(params), net_state), batches
  )
  scan = make_scan(net, training.update)
  params, state, stored = training.init(params)
  losses = []
  for i in range(0, num_steps, every):
    part = jax.tree.map(lambda x, i=i: x[i : i + every], batches)
    (params, state, net_state), loss = scan((params, state, net_state), part)
    losses.append(loss)
    if training.is_due(i + every):
      params, state, stored = training.refresh(params, state, stored)
  found = training.unpack(params, state, stored)
  return (masked, masked_state, expected), (*found, jnp.concatenate(losses))


@pytest.mark.slow
def test_lenet_over_200_steps_is_the_same_to_rounding():
  masked, compact = compare(make_lenet, 200, 25, optax.sgd(0.05, momentum=0.9))
  losses, expected = compact[2], masked[2]
  assert expected[-20:].mean() < 0.5 * expected[:20].mean()
  np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-5)
  overlap = sparsity.overlap(compact[1].sets.forward, masked[1].sets.forward)
  assert overlap > 0.9999
  for path, layer in masked[0].items():
    error = jnp.linalg.norm(compact[0][path]['w'] - layer['w'])
    assert error < 1e-4 * jnp.linalg.norm(layer['w'])


@pytest.mark.slow
def test_a_residual_network_is_the_same_to_rounding():
  masked, compact = compare(make_residual, 6, 2, optax.sgd(0.01))
  np.testing.assert_allclose(compact[2], masked[2], rtol=1e-3)
  flat = [sparsity.select.pick(x[0], _paths(x[0])) for x in (masked, compact)]
  for path, w in flat[0].items():
    error = jnp.linalg.norm(flat[1][path] - w)
    assert error < 1e-3 * jnp.linalg.norm(w), path


def _paths(params):
  return sparsity.select.selected_paths(params, sparsity.is_weight)


def test_haiku_gives_the_same_parameters_whatever_the_layers_are(monkeypatch):
  net, shape = make_lenet()
  ours = net.init(jax.random.key(0), jnp.ones(shape), True)
  monkeypatch.setattr(layers, 'Linear', hk.Linear)
  theirs = net.init(jax.random.key(0), jnp.ones(shape), True)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
