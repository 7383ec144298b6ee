"""Strategies from folders of runs."""

import numpy as np
import pytest

from experiments.paper import __main__ as paper
from experiments.paper import collect
from experiments.paper import continual
from experiments.paper import fill
from experiments.paper import gather
from experiments.paper import tables
from tests.experiments.paper import folders

ALONE = [0.9, 0.8]
USAGE = [(0.3, 0.0), (0.5, 0.2)]
TABLE = tables.TABLES['permuted_mnist']._replace(
  where={'data': 'permuted_mnist', 'num_tasks': 2}
)


def write(folder, strategy, matrix, usage=(), **changes):
  """Writes what a run of a strategy on two tasks leaves."""
  config = folders.tasks(strategy, tasks__num_tasks=2, **changes)
  folders.write_tasks(folder, config, matrix, usage)


@pytest.fixture
def runs(tmp_path):
  write(tmp_path / 'alone', 'alone', [[ALONE[0], None], [None, ALONE[1]]])
  write(
    tmp_path / 'fine', 'fine_tuning', [[0.9, 0.1], [0.6, 0.85]], seeds=[0, 1]
  )
  write(tmp_path / 'packed', 'packnet', [[0.85, 0.2], [0.85, 0.7]], USAGE)
  return tmp_path


def networks_of(runs):
  return gather.networks(collect.read_runs(runs)[0])


def test_the_table_has_the_measures_of_each_strategy(runs):
  filled, _ = fill.fill(TABLE, networks_of(runs))
  rows = {}
  for result in filled.results:
    rows.setdefault(result.labels, {})[result.column] = result
  fine, packed = rows['fine_tuning', '1'], rows['packnet', '1']
  assert fine['accuracy'].mean == pytest.approx(0.725)
  assert fine['forgetting'].mean == pytest.approx(0.3)
  assert fine['forgetting'].num == 2
  assert fine['weights owned'].status == 'absent'
  assert fine['tasks kept'].values == (1.0,)  # seed 1 has no network alone
  assert packed['accuracy'].mean == pytest.approx(0.775)
  assert packed['forgetting'].mean == 0
  assert packed['below alone'].mean == pytest.approx((0.05 + 0.1) / 2)
  assert packed['weights owned'].mean == 0.5
  assert packed['tasks kept'].mean == 1
  assert rows['alone', '1']['accuracy'].mean == pytest.approx(0.85)
  assert rows['alone', '1']['tasks kept'].mean == 2
  assert rows['ewc', '1']['accuracy'].status == 'empty'


def test_accuracies_come_from_the_last_task_that_was_tested(runs):
  [network] = [n for n in networks_of(runs) if n.facts['strategy'] == 'packnet']
  np.testing.assert_array_equal(
    continual.matrix(network), [[0.85, 0.2], [0.85, 0.7]]
  )


def test_the_plot_has_accuracies_and_capacity(runs):
  figure = continual.draw(networks_of(runs))
  accuracy, capacity = figure.axes
  points = {
    bars.get_label(): bars.lines[0].get_ydata() for bars in accuracy.containers
  }
  np.testing.assert_allclose(points['packnet'], [85, 77.5])
  np.testing.assert_allclose(points['fine_tuning'], [90, 72.5])
  owned = capacity.get_lines()[0]
  np.testing.assert_allclose(owned.get_ydata(), [30, 50])


def test_runs_of_two_streams_are_refused(runs, tmp_path):
  write(runs / 'other', 'ewc', [[0.8, 0.1], [0.8, 0.7]], tasks__seed=3)
  with pytest.raises(ValueError, match=r'got tasks\.seed: 0 in .*, 3 in'):
    fill.fill(TABLE, networks_of(runs))


def test_the_command_writes_a_table_and_a_plot(tmp_path, capsys):
  matrix = np.full((10, 10), 0.5).tolist()
  config = folders.tasks('ewc', tasks__num_tasks=10)
  folders.write_tasks(tmp_path / 'runs', config, matrix)
  out = tmp_path / 'out'
  assert paper.main([f'--runs={tmp_path}/runs', f'--out={out}']) == 0
  assert '| ewc | 1 | 50.00 | 50.00 | 0.00 |' in capsys.readouterr().out
  assert (out / 'permuted_mnist_tasks.png').read_bytes().startswith(b'\x89PNG')
