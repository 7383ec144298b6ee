"""Measures of continual learning, on matrices one can follow by hand."""

import numpy as np
import pytest

from experiments.continual import measures

NAN = np.nan
MATRIX = np.array(
  [
    [0.9, 0.2, 0.1],
    [0.6, 0.8, 0.3],
    [0.7, 0.5, 0.9],
  ]
)


def test_measures_of_a_matrix():
  close = pytest.approx
  assert measures.average_accuracy(MATRIX) == close((0.7 + 0.5 + 0.9) / 3)
  assert measures.learning_accuracy(MATRIX) == close((0.9 + 0.8 + 0.9) / 3)
  assert measures.forgetting(MATRIX) == close((0.2 + 0.3) / 2)
  assert measures.backward_transfer(MATRIX) == close((-0.2 - 0.3) / 2)
  untrained = np.array([0.1, 0.1, 0.15])
  assert measures.forward_transfer(MATRIX, untrained) == close((0.1 + 0.15) / 2)
  alone = np.array([0.9, 0.9, 0.8])
  assert measures.intransigence(MATRIX, alone) == close((0 + 0.1 - 0.1) / 3)
  assert measures.num_above(MATRIX, alone, 0.75) == 2


def test_forgetting_is_counted_from_the_best_that_was_measured():
  matrix = np.array([[0.5, NAN, NAN], [NAN, 0.9, NAN], [0.7, 0.6, 0.9]])
  assert measures.forgetting(matrix) == pytest.approx((-0.2 + 0.3) / 2)


def test_one_task_is_neither_forgotten_nor_helped():
  matrix = np.array([[0.9]])
  assert measures.forgetting(matrix) == 0
  assert measures.backward_transfer(matrix) == 0
  assert measures.forward_transfer(matrix, np.array([0.1])) == 0


def test_the_matrix_of_rows_has_what_was_measured():
  rows = [
    {'task': 1, 'tested': 1, 'accuracy': 0.9},
    {'task': 1, 'tested': 2, 'accuracy': 0.2},
    {'task': 2, 'tested': 2, 'accuracy': 0.8},
  ]
  np.testing.assert_array_equal(
    measures.matrix_of(rows, 2), [[0.9, 0.2], [NAN, 0.8]]
  )


def test_a_matrix_that_is_not_square_is_refused():
  with pytest.raises(ValueError, match='a square matrix'):
    measures.average_accuracy(np.ones((2, 3)))
