"""Layers that take dense or compact weights equal Haiku's."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
