"""Strategies from run folders."""

import numpy as np
import pytest

from experiments.paper import fill
from experiments.paper import runs as runs_lib
from experiments.paper import tables
from tests.experiments.paper import folders

USAGE = [(0.3, 0.0), (0.5, 0.2)]
TABLE = tables.TABLES['permuted_mnist']._replace(
  where={'data': 'permuted_mnist', 'num_tasks': 2}
)


def write(folder, strategy, matrix, usage=(), seed=0, **changes):
  config = folders.tasks(strategy, seed, tasks__num_tasks=2, **changes)
  folders.write_tasks(folder / f'seed={seed}', config, matrix, usage)


def test_the_table_has_the_measures_of_each_strategy(tmp_path):
  write(tmp_path / 'alone', 'alone', [[0.9, None], [None, 0.8]])
  for seed in (0, 1):
    write(
      tmp_path / 'fine', 'fine_tuning', [[0.9, 0.1], [0.6, 0.85]], seed=seed
    )
  write(tmp_path / 'packed', 'packnet', [[0.85, 0.2], [0.85, 0.7]], USAGE)
  found, _ = runs_lib.read(tmp_path)
  results, _ = fill.fill(TABLE, found, runs_lib.to_frame(found))
  cells = fill.summarize(TABLE, results)
  cells = cells.set_index(['strategy', 'alpha', 'column'])
  for strategy, column, expected in (
    ('fine_tuning', 'accuracy', 0.725),
    ('fine_tuning', 'forgetting', 0.3),
    ('fine_tuning', 'tasks kept', 1),
    ('packnet', 'accuracy', 0.775),
    ('packnet', 'forgetting', 0),
    ('packnet', 'below alone', (0.05 + 0.1) / 2),
    ('packnet', 'weights owned', 0.5),
    ('packnet', 'tasks kept', 1),
    ('alone', 'accuracy', 0.85),
    ('alone', 'tasks kept', 2),
  ):
    found = cells['mean'][strategy, '1', column]
    assert found == pytest.approx(expected)
  assert cells.status['fine_tuning', '1', 'weights owned'] == 'absent'
  assert cells.status['ewc', '1', 'accuracy'] == 'empty'
  # Seed 1 has no network alone.
  assert cells.num['fine_tuning', '1', 'forgetting'] == 2
  assert cells.num['fine_tuning', '1', 'tasks kept'] == 1


def measures_of(accuracies, *rows):
  rows = list(rows) + [
    {'split': 'test', 'task': task, 'tested': i, 'accuracy': accuracy}
    for task, own in enumerate(accuracies, 1)
    for i, accuracy in enumerate(own, 1)
    if accuracy is not None
  ]
  config = {'tasks': {'num_tasks': len(accuracies)}}
  return runs_lib.task_measures(runs_lib.Run(None, config, None, {}, rows))


def test_measures_of_a_matrix():
  untrained = [
    {'split': 'untrained', 'tested': i, 'accuracy': x}
    for i, x in enumerate((0.1, 0.1, 0.15), 1)
  ]
  found = measures_of(
    [[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.7, 0.5, 0.9]], *untrained
  )
  assert found == pytest.approx(
    {
      'average_accuracy': (0.7 + 0.5 + 0.9) / 3,
      'lowest_accuracy': 0.5,
      'learning_accuracy': (0.9 + 0.8 + 0.9) / 3,
      'forgetting': (0.2 + 0.3) / 2,
      'forward_transfer': (0.1 + 0.15) / 2,
    }
  )
  joint = measures_of([[None, None], [0.8, 0.9]])
  assert joint.pop('average_accuracy') == pytest.approx(0.85)
  assert joint.pop('lowest_accuracy') == 0.8
  assert np.isnan(list(joint.values())).all()
