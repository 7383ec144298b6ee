"""Cells from networks: estimates, costs, and refusals."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from configs import fashion_topkast
from experiments import flops
from experiments.paper import fill
from experiments.paper import runs
from experiments.paper import tables
from tests.experiments.paper import folders

METHODS = tables.TABLES['mnist_methods']
PRUNING = tables.TABLES['mnist_pruning']
VALUES = {0: 0.9, 1: 0.92, 2: 0.97}


def write_seeds(path, variant, values, **changes):
  for seed, value in values.items():
    config = folders.methods(variant, seed, **changes)
    folders.write_image(path / f'seed={seed}', config, value)


def fill_from(path, table=METHODS):
  found, _ = runs.read(path)
  results, _ = fill.fill(table, found, runs.to_frame(found))
  return results, fill.summarize(table, results)


def cell_of(cells, *place, headings=('method', 'variant')):
  found = cells
  for name, value in zip((*headings, 'column'), place, strict=True):
    found = found[found[name] == value]
  [(_, cell)] = found.iterrows()
  return cell


def test_a_cell_has_mean_deviation_and_interval_of_its_seeds(tmp_path):
  write_seeds(tmp_path, 'rigl,density=0.1', VALUES)
  # Keys that change no result may differ.
  changes = {'data__data_dir': 'data', 'train__eval_batch_size': 10}
  write_seeds(tmp_path, 'set,density=0.1', {3: 0.9}, **changes)
  _, cells = fill_from(tmp_path)
  single = cell_of(cells, 'set', 'plain', '10%')
  assert single['mean'] == 0.9
  assert single[['deviation', 'low', 'high']].isna().all()
  cell = cell_of(cells, 'rigl', 'plain', '10%')
  values = list(VALUES.values())
  mean, deviation = np.mean(values), np.std(values, ddof=1)
  half = 4.302652729911275 * deviation / np.sqrt(3)  # t(2) at 97.5%
  assert cell[['mean', 'deviation']].tolist() == pytest.approx(
    [mean, deviation]
  )
  assert (cell.low, cell.high) == pytest.approx((mean - half, mean + half))
  assert (cell.num, cell.seconds) == (3, 12.0)
  assert cells.status.value_counts().to_dict() == {'done': 2, 'empty': 118}
  report = flops.report(folders.methods('rigl,density=0.1'))
  assert cell.inference_flops == report.sparse_flops
  assert cell.train_share == report.train_share < 0.5
  assert cell.num_bytes == report.sparse_bytes


def test_cells_choose_by_what_a_row_and_a_column_put_in_place(tmp_path):
  table = tables.TABLES['fashion_patterns']
  for variant in ('', 'pattern=block_4'):
    for alpha in (1.0, 2.0):
      config = folders.of_file(fashion_topkast, variant, alpha)
      folders.write_image(tmp_path / f'{variant}{alpha}', config, alpha / 4)
  _, cells = fill_from(tmp_path, table)
  done = cells[cells.status == 'done'][['pattern', 'column', 'mean']]
  assert done.to_numpy().tolist() == [
    [pattern, column, mean]
    for pattern in ('single entries', '4 x 4')
    for column, mean in (('alpha 1', 0.25), ('alpha 2 (Powerprop.)', 0.5))
  ]


def test_a_pruned_network_has_the_costs_of_its_remaining_weights(tmp_path):
  config = folders.powerprop(2.0)
  folders.write_image(tmp_path / 'a', config, 0.9)
  _, cells = fill_from(tmp_path, PRUNING)
  headings = PRUNING.headings
  whole = cell_of(cells, '100.00', 'alpha 2', headings=headings)
  trained = cell_of(cells, 'as trained', 'alpha 2', headings=headings)
  assert whole['mean'] == trained['mean'] == 0.9
  assert whole.inference_flops == trained.inference_flops == 2 * 266_200
  found = flops.costs(config, 0.01)
  kept = 2352 + 300 + 20  # two percent of the output layer
  biases = 300 + 100 + 10
  assert found['inference_flops'] == pytest.approx(2 * kept)
  assert found['density'] == pytest.approx((kept + biases) / (266_200 + biases))
  assert found['train_share'] == 1
  assert flops.costs(folders.methods('rigl'), 0.01) == {}


@pytest.mark.parametrize(
  ('other', 'changes', 'message'),
  [
    ('rigl,density=0.1', {}, r'one network of seed 0.*a.* and .*b.*; move'),
    ('rigl,density=0.1', {'method__drop_fraction': 0.5},
     r'row rigl plain 10%: .* got method\.drop_fraction: 0\.3 in .*a.*, 0\.5'),
    ('rigl,density=0.05', {'method__refresh_every': 10},
     r'row rigl plain: .* got method\.refresh_every: 50 in .*a.*, 10 in .*b'),
    ('rigl,density=0.1', {'optimizer__learning_rate': 7.0},
     r'row rigl plain 10%: .* got optimizer\.learning_rate: .*, 7\.0 in .*b'),
    ('set,density=0.1', {'train__batch_size': 7},
     r'table mnist_methods: .* got train\.batch_size: 50 in .*a.*, 7 in .*b'),
  ],
)  # fmt: skip
def test_networks_that_do_not_fit_together_are_refused(
  tmp_path, other, changes, message
):
  write_seeds(tmp_path / 'a', 'rigl,density=0.1', {0: 0.9})
  write_seeds(tmp_path / 'b', other, {0: 0.8}, **changes)
  with pytest.raises(ValueError, match=message):
    fill_from(tmp_path)


def test_rows_have_their_own_rate_and_a_network_of_two_sweeps_counts_once(
  tmp_path,
):
  write_seeds(tmp_path / 'a', 'rigl,density=0.1', VALUES)
  write_seeds(tmp_path / 'b', 'rigl,density=0.1', {0: VALUES[0]})
  rate = {'optimizer__learning_rate': 0.3, 'method__init': 'layer'}
  write_seeds(tmp_path / 'c', 'set,density=0.1', VALUES, **rate)
  found, _ = runs.read(tmp_path)
  results, notes = fill.fill(METHODS, found, runs.to_frame(found))
  assert results.method.value_counts().to_dict() == {'rigl': 3, 'set': 3}
  [note] = notes
  assert 'b/seed=0: the same network as' in note


def test_cells_with_shared_seeds_are_tested_in_pairs(tmp_path):
  equal = {0: 0.5, 1: 0.5}
  write_seeds(tmp_path / 'd', 'set,density=0.1', equal)
  write_seeds(tmp_path / 'e', 'set,density=0.1,alpha=2', equal)
  other = {0: 0.95, 1: 0.93, 2: 0.99}
  powered = {1: 0.88, 2: 0.87}
  write_seeds(tmp_path / 'a', 'rigl,density=0.1', VALUES)
  write_seeds(tmp_path / 'b', 'topkast,density=0.1', other)
  write_seeds(tmp_path / 'c', 'rigl,density=0.1,alpha=2', powered)
  results, cells = fill_from(tmp_path)
  tests = fill.paired_tests(METHODS, cells, results)
  names = cells.method + ' ' + cells.variant
  found = {(names[t.cell], names[t.reference]): t for t in tests.itertuples()}
  assert found.keys() == {
    ('rigl plain', 'topkast plain'), ('rigl Powerprop.', 'rigl plain'),
    ('set plain', 'topkast plain'), ('set Powerprop.', 'set plain'),
  }  # fmt: skip
  assert np.isnan(found['set Powerprop.', 'set plain'].p)  # equal differences
  test = found['rigl plain', 'topkast plain']
  differences = np.array([VALUES[seed] - other[seed] for seed in range(3)])
  t = differences.mean() / (differences.std(ddof=1) / np.sqrt(3))
  assert test.difference == pytest.approx(differences.mean())
  assert test.p == pytest.approx(2 * stats.t.sf(abs(t), 2))
  assert found['rigl Powerprop.', 'rigl plain'].num == 2
  p = tests.p.dropna().to_numpy()
  steps = [min(1, (3 - i) * p[i]) for i in range(3)]
  expected = [*np.maximum.accumulate(steps), np.nan]
  assert list(tests.corrected) == pytest.approx(expected, nan_ok=True)


def test_a_csv_file_holds_every_number_and_is_of_its_table(tmp_path):
  write_seeds(tmp_path / 'a', 'rigl,density=0.1', {0: 1 / 3, 1: 0.1 + 0.2})
  folders.write_image(
    tmp_path / 'b', folders.methods('set,density=0.2'), 0.0, diverged=True
  )
  results, cells = fill_from(tmp_path)
  path = tmp_path / 'table.csv'
  fill.write(results, path)
  again = fill.read(METHODS, path)
  columns = [name for name in results if name != 'run']
  pd.testing.assert_frame_equal(
    again[columns], results[columns], check_exact=True, check_dtype=False
  )
  pd.testing.assert_frame_equal(fill.summarize(METHODS, again), cells)
  with pytest.raises(ValueError, match='expected the columns'):
    fill.read(PRUNING, path)
  fill.write(results.assign(column='30%'), path)
  with pytest.raises(ValueError, match=r'expected the cells.*rigl plain 30%'):
    fill.read(METHODS, path)
