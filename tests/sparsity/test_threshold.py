"""The k-th magnitude, and the integer keys, against sorting in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import threshold

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
SPECIAL = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, 6e-8, -6e-8, 60000.0]
SCORES = np.array([*SPECIAL, *np.random.default_rng(0).standard_normal(50)])

kth = jax.jit(threshold.kth_magnitude)


@pytest.mark.parametrize('dtype', DTYPES)
def test_kth_magnitude_is_the_one_of_a_sort(dtype):
  x = SCORES.astype(dtype)
  expected = np.sort(np.abs(x.astype(np.float64)))  # NaN last
  expected = np.concatenate([expected[-2::-1], expected[-1:]])
  found = [kth(x, k) for k in range(1, x.size + 1)]
  assert all(value.dtype == dtype for value in found)
  np.testing.assert_array_equal(np.array(found, np.float64), expected)


def test_kth_magnitude_under_vmap():
  batch = np.random.default_rng(1).standard_normal((3, 20)).astype(np.float32)
  ks = np.array([1, 7, 20])
  expected = [np.sort(np.abs(x))[-k] for x, k in zip(batch, ks, strict=True)]
  found = jax.vmap(threshold.kth_magnitude)(batch, ks)
  np.testing.assert_array_equal(found, expected)


def test_kth_magnitude_of_sharded_scores():
  mesh = jax.make_mesh((4,), ('x',), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.sharding.NamedSharding(mesh, jax.P('x'))
  x = np.random.default_rng(2).standard_normal((8, 6)).astype(np.float32)
  assert kth(jax.device_put(x, sharding), 5) == np.sort(np.abs(x).ravel())[-5]


@pytest.mark.parametrize('k', [0, 61])
def test_k_outside_is_an_error_and_traced_gives_nan(k):
  x = SCORES.astype(np.float32)
  with pytest.raises(ValueError, match=f'between 1 and .* 60, got {k}'):
    threshold.kth_magnitude(x, k)
  assert np.isnan(kth(np.ones_like(x), k))


def test_kth_magnitude_of_nothing_is_an_error():
  with pytest.raises(ValueError, match='got 1'):
    threshold.kth_magnitude(np.zeros(0, np.float32), 1)


@pytest.mark.parametrize('magnitude', [False, True])
@pytest.mark.parametrize('dtype', DTYPES)
def test_keys_are_ordered_as_the_scores_are(dtype, magnitude):
  scores = SCORES.astype(dtype)
  keys = np.asarray(threshold.order(jnp.asarray(scores), magnitude))
  values = scores.astype(np.float64)
  values = np.abs(values) if magnitude else values
  values = np.clip(values, -1e300, 1e300)  # so that NaN has a place below
  values = np.where(np.isnan(values), -np.inf, values)
  for key, value in zip(keys, values, strict=True):
    np.testing.assert_array_equal(keys < key, values < value)


def test_cuts_of_the_same_scores_are_found_together():
  x = jnp.asarray(SCORES, jnp.float32)
  cuts = jax.jit(threshold.find)([x[:7], x[7:]], jnp.array([4, 30]))
  for cut, k in zip(cuts, (4, 30), strict=True):
    kept = threshold.keep(x[:7], cut), threshold.keep(x[7:], cut, offset=7)
    assert sum(int(mask.sum()) for mask in kept) == k
