"""The integer keys and the cuts, against sorting in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import threshold

SPECIAL = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, 6e-8, -6e-8, 60000.0]
SCORES = np.array([*SPECIAL, *np.random.default_rng(0).standard_normal(50)])


@pytest.mark.parametrize('magnitude', [False, True])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_keys_are_ordered_like_the_scores(dtype, magnitude):
  scores = SCORES.astype(dtype)
  keys = np.asarray(threshold.order(jnp.asarray(scores), magnitude))
  values = scores.astype(np.float64)
  values = np.abs(values) if magnitude else values
  values = np.clip(values, -1e300, 1e300)  # leaves a place below for NaN
  values = np.where(np.isnan(values), -np.inf, values)
  for key, value in zip(keys, values, strict=True):
    np.testing.assert_array_equal(keys < key, values < value)


def test_cuts_over_several_leaves_are_found_together():
  x = jnp.asarray(SCORES, jnp.float32)
  cuts = jax.jit(threshold.find)([x[:7], x[7:]], jnp.array([4, 30]))
  for cut, k in zip(cuts, (4, 30), strict=True):
    kept = threshold.keep(x[:7], cut), threshold.keep(x[7:], cut, offset=7)
    assert sum(int(mask.sum()) for mask in kept) == k
