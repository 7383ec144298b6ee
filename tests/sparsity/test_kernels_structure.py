"""Index arrays: built from masks by each builder, and checked."""

import functools

import jax
import jax.numpy as jnp
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


def test_sets_of_other_sizes_are_errors(masks, build):
  if build is not kernels.from_masks:
    pytest.skip('sizes are not checked under jit')
  A, B = masks
  counts = int(A.sum()), int(B.sum())
  with pytest.raises(ValueError, match='constant numbers'):
    build(A, B, (counts[0], counts[1] + 1))
  with pytest.raises(ValueError, match='every entry of forward'):
    build(B, A, counts[::-1])


def test_too_many_entries_for_int32_are_an_error():
  with pytest.raises(ValueError, match=r'fewer than 2\^31 entries'):
    structure_lib.check_num_entries((2**16, 2**15))
  structure_lib.check_num_entries((2**16, 2**15 - 1))


def test_strips_are_longer_where_there_are_fewer_entries():
  shape = (1000, 1000)
  sizes = [
    structure_lib.strip_size(shape, k)
    for k in (10**6, 10**5, 30_000, 20_000, 0)
  ]
  assert sizes == [128, 128, 512, 512, 1024]


@pytest.mark.parametrize('transform', [lambda fn: fn, jax.jit])
def test_outputs_of_entries_are_those_of_the_mask(masks, transform):
  s = kernels.from_masks(*masks)
  outputs = transform(lambda s: kernels.outputs_of(s, (7, 5)))(s)
  found = np.zeros((7, 5), int)
  np.add.at(found, (np.asarray(s.columns), np.asarray(outputs)), 1)
  np.testing.assert_array_equal(found, masks[1])


def test_masks_that_do_not_match_are_errors(masks):
  A, B = masks
  with pytest.raises(ValueError, match=r'expected two masks of one \[in, out'):
    kernels.from_masks(A, B[:, 1:])
  with pytest.raises(ValueError, match='expected boolean masks'):
    kernels.from_masks(A.astype(float), B)
  with pytest.raises(ValueError, match='every entry of forward'):
    kernels.from_masks(B, A)


def test_structures_of_masks_pass_the_check(masks):
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
  array = break_it(jnp.asarray(getattr(structure, field)))
  broken = structure._replace(**{field: array})
  with pytest.raises(ValueError, match=message):
    kernels.check(broken, (7, 5))


@pytest.mark.parametrize('place', ['in A', 'in B only'])
def test_an_entry_twice_is_an_error(place, masks):
  structure = kernels.from_masks(*masks)
  columns = jnp.asarray(structure.columns)
  at = {'in A': 0, 'in B only': len(columns) - 2}[place]
  twice = columns.at[at + 1].set(columns[at])
  with pytest.raises(ValueError, match='expected distinct entries'):
    kernels.check(structure._replace(columns=twice), (7, 5))


def test_a_shape_with_other_cells_is_an_error(masks):
  structure = kernels.from_masks(*masks)
  for shape in ((7, 6), (8, 5), (5, 7)):
    with pytest.raises(ValueError, match='cells of shape'):
      kernels.check(structure, shape)
