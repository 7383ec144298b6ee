"""Entries moved between structures: C++ and JAX agree bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels
from sparsity.compact import entries
from sparsity.kernels import host

SHAPE = (301, 243)  # large enough for several threads
COUNTS = (14_000, 36_000)


@pytest.fixture(params=['native', 'jax'])
def on_host(request, monkeypatch):
  """The C++ and the JAX implementations."""
  if request.param == 'jax':
    monkeypatch.setattr(host, 'is_available', lambda: False)
  elif not host.is_available():
    pytest.skip('native kernels are not built')
  return request.param


def make_masks(seed):
  """Returns A and B with constant numbers of entries."""
  order = np.random.default_rng(seed).permutation(np.prod(SHAPE))
  return tuple((order < count).reshape(SHAPE) for count in COUNTS)


def refresh(masks, dense):
  """Returns what a refresh makes of entries, their origins and a weight."""
  old, new = (kernels.from_masks(*pair, COUNTS) for pair in masks)
  origin = entries.origins(old, new, SHAPE)
  values = entries.take(dense, entries.places(old, SHAPE))
  fresh = entries.take(dense, entries.places(new, SHAPE))
  moved = entries.move(values, origin, fresh)
  return old, new, origin, moved, entries.write_back(dense, old, 2 * values)


def test_a_refresh_on_the_host_equals_one_under_jit(on_host):
  masks = [make_masks(seed) for seed in (0, 1)]
  dense = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
  found = refresh(masks, dense)
  jax.tree.map(
    np.testing.assert_array_equal, found, jax.jit(refresh)(masks, dense)
  )
  old, new, origin, moved, written = found
  before, after = (entries.places(s, SHAPE) for s in (old, new))
  index = {place: i for i, place in enumerate(before.tolist())}
  expected = [index.get(place, -1) for place in after.tolist()]
  np.testing.assert_array_equal(origin, expected)
  assert min(expected) == -1
  np.testing.assert_array_equal(moved, dense.reshape(-1)[after])
  expected = np.where(masks[0][1], 2 * dense, dense)
  np.testing.assert_array_equal(written, expected)
  if on_host == 'native':  # aligned, so that JAX need not copy them
    arrays = (*old, origin, moved, written)
    assert {array.ctypes.data % 64 for array in arrays} == {0}


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
def test_entries_that_stay_move_and_those_that_enter_are_fresh(dtype, on_host):
  x, fresh = np.array([5, 6, 7], dtype), np.array([1, 2, 3], dtype)
  origin = np.array([2, -1, 0], np.int32)
  np.testing.assert_array_equal(entries.move(x, origin, fresh), [7, 2, 5])
