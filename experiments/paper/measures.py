"""Measures of continual learning, from a matrix of accuracies.

Shapes:
  T: number of tasks. Entry [i, j] of an accuracy matrix is the accuracy on task
  j after training on tasks 0 to i; NaN where it was not measured.

Reference:
  Lopez-Paz and Ranzato, 2017, "Gradient episodic memory for continual
  learning". https://arxiv.org/abs/1706.08840
  Chaudhry et al., 2018, "Riemannian walk for incremental learning:
  Understanding forgetting and intransigence".
  https://arxiv.org/abs/1801.10112
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

SHARE = 0.9  # of the accuracy alone, for a task to count as kept


def accuracy_matrix(
  rows: Sequence[Mapping[str, Any]], num_tasks: int
) -> np.ndarray:
  """Returns the accuracy matrix [T, T] from the 'test' rows of one network.

  Where each task has a network of its own, accuracies persist after their task.

  Example:
    >>> rows = [{'split': 'test', 'task': 1, 'tested': 1, 'accuracy': 0.9},
    ...         {'split': 'test', 'task': 2, 'tested': 2, 'accuracy': 0.8}]
    >>> accuracy_matrix(rows, 2)
    array([[0.9, nan],
           [0.9, 0.8]])
  """
  matrix = np.full((num_tasks, num_tasks), np.nan)
  tests = [row for row in rows if row['split'] == 'test']
  for row in tests:
    matrix[row['task'] - 1, row['tested'] - 1] = row['accuracy']
  if all(row['task'] == row['tested'] for row in tests):
    for task in range(num_tasks):
      matrix[task:, task] = matrix[task, task]
  return matrix


def of_network(
  rows: Sequence[Mapping[str, Any]], num_tasks: int
) -> dict[str, float]:
  """Returns the measures of one network; NaN where rows are missing.

  Keys: 'average_accuracy' (over all tasks, at the end), 'learning_accuracy'
  (of each task just after training on it), 'forgetting' (the best earlier
  accuracy less that at the end, over all tasks but the last),
  'forward_transfer' (the accuracy just before training less the untrained
  network's), and 'owned' and 'reused' where weights are.
  """
  matrix = accuracy_matrix(rows, num_tasks)
  untrained = np.full(num_tasks, np.nan)
  usage = {}
  for row in rows:
    if row['split'] == 'untrained':
      untrained[row['tested'] - 1] = row['accuracy']
    if row['split'] == 'usage' and row['layer'] == 'all':
      usage = {name: row[name] for name in ('owned', 'reused')}
  new, last = np.diag(matrix), matrix[-1]
  learned = np.where(np.tri(num_tasks, dtype=bool), matrix, np.nan)
  best = np.fmax.reduce(learned[:-1], 0) if num_tasks > 1 else last
  # A network trained on all tasks jointly has no accuracies in between.
  is_whole = np.isfinite(new).all()
  return {
    'average_accuracy': float(last.mean()),
    'learning_accuracy': float(new.mean()),
    'forgetting': _mean((best - last)[:-1]) if is_whole else np.nan,
    'forward_transfer': _mean(np.diag(matrix, 1) - untrained[1:]),
    **usage,
  }


def against_alone(matrix: np.ndarray, alone: np.ndarray) -> dict[str, float]:
  """Returns how a network compares with one network for each task.

  Keys: 'intransigence' (the accuracy alone less that just after training) and
  'kept' (the tasks that end with at least `SHARE` of their accuracy alone).

  Args:
    matrix: [T, T].
    alone: [T], the accuracy of a network trained on the task alone.
  """
  return {
    'intransigence': float((alone - np.diag(matrix)).mean()),
    'kept': float((matrix[-1] >= SHARE * alone).sum()),
  }


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if values.size else 0.0
