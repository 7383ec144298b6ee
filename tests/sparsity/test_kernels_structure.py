"""The index arrays: made from masks, and checked when they were not."""

import numpy as np
import pytest

from sparsity import kernels


@pytest.fixture
def masks():
  scores = np.random.default_rng(0).random((7, 5))
  return scores < 0.3, scores < 0.6


def test_rows_hold_forward_entries_first_each_part_ascending(masks):
  A, B = masks
  s = kernels.from_masks(A, B)
  for output in range(5):
    begin, split, end = s.rows[output], s.split[output], s.rows[output + 1]
    np.testing.assert_array_equal(
      s.columns[begin:split], np.flatnonzero(A[:, output])
    )
    np.testing.assert_array_equal(
      s.columns[split:end], np.flatnonzero((B & ~A)[:, output])
    )


def test_the_transposed_rows_point_at_the_same_entries(masks):
  A, B = masks
  s = kernels.from_masks(A, B)
  for i in range(7):
    places = slice(s.t_rows[i], s.t_rows[i + 1])
    outputs = s.t_columns[places]
    np.testing.assert_array_equal(outputs, np.flatnonzero(A[i]))
    entries = np.asarray(s.t_entries[places])
    np.testing.assert_array_equal(np.asarray(s.columns)[entries], i)
    for entry, output in zip(entries, outputs, strict=True):
      assert s.rows[output] <= entry < s.split[output]


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
  'rows': (lambda a: a.at[1].set(99), 'rows to ascend'),
  'split': (lambda a: a.at[0].set(-1), 'split inside its row'),
  'columns': (lambda a: a.at[0].set(7), r'columns in \[0, 7\)'),
  't_rows': (lambda a: a.at[0].set(1), 't_rows to ascend'),
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


def test_an_entry_twice_is_an_error(masks):
  structure = kernels.from_masks(*masks)
  columns = structure.columns
  twice = columns.at[1].set(columns[0])
  with pytest.raises(ValueError, match='expected distinct entries'):
    kernels.check(structure._replace(columns=twice), (7, 5))
