"""Index arrays: built from masks by each builder."""

import functools

import jax
import numpy as np
import pytest

from sparsity import kernels
from sparsity.kernels import host
from sparsity.kernels import structure as structure_lib


@pytest.fixture
def masks():
  scores = np.random.default_rng(0).random((7, 5))
  return scores < 0.3, scores < 0.6


@pytest.fixture(params=['native', 'jax', 'jit'])
def build(request, monkeypatch):
  """A builder of structures: C++ or JAX on the host, or JAX under jit."""
  if request.param == 'jit':
    return jax.jit(kernels.from_masks, static_argnums=2)
  if request.param == 'jax':
    monkeypatch.setattr(host, 'is_available', lambda: False)
  elif not host.is_available():
    pytest.skip('native kernels are not built')
  return kernels.from_masks


def cells_of(shape, strip):
  """Yields the row and the columns of each cell, in order."""
  for first in range(0, shape[0], structure_lib.BLOCK):
    block = range(first, min(first + structure_lib.BLOCK, shape[0]))
    for column in range(0, shape[1], strip):
      columns = np.arange(column, min(column + strip, shape[1]))
      for row in block:
        yield row, columns


@functools.cache
def expected_structure(shape, densities):
  """Returns two masks and their structure, cell by cell."""
  scores = np.random.default_rng(0).random(shape)
  A, B = (scores < density for density in densities)
  strip = structure_lib.strip_size(shape, A.sum())
  cells, columns, places, at = [], [], np.zeros(shape, int), 0
  for mask in (A, B & ~A):
    for output, inputs in cells_of(shape[::-1], strip):
      active = inputs[mask[inputs, output]]
      cells.append(at)
      columns += [*active]
      places[active, output] = np.arange(at, at + len(active))
      at += len(active)
  t_cells, t_columns, t_entries = [], [], []
  for row, outputs in cells_of(shape, strip):
    active = outputs[A[row, outputs]]
    t_cells.append(len(t_columns))
    t_columns += [*active]
    t_entries += [*places[row, active]]
  return (
    (A, B),
    ([*cells, at], columns, [*t_cells, len(t_columns)], t_columns, t_entries),
  )


@pytest.mark.parametrize(
  ('shape', 'densities'),
  [((7, 5), (0.3, 0.6)), ((300, 260), (0.1, 0.2)), ((700, 130), (0.02, 0.9))],
)
def test_entries_are_ordered_cell_by_cell_with_a_first(build, shape, densities):
  (A, B), expected = expected_structure(shape, densities)
  found = build(A, B, (int(A.sum()), int(B.sum())))
  for array, values in zip(found, expected, strict=True):
    assert array.dtype == np.int32
    np.testing.assert_array_equal(array, values)
  columns = np.asarray(found.columns)
  assert B[columns, kernels.outputs_of(found, shape)].all()


@pytest.mark.parametrize('is_native', [True, False])
def test_masks_that_do_not_match_are_errors(is_native, masks, monkeypatch):
  if not is_native:
    monkeypatch.setattr(host, 'is_available', lambda: False)
  A, B = masks
  counts = int(A.sum()), int(B.sum())
  for arguments, message in (
    ((A, B, (counts[0], counts[1] + 1)), 'constant numbers'),
    ((B, A, counts[::-1]), 'every entry of forward'),
    ((A, B[:, 1:]), r'expected two masks of one \[in, out'),
    ((A.astype(float), B), 'expected boolean masks'),
  ):
    with pytest.raises(ValueError, match=message):
      kernels.from_masks(*arguments)


def test_too_many_entries_for_int32_are_an_error():
  with pytest.raises(ValueError, match=r'fewer than 2\^31 entries'):
    structure_lib.check_num_entries((2**16, 2**15))
  structure_lib.check_num_entries((2**16, 2**15 - 1))
