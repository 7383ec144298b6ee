"""Heads: one program for all tasks, each task its own output layer."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import heads as heads_lib

INPUTS = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
NUM_CLASSES, NUM_HEADS = 3, 4


def make_network(num_classes):
  def forward(x, is_training):
    x = jax.nn.relu(hk.Linear(6, name='hidden')(x))
    x = hk.BatchNorm(True, True, 0.9, name='norm')(x, is_training)
    return hk.Linear(
      num_classes, b_init=hk.initializers.RandomNormal(), name='out'
    )(x)

  return hk.transform_with_state(forward)


def make(network=make_network):
  return heads_lib.make_heads(
    network,
    jax.ShapeDtypeStruct((1, 5), jnp.float32),
    num_classes=NUM_CLASSES,
    num_heads=NUM_HEADS,
  )


HEADS = make()
PARAMS, STATE = HEADS.init(jax.random.key(0), INPUTS)
apply = jax.jit(HEADS.apply, static_argnums=4)


def test_a_task_sees_the_network_with_its_own_head():
  assert HEADS.paths == {'out/w', 'out/b'}
  assert PARAMS['out']['w'].shape == (6, NUM_CLASSES * NUM_HEADS)
  for task in range(NUM_HEADS):
    logits, _ = apply(PARAMS, STATE, None, INPUTS, False, task)
    columns = slice(NUM_CLASSES * task, NUM_CLASSES * (task + 1))
    out = {name: x[..., columns] for name, x in PARAMS['out'].items()}
    own = {**PARAMS, 'out': out}
    network = make_network(NUM_CLASSES)
    expected, _ = network.apply(own, STATE, None, INPUTS, False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
  assert apply._cache_size() == 1


def test_gradients_reach_the_own_head_alone_as_its_mask_says():
  def loss(params):
    return jnp.sum(HEADS.apply(params, STATE, None, INPUTS, False, 2)[0] ** 2)

  slopes = jax.grad(loss)(PARAMS)['out']
  masks = HEADS.masks(PARAMS, 2)
  for name in ('w', 'b'):
    np.testing.assert_array_equal(slopes[name] != 0, masks[f'out/{name}'])


def test_networks_without_heads_are_refused():
  def of(width):
    return lambda num_classes: hk.transform_with_state(
      lambda x, _: hk.Linear(width(num_classes))(x)
    )

  with pytest.raises(ValueError, match='no parameters that depend on it'):
    make(of(lambda _: 3))
  with pytest.raises(ValueError, match=r'classes, 3, got .*linear/'):
    make(of(lambda num_classes: 2 * num_classes))
