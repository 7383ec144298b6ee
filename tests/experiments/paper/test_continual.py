"""Strategies from folders of runs."""

import numpy as np
import pytest

from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.paper import collect
from experiments.paper import continual

ALONE = [0.9, 0.8]
USAGE = [(0.3, 0.0), (0.5, 0.2)]


def write(folder, strategy, matrix, usage=(), seeds=(0,), num_tasks=2):
  """Writes what a run of a strategy on two tasks leaves."""
  config = {
    'experiment': 'continual_learning',
    'tasks': {'name': 'permuted_mnist', 'num_tasks': num_tasks},
    'strategy': {'name': strategy},
  }
  run_lib.open_run(folder, config).write_summary({})
  with metrics.Writer(folder, None) as writer:
    for seed in seeds:
      for task, accuracies in enumerate(matrix):
        member = {'alpha': 1.0, 'seed': seed, 'task': task + 1}
        for tested, accuracy in enumerate(accuracies):
          if accuracy is not None:
            row = {'split': 'test', 'tested': tested + 1, 'accuracy': accuracy}
            writer.write(task, row, member=member)
        if usage:
          owned, reused = usage[task]
          row = {
            'split': 'usage', 'layer': 'all', 'owned': owned,
            'free': 1 - owned, 'reused': reused, 'new': owned - reused,
          }  # fmt: skip
          writer.write(task, row, member=member)


@pytest.fixture
def runs(tmp_path):
  write(tmp_path / 'alone', 'alone', [[ALONE[0], None], [None, ALONE[1]]])
  write(
    tmp_path / 'fine', 'fine_tuning', [[0.9, 0.1], [0.6, 0.85]], seeds=(0, 1)
  )
  write(tmp_path / 'packed', 'packnet', [[0.85, 0.2], [0.85, 0.7]], USAGE)
  return tmp_path


def test_the_table_has_the_measures_of_each_strategy(runs):
  networks = continual.read(collect.read_runs(runs))
  header, *lines = continual.make_rows(networks)
  table = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
  assert list(table) == ['alone', 'fine_tuning', 'packnet']
  fine, packed = table['fine_tuning'], table['packnet']
  assert fine['accuracy'] == '72.50 ± 0.00'
  assert fine['forgetting'] == '30.00 ± 0.00'
  assert fine['weights owned'] == ''
  assert fine['tasks of 2 kept'] == '1'  # seed 1 has no network alone
  assert packed['accuracy'] == '77.50'
  assert packed['forgetting'] == '0.00'
  assert packed['below alone'] == f'{100 * (0.05 + 0.1) / 2:.2f}'
  assert packed['weights owned'] == '50.00'
  assert packed['tasks of 2 kept'] == '1'
  assert table['alone']['accuracy'] == '85.00'
  assert table['alone']['tasks of 2 kept'] == '2'


def test_the_command_writes_a_table_and_a_plot(runs, tmp_path, capsys):
  out = tmp_path / 'out'
  assert continual.main([f'--runs={runs}', f'--out={out}']) == 0
  assert (out / 'continual.md').read_text() in capsys.readouterr().out
  assert (out / 'continual.png').read_bytes().startswith(b'\x89PNG')


def test_runs_of_one_cell_or_of_two_streams_are_refused(runs, capsys):
  write(runs / 'again', 'packnet', [[0.8, 0.1], [0.8, 0.7]])
  command = [f'--runs={runs}', f'--out={runs}']
  assert continual.main(command) == 2
  assert 'one run of packnet, alpha 1' in capsys.readouterr().err
  write(runs / 'other', 'ewc', [[0.8, 0.1], [0.8, 0.7]], num_tasks=3)
  assert continual.main(command) == 2
  assert 'runs of one stream of tasks' in capsys.readouterr().err


def test_accuracies_come_from_the_last_task_that_was_tested(runs):
  networks = continual.read(collect.read_runs(runs))
  [network] = networks['packnet', 1.0]
  np.testing.assert_array_equal(network.accuracies, [[0.85, 0.2], [0.85, 0.7]])
