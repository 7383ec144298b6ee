"""The index arrays: made from masks, and checked when they were not."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels


@pytest.fixture
def masks():
  scores = np.random.default_rng(0).random((7, 5))
  return scores < 0.3, scores < 0.6


def cells_of(shape, strip):
  """Returns the rows and the columns of each cell, in order."""
  cells = []
  for first in range(0, shape[0], kernels.BLOCK):
    block = range(first, min(first + kernels.BLOCK, shape[0]))
    for column in range(0, shape[1], strip):
      columns = range(column, min(column + strip, shape[1]))
      cells += [(row, columns) for row in block]
  return cells


@pytest.mark.parametrize(
  ('shape', 'densities'),
  [((7, 5), (0.3, 0.6)), ((300, 260), (0.1, 0.2)), ((700, 130), (0.02, 0.9))],
)
def test_entries_go_cell_by_cell_first_all_of_the_forward_set(shape, densities):
  scores = np.random.default_rng(0).random(shape)
  A, B = (scores < density for density in densities)
  s = kernels.from_masks(A, B)
  strip = kernels.strip_size(shape, A.sum())
  at, places = 0, np.zeros(shape, int)
  cells = iter(np.asarray(s.cells))
  for mask in (A, B & ~A):
    for output, inputs in cells_of(shape[::-1], strip):
      assert next(cells) == at
      active = [i for i in inputs if mask[i, output]]
      np.testing.assert_array_equal(s.columns[at : at + len(active)], active)
      places[active, output] = np.arange(at, at + len(active))
      at += len(active)
  assert list(cells) == [at] == [B.sum()]
  at, cells = 0, iter(np.asarray(s.t_cells))
  for i, outputs in cells_of(shape, strip):
    assert next(cells) == at
    active = [output for output in outputs if A[i, output]]
    found = slice(at, at + len(active))
    np.testing.assert_array_equal(s.t_columns[found], active)
    np.testing.assert_array_equal(s.t_entries[found], places[i, active])
    at += len(active)
  assert list(cells) == [at] == [A.sum()]


def test_strips_are_longer_where_there_are_fewer_entries():
  shape = (1000, 1000)
  sizes = [
    kernels.strip_size(shape, k) for k in (10**6, 10**5, 30_000, 20_000, 0)
  ]
  assert sizes == [128, 128, 512, 512, 1024]


def test_outputs_are_those_of_the_entries(masks):
  s = kernels.from_masks(*masks)
  for xp in (np, jnp):
    outputs = kernels.outputs_of(s, (7, 5), xp)
    found = np.zeros((7, 5), int)
    np.add.at(found, (np.asarray(s.columns), np.asarray(outputs)), 1)
    np.testing.assert_array_equal(found, masks[1])


def test_masks_that_are_no_pair_are_errors(masks):
  A, B = masks
  with pytest.raises(ValueError, match=r'expected two masks of one \[in, out'):
    kernels.from_masks(A, B[:, 1:])
  with pytest.raises(ValueError, match='expected boolean masks'):
    kernels.from_masks(A.astype(float), B)
  with pytest.raises(ValueError, match='every entry of forward'):
    kernels.from_masks(B, A)


def test_what_was_made_here_passes_the_check(masks):
  kernels.check(kernels.from_masks(*masks), (7, 5))
  nothing = np.zeros((7, 5), bool)
  kernels.check(kernels.from_masks(nothing, nothing), (7, 5))


BROKEN = {
  'cells': (lambda a: a.at[1].set(99), 'cells to ascend'),
  'columns': (lambda a: a.at[0].set(7), r'columns in \[0, 7\)'),
  't_cells': (lambda a: a.at[0].set(1), 't_cells to ascend'),
  't_columns': (lambda a: a.at[0].set(-1), r't_columns in \[0, 5\)'),
  't_entries': (lambda a: a[::-1], 't_entries to describe the same'),
}


@pytest.mark.parametrize('field', BROKEN)
def test_a_broken_array_is_named(field, masks):
  break_it, message = BROKEN[field]
  structure = kernels.from_masks(*masks)
  broken = structure._replace(**{field: break_it(getattr(structure, field))})
  with pytest.raises(ValueError, match=message):
    kernels.check(broken, (7, 5))


@pytest.mark.parametrize('place', ['in A', 'in B only'])
def test_an_entry_twice_is_an_error(place, masks):
  structure = kernels.from_masks(*masks)
  columns = structure.columns
  at = {'in A': 0, 'in B only': len(columns) - 2}[place]
  twice = columns.at[at + 1].set(columns[at])
  with pytest.raises(ValueError, match='expected distinct entries'):
    kernels.check(structure._replace(columns=twice), (7, 5))


def test_a_shape_with_other_cells_is_an_error(masks):
  structure = kernels.from_masks(*masks)
  for shape in ((7, 6), (8, 5), (5, 7)):
    with pytest.raises(ValueError, match='cells of shape'):
      kernels.check(structure, shape)
