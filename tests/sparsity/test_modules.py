"""Layers that take dense or compact weights equal Haiku's."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsity
from sparsity import modules

CONV = [
  {'kernel_shape': 3},
  {'kernel_shape': (1, 2), 'stride': 2, 'with_bias': False},
  {'kernel_shape': 3, 'padding': [(1, 1), (0, 2)]},
  {'kernel_shape': 3, 'rate': 2},
  {'kernel_shape': 3, 'feature_group_count': 2},
  {'kernel_shape': 3, 'data_format': 'NCHW'},
  {'kernel_shape': 3, 'mask': np.ones((3, 3, 4, 6))},
]


def transform(module, *args, **kwargs):
  return hk.without_apply_rng(
    hk.transform(lambda x: module(*args, **kwargs)(x))
  )


def assert_alike(ours, theirs, x):
  params = ours.init(jax.random.key(3), x)
  expected = theirs.init(jax.random.key(3), x)
  jax.tree.map(np.testing.assert_array_equal, params, expected)
  assert list(params) == list(expected)
  y = theirs.apply(expected, x)
  found = ours.apply(params, x)
  assert found.dtype == y.dtype
  np.testing.assert_array_equal(found, y)


@pytest.mark.parametrize(
  ('options', 'shape', 'dtype'),
  [
    ({}, (5,), jnp.float32),
    ({'w_init': hk.initializers.Constant(2.0)}, (2, 3, 5), jnp.float32),
    ({}, (2, 5), jnp.bfloat16),  # parameters are in bfloat16, too
  ],
)
def test_a_linear_layer_equals_haikus(options, shape, dtype):
  x = jax.random.normal(jax.random.key(0), shape, dtype)
  ours = transform(modules.Linear, 4, **options)
  assert_alike(ours, transform(hk.Linear, 4, **options), x)


@pytest.mark.parametrize('options', CONV)
def test_a_convolution_equals_haikus(options):
  shape = (4, 4, 4) if options == {'kernel_shape': 3} else (2, 4, 4, 4)
  x = jax.random.normal(jax.random.key(0), shape)
  ours = transform(modules.Conv2D, 6, **options)
  assert_alike(ours, transform(hk.Conv2D, 6, **options), x)


def test_inputs_of_wrong_rank_and_unequal_groups_are_errors():
  with pytest.raises(ValueError, match='got a scalar'):
    transform(modules.Linear, 4).init(jax.random.key(0), jnp.ones([]))
  net = transform(modules.Conv2D, 4, 3, feature_group_count=2)
  with pytest.raises(ValueError, match='2 equal groups'):
    net.init(jax.random.key(0), jnp.ones((1, 5, 5, 3)))
  with pytest.raises(ValueError, match='rank 3 or 4'):
    net.init(jax.random.key(0), jnp.ones((5, 3)))


@pytest.mark.parametrize('storage', ['dense', 'masked', 'compact'])
@pytest.mark.parametrize('kind', ['linear', 'convolution'])
def test_gradients_of_float32_weights_are_float32(kind, storage):
  # Bfloat16 inputs, rounded weights; float64 gradients of the same numbers.
  module, args = (modules.Linear, (5,))
  shape = (7, 4)
  if kind == 'convolution':
    module, args, shape = modules.Conv2D, (5, 3), (2, 6, 6, 4)
  net = transform(module, *args)
  params = net.init(jax.random.key(0), jnp.ones(shape))
  [(name, leaves)] = params.items()
  w = leaves['w']
  mask = jax.random.bernoulli(jax.random.key(1), 0.5, w.shape)
  masked = {name: {**leaves, 'w': jnp.where(mask, w, 0)}}
  if storage == 'compact':
    masks = {name: {'w': mask, 'b': jnp.ones(5, bool)}}
    weights = sparsity.compact.pack(params, masks, masks)
  elif storage == 'masked':
    weights = {name: {**leaves, 'w': sparsity.MaskedWeights(w, mask)}}
  else:
    weights = masked
  x = jax.random.normal(jax.random.key(2), shape, jnp.bfloat16)
  dy = net.apply(masked, x)
  assert dy.dtype == jnp.bfloat16

  def loss(weights):
    y = net.apply(weights, x)
    assert y.dtype == jnp.bfloat16
    return jnp.sum((y * dy).astype(jnp.float32))

  found = sparsity.grad(loss)(weights)[name]['w']
  with jax.enable_x64(True):
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), masked)
    pull = jax.vjp(lambda w: net.apply(w, np.asarray(x, np.float64)), exact)[1]
    expected = np.asarray(pull(np.asarray(dy, np.float64))[0][name]['w'])
  if storage == 'compact':
    found = np.sort(np.ravel(found))
    expected = np.sort(expected[np.asarray(mask)])
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
