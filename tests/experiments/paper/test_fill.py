"""Cells from networks: estimates, costs, and what does not fit together."""

import numpy as np
import pytest
from scipy import stats

from configs import photographs_resnet50
from experiments import costs
from experiments.common import build
from experiments.paper import collect
from experiments.paper import estimates
from experiments.paper import fill
from experiments.paper import gather
from experiments.paper import tables
from tests.experiments.paper import folders

METHODS = tables.TABLES['mnist_methods']
PRUNING = tables.TABLES['mnist_pruning']
VALUES = {0: 0.9, 1: 0.92, 2: 0.97}


def fill_from(tmp_path, table=METHODS):
  records, _ = collect.read_runs(tmp_path)
  return fill.fill(table, gather.networks(records))


def cell_of(filled, labels, column):
  [result] = [
    r for r in filled.results if (r.labels, r.column) == (labels, column)
  ]
  return result


def by_seed(alpha, seed):
  return VALUES[seed] - (alpha - 1) / 10


def test_a_cell_has_mean_deviation_and_interval_of_its_seeds(tmp_path):
  folders.write(tmp_path / 'a', folders.methods('rigl,density=0.1'), by_seed)
  filled, _ = fill_from(tmp_path)
  result = cell_of(filled, ('rigl', '1'), '10%')
  values = list(VALUES.values())
  assert result.values == tuple(values)
  assert result.seeds == (0, 1, 2)
  assert result.mean == pytest.approx(np.mean(values))
  assert result.deviation == pytest.approx(np.std(values, ddof=1))
  expected = stats.t.interval(
    0.95, 2, loc=np.mean(values), scale=stats.sem(values)
  )
  assert (result.low, result.high) == pytest.approx(expected)
  assert result.seconds == pytest.approx(4)  # twelve for three networks
  others = [r for r in filled.results if r is not result]
  assert all(r.status == 'empty' for r in others)


def test_a_cell_has_the_costs_of_its_config(tmp_path):
  config = folders.methods('rigl,density=0.1')
  folders.write(tmp_path / 'a', config, by_seed)
  result = cell_of(fill_from(tmp_path)[0], ('rigl', '1'), '10%')
  report = costs.report(build.build(costs.SUBJECTS, config, key='experiment'))
  assert result.inference_flops == report.sparse_flops
  assert result.train_share == report.train_share < 0.2
  assert result.train_flops == report.total_train_flops
  assert result.num_bytes == report.sparse_bytes


def test_a_pruned_network_has_the_costs_of_what_is_left(tmp_path):
  config = folders.powerprop(seeds=[0], powerprop__alphas=[2.0])
  folders.write(tmp_path / 'a', config, by_seed)
  filled, _ = fill_from(tmp_path, PRUNING)
  whole = cell_of(filled, ('100.00',), 'alpha 2')
  trained = cell_of(filled, ('as trained',), 'alpha 2')
  assert whole.mean == trained.mean
  assert whole.inference_flops == trained.inference_flops == 2 * 266_200
  config['prune'].update(num_levels=20, lowest=0.01)
  found = fill.costing.of(config, 0.01)
  kept = 2352 + 300 + 20  # of the output layer two percent
  biases = 300 + 100 + 10
  assert found.inference_flops == pytest.approx(2 * kept)
  assert found.density == pytest.approx((kept + biases) / (266_200 + biases))
  assert found.train_share == 1


def test_a_cell_in_which_a_seed_diverged_says_so(tmp_path):
  config = folders.methods('rigl,density=0.1')
  folders.write(tmp_path / 'a', config, by_seed, diverged=(1.0, 1))
  filled, _ = fill_from(tmp_path)
  result = cell_of(filled, ('rigl', '1'), '10%')
  assert result.status == 'diverged'
  assert result.mean is None
  assert any('the loss is nan by step 2' in note for note in filled.notes)


def test_seeds_of_several_folders_are_of_one_cell(tmp_path):
  for name, seeds in (('a', [0, 2]), ('b', [1])):
    config = folders.methods(
      'rigl,density=0.1', seeds=seeds, train__log_every=50
    )
    folders.write(tmp_path / name, config, by_seed)
  result = cell_of(fill_from(tmp_path)[0], ('rigl', '1'), '10%')
  assert fill.by_seed(result) == VALUES


def test_a_network_that_is_there_twice_is_refused_with_both_folders(tmp_path):
  config = folders.methods('rigl,density=0.1')
  folders.write(tmp_path / 'first', config, by_seed)
  folders.write(tmp_path / 'second', config, by_seed)
  with pytest.raises(
    ValueError, match=r'one network of seed 0.*first and .*second, of the same'
  ):
    fill_from(tmp_path)


def test_two_networks_of_a_cell_that_were_trained_otherwise_name_the_key(
  tmp_path,
):
  folders.write(tmp_path / 'a', folders.methods('rigl,density=0.1'), by_seed)
  config = folders.methods('rigl,density=0.1', method__drop_fraction=0.5)
  folders.write(tmp_path / 'b', config, by_seed)
  with pytest.raises(
    ValueError, match=r'differ in method\.drop_fraction \(0\.3 and 0\.5\)'
  ):
    fill_from(tmp_path)


@pytest.mark.parametrize(
  ('other', 'changes', 'message'),
  [
    (
      'rigl,density=0.05',
      {'method__refresh_every': 10},
      r'row rigl 1: .* got method\.refresh_every: 50 in .*a, 10 in .*b',
    ),
    (
      'set,density=0.1',
      {'train__num_steps': 7},
      r'table mnist_methods: .* got train\.num_steps: 1000 in .*a, 7 in .*b',
    ),
  ],
)
def test_a_table_of_mixed_configs_names_the_key(
  tmp_path, other, changes, message
):
  folders.write(tmp_path / 'a', folders.methods('rigl,density=0.1'), by_seed)
  folders.write(tmp_path / 'b', folders.methods(other, **changes), by_seed)
  with pytest.raises(ValueError, match=message):
    fill_from(tmp_path)


def test_what_changes_no_figure_may_differ(tmp_path):
  folders.write(tmp_path / 'a', folders.methods('rigl,density=0.1'), by_seed)
  config = folders.methods(
    'rigl,density=0.05', data__data_dir='data', train__eval_batch_size=10
  )
  folders.write(tmp_path / 'b', config, by_seed)
  filled, _ = fill_from(tmp_path)
  done = [r.column for r in filled.results if r.status == 'done']
  assert done == ['10%', '5%']


def test_cells_that_share_seeds_are_tested_in_pairs(tmp_path):
  folders.write(tmp_path / 'a', folders.methods('rigl,density=0.1'), by_seed)
  config = folders.methods('topkast,density=0.1')
  other = {0: 0.95, 1: 0.93, 2: 0.99}
  folders.write(tmp_path / 'b', config, lambda _, seed: other[seed])
  config = folders.methods('rigl,density=0.1,alpha=2', seeds=[1, 2])
  folders.write(tmp_path / 'c', config, lambda alpha, seed: 0.9 - seed / 50)
  found = {
    (t.cell.labels, t.reference.labels): t
    for t in fill.tests(fill_from(tmp_path)[0])
  }
  assert found.keys() == {
    (('rigl', '1'), ('topkast', '1')), (('rigl', '2'), ('rigl', '1')),
  }  # fmt: skip
  test = found[('rigl', '1'), ('topkast', '1')]
  expected = stats.ttest_rel(list(VALUES.values()), list(other.values()))
  assert test.paired.p == pytest.approx(expected.pvalue)
  assert test.paired.difference < 0
  assert test.corrected == pytest.approx(
    estimates.holm([t.paired.p for t in found.values()])[
      list(found).index((('rigl', '1'), ('topkast', '1')))
    ]
  )
  assert found[('rigl', '2'), ('rigl', '1')].paired.num == 2


def test_figures_that_do_not_vary_have_no_p_value():
  paired = estimates.paired({0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.25, 2: 0.1})
  assert paired == estimates.Paired(0.25, 2, None)
  assert estimates.paired({0: 0.5}, {1: 0.5}) is None


def photographs(dtype, **changes):
  config = folders.plain(photographs_resnet50.get_config('rigl'))
  return folders.change(config, model__compute_dtype=dtype, **changes)


def test_networks_of_a_row_differ_in_what_its_columns_are_about(tmp_path):
  table = tables.TABLES['photographs']
  for dtype in ('float32', 'bfloat16'):
    folders.write(tmp_path / dtype, photographs(dtype), lambda *_: 0.5)
  filled, _ = fill_from(tmp_path, table)
  for dtype in ('float32', 'bfloat16'):
    labels = ('steps 1-2', 'steps 3-4', 'afterwards')
    losses = [
      cell_of(filled, ('rigl',), f'{dtype}: {label}').mean for label in labels
    ]
    assert losses == [2.0, 1.0, 1.0]  # of training: first and last, of the test
  other = photographs('bfloat16', optimizer__learning_rate=0.5, seeds=[1])
  folders.write(tmp_path / 'other', other, lambda *_: 0.5)
  with pytest.raises(ValueError, match=r'optimizer.learning_rate: 0\.01 in'):
    fill_from(tmp_path, table)
