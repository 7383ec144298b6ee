"""Measures of continual learning, from a matrix of accuracies.

Shapes:
  T: number of tasks. Entry [i, j] of an accuracy matrix is the accuracy on task
  j after training on tasks 0 to i; NaN where it was not measured.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def matrix_of(rows: Sequence[dict[str, Any]], num_tasks: int) -> np.ndarray:
  """Returns the accuracy matrix of the 'test' rows of one network.

  Where each task has a network of its own, that of an earlier task stays as it
  was measured.

  Example:
    >>> rows = [{'task': 1, 'tested': 1, 'accuracy': 0.9},
    ...         {'task': 2, 'tested': 2, 'accuracy': 0.8}]
    >>> matrix_of(rows, 2)
    array([[0.9, nan],
           [0.9, 0.8]])

  Args:
    rows: with the tasks trained, 'task', and 'tested', each from 1.
    num_tasks: T.
  """
  matrix = np.full((num_tasks, num_tasks), np.nan)
  for row in rows:
    matrix[row['task'] - 1, row['tested'] - 1] = row['accuracy']
  if all(row['task'] == row['tested'] for row in rows):
    for task in range(num_tasks):
      matrix[task:, task] = matrix[task, task]
  return matrix


def average_accuracy(accuracies: np.ndarray) -> float:
  """Returns the mean accuracy on all tasks after the last one.

  Example:
    >>> average_accuracy(np.array([[0.9, 0.1], [0.7, 0.8]]))
    0.75

  Reference:
    Lopez-Paz and Ranzato, 2017, "Gradient episodic memory for continual
    learning". https://arxiv.org/abs/1706.08840
  """
  return float(np.mean(_square(accuracies)[-1]))


def learning_accuracy(accuracies: np.ndarray) -> float:
  """Returns the mean accuracy on each task just after training on it.

  Example:
    >>> learning_accuracy(np.array([[0.9, 0.1], [0.7, 0.8]])).__round__(3)
    0.85
  """
  return float(np.mean(np.diag(_square(accuracies))))


def forgetting(accuracies: np.ndarray) -> float:
  """Returns how much of the best accuracy on each earlier task is lost.

  The mean over all tasks but the last of the highest accuracy that the task had
  after any training from its own on, less that at the end. At least 0 unless
  the end is the best; 0 for a single task.

  Example:
    >>> forgetting(np.array([[0.9, 0.1], [0.7, 0.8]])).__round__(3)
    0.2

  Reference:
    Chaudhry et al., 2018, "Riemannian walk for incremental learning:
    Understanding forgetting and intransigence".
    https://arxiv.org/abs/1801.10112
  """
  accuracies = _square(accuracies)
  last = len(accuracies) - 1
  losses = [
    np.nanmax(accuracies[j:last, j]) - accuracies[last, j] for j in range(last)
  ]
  return float(np.mean(losses)) if losses else 0.0


def backward_transfer(accuracies: np.ndarray) -> float:
  """Returns how much later tasks changed the accuracy on earlier ones.

  The mean over all tasks but the last of the accuracy at the end less that just
  after training on the task; 0 for a single task.

  Example:
    >>> backward_transfer(np.array([[0.9, 0.1], [0.7, 0.8]])).__round__(3)
    -0.2

  Reference:
    Lopez-Paz and Ranzato, 2017, "Gradient episodic memory for continual
    learning". https://arxiv.org/abs/1706.08840
  """
  accuracies = _square(accuracies)
  changes = (accuracies[-1] - np.diag(accuracies))[:-1]
  return float(np.mean(changes)) if changes.size else 0.0


def forward_transfer(accuracies: np.ndarray, untrained: np.ndarray) -> float:
  """Returns what earlier tasks gave the next one before it was trained.

  The mean over all tasks but the first of the accuracy just before training on
  the task, less that of the network before any training; 0 for a single task.

  Example:
    >>> accuracies = np.array([[0.9, 0.3], [0.7, 0.8]])
    >>> forward_transfer(accuracies, np.array([0.1, 0.1])).__round__(3)
    0.2

  Args:
    accuracies: [T, T], of which the entries [i, i + 1] matter.
    untrained: [T], of the network before any training.

  Reference:
    Lopez-Paz and Ranzato, 2017, "Gradient episodic memory for continual
    learning". https://arxiv.org/abs/1706.08840
  """
  accuracies = _square(accuracies)
  gains = np.diag(accuracies, 1) - untrained[1:]
  return float(np.mean(gains)) if gains.size else 0.0


def intransigence(accuracies: np.ndarray, alone: np.ndarray) -> float:
  """Returns how much worse tasks are learned than by a network of their own.

  The mean over tasks of the reference less the accuracy just after training.
  Negative where earlier tasks help.

  Example:
    >>> accuracies = np.array([[0.9, 0.1], [0.7, 0.8]])
    >>> intransigence(accuracies, np.array([0.9, 0.9])).__round__(3)
    0.05

  Args:
    accuracies: [T, T], of which the diagonal matters.
    alone: [T], the accuracy on each task of a network trained on it alone.

  Reference:
    Chaudhry et al., 2018, "Riemannian walk for incremental learning:
    Understanding forgetting and intransigence".
    https://arxiv.org/abs/1801.10112
  """
  return float(np.mean(alone - np.diag(_square(accuracies))))


def num_above(accuracies: np.ndarray, alone: np.ndarray, share: float) -> int:
  """Returns how many tasks end with a share of their accuracy alone.

  Example:
    >>> accuracies = np.array([[0.9, 0.1], [0.7, 0.9]])
    >>> num_above(accuracies, np.array([0.9, 0.9]), 0.9)
    1

  Args:
    accuracies: [T, T], of which the last row matters.
    alone: [T], the accuracy on each task of a network trained on it alone.
    share: in (0, 1].
  """
  return int(np.sum(_square(accuracies)[-1] >= share * alone))


def _square(accuracies: np.ndarray) -> np.ndarray:
  accuracies = np.asarray(accuracies, np.float64)
  if accuracies.ndim != 2 or accuracies.shape[0] != accuracies.shape[1]:
    raise ValueError(
      'expected a square matrix, a row for each task trained and a column for '
      f'each tested, got the shape {accuracies.shape}'
    )
  return accuracies
