"""Measures of continual learning, on matrices one can follow by hand."""

import numpy as np
import pytest

from experiments.paper import runs

ACCURACIES = [[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.7, 0.5, 0.9]]


def rows_of(accuracies, untrained=(0.1, 0.1, 0.15)):
  rows = [
    {'split': 'untrained', 'tested': i, 'accuracy': accuracy}
    for i, accuracy in enumerate(untrained, 1)
  ]
  return rows + [
    {'split': 'test', 'task': task, 'tested': i, 'accuracy': accuracy}
    for task, own in enumerate(accuracies, 1)
    for i, accuracy in enumerate(own, 1)
    if accuracy is not None
  ]


def test_measures_of_a_matrix():
  usage = {'split': 'usage', 'layer': 'all', 'owned': 0.5, 'reused': 0.25}
  found = runs.task_measures([*rows_of(ACCURACIES), usage], 3)
  assert found == pytest.approx(
    {
      'average_accuracy': (0.7 + 0.5 + 0.9) / 3,
      'learning_accuracy': (0.9 + 0.8 + 0.9) / 3,
      'forgetting': (0.2 + 0.3) / 2,
      'forward_transfer': (0.1 + 0.15) / 2,
      'owned': 0.5,
      'reused': 0.25,
    }
  )


def test_a_joint_network_has_a_final_accuracy_only():
  found = runs.task_measures(rows_of([[None] * 2, [0.8, 0.9]], ()), 2)
  assert found.pop('average_accuracy') == pytest.approx(0.85)
  assert np.isnan(list(found.values())).all()
