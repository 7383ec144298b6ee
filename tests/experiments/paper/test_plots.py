"""Plots of tables, and the command that writes everything."""

import itertools

from matplotlib import pyplot as plt
import numpy as np
import pytest

from experiments.common import run as run_lib
from experiments.paper import __main__ as paper
from experiments.paper import collect
from experiments.paper import drawing
from experiments.paper import fill
from experiments.paper import gather
from experiments.paper import tables
from experiments.paper import tracks
from tests.experiments.paper import folders

METHODS = tables.TABLES['mnist_methods']
ACCURACIES = {0.2: 0.97, 0.1: 0.95, 0.05: 0.8}


def write_methods(runs):
  for density, accuracy in ACCURACIES.items():
    config = folders.methods(f'topkast,density={density}', seeds=[0, 1])
    folders.write(
      runs / f'topkast_{density}',
      config,
      lambda _, seed, accuracy=accuracy: accuracy + seed / 100,
      mask_change=density,
    )
    config = folders.methods(f'rigl,density={density}', seeds=[0, 1])
    folders.write(
      runs / f'rigl_{density}',
      config,
      lambda *_, accuracy=accuracy: accuracy - 0.1,
      diverged=(1.0, 1) if density == 0.1 else (),
    )


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  write_methods(folder)
  return folder


@pytest.fixture(scope='module')
def filled(runs):
  return fill.fill(METHODS, gather.networks(collect.read_runs(runs)[0]))


@pytest.fixture(autouse=True)
def closed():
  yield
  plt.close('all')


def lines_of(axis):
  """Returns by label the points of the lines with a label."""
  return {
    bars.get_label(): np.array(bars.lines[0].get_xydata())
    for bars in axis.containers
  }


def test_accuracy_is_drawn_against_density(filled):
  figure = drawing.draw_density(filled[0])
  [axis] = figure.axes
  lines = lines_of(axis)
  points = lines['topkast']
  np.testing.assert_allclose(
    points[:, 1], [100 * (a + 0.005) for a in sorted(ACCURACIES.values())]
  )
  assert points[:, 0] == pytest.approx([5.36, 10.34, 20.31], abs=0.01)
  np.testing.assert_array_equal(
    np.isnan(lines['rigl'][:, 1]),
    [False, True, False],  # one diverged: a gap
  )


def test_accuracy_is_drawn_against_the_cost_of_training(filled):
  figure = drawing.draw_flops(filled[0])
  points = lines_of(figure.axes[0])['topkast']
  flops = [r.train_flops for r in filled[0].results if 'topkast' in r.labels]
  assert sorted(points[:, 0]) == sorted(filter(None, flops))


def test_the_front_has_what_none_beats():
  rng = np.random.default_rng(0)
  found = [
    fill.Result((str(i),), '', 'accuracy', 'done', accuracy, train_flops=flops)
    for i, (accuracy, flops) in enumerate(rng.integers(0, 9, (30, 2)) / 10)
  ]
  front = drawing.pareto(found)
  beaten = {
    a.labels
    for a, b in itertools.permutations(found, 2)
    if b.mean >= a.mean
    and b.train_flops <= a.train_flops
    and (b.mean, b.train_flops) != (a.mean, a.train_flops)
  }
  expected = {(r.mean, r.train_flops) for r in found if r.labels not in beaten}
  assert {(r.mean, r.train_flops) for r in front} == expected
  assert len(front) == len(expected) > 1


def test_less_is_better_of_bits_and_perplexity():
  found = [
    fill.Result((), '', 'perplexity', 'done', mean, train_flops=flops)
    for mean, flops in ((30.0, 1.0), (40.0, 2.0), (20.0, 3.0))
  ]
  assert [r.mean for r in drawing.pareto(found)] == [30.0, 20.0]


def test_changes_of_masks_are_drawn_where_there_are_any(filled):
  figure = tracks.draw_mask_change(*filled)
  axes = {axis.get_title(): axis for axis in figure.axes}
  assert axes.keys() == {'20%', '10%', '5%'}
  [line] = axes['20%'].get_lines()
  assert line.get_label() == 'topkast 1'
  np.testing.assert_allclose(line.get_xydata(), [[1, 20], [2, 0.01]])


def test_training_is_a_mean_over_seeds(filled):
  figure = tracks.draw_training(*filled)
  for axis in figure.axes:
    for line in axis.get_lines():
      np.testing.assert_allclose(line.get_xydata(), [[1, 2], [2, 1]])


def test_the_command_writes_every_form_and_plot(runs, tmp_path, capsys):
  (runs / 'half').mkdir()
  config = folders.methods('set,density=0.1')
  run_lib.write_json(runs / 'half' / 'config.json', config)
  assert paper.main([f'--runs={runs}', f'--out={tmp_path}']) == 0
  captured = capsys.readouterr()
  assert '| topkast | 1 |  | 97.50 ± 0.71 |' in captured.out
  assert 'half: not done' in captured.err
  assert {path.name for path in tmp_path.iterdir()} == {
    'mnist_methods.csv', 'mnist_methods.md', 'mnist_methods.tex',
    'mnist_methods_density.png', 'mnist_methods_flops.png',
    'mnist_methods_histograms.png', 'mnist_methods_masks.png',
    'mnist_methods_training.png',
  }  # fmt: skip
  assert 'half: not done' in (tmp_path / 'mnist_methods.md').read_text()
  for path in tmp_path.glob('*.png'):
    assert path.read_bytes().startswith(b'\x89PNG')
  again = tmp_path / 'again'
  command = [f'--stored={tmp_path}', f'--out={again}', '--table=mnist_methods']
  assert paper.main(command) == 0
  assert (again / 'mnist_methods.csv').read_bytes() == (
    tmp_path / 'mnist_methods.csv'
  ).read_bytes()


def test_cells_that_no_run_fills_are_those_of_earlier_ones(
  runs, tmp_path, capsys
):
  kept, new, out = (tmp_path / name for name in ('kept', 'new', 'out'))
  table = '--table=mnist_methods'
  assert paper.main([f'--runs={runs}', f'--out={kept}', table]) == 0
  config = folders.methods('topkast,density=0.2')
  folders.write(new / 'a', config, lambda *_: 0.5)
  command = [f'--runs={new}', f'--stored={kept}', f'--out={out}', table]
  assert paper.main(command) == 0
  before, after = (
    (folder / 'mnist_methods.csv').read_text().splitlines()
    for folder in (kept, out)
  )
  [(old, line)] = [
    pair for pair in zip(before, after, strict=True) if len(set(pair)) > 1
  ]
  assert line.startswith('topkast,1,20%,accuracy,done,0.5,')
  assert old.startswith('topkast,1,20%,accuracy,done,0.9')
  num = sum(',done,' in l or ',diverged,' in l for l in before)
  text = (out / 'mnist_methods.md').read_text()
  assert f'{num - 1} cells are of earlier runs.' in text


def test_without_runs_or_files_there_is_nothing_to_do(tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    paper.main([f'--out={tmp_path}'])
  assert 'expected --runs or --stored' in capsys.readouterr().err


def test_a_curve_of_pruning_has_its_overlap(tmp_path, capsys):
  config = folders.powerprop(seeds=[0, 1], powerprop__alphas=[1.0, 2.0])
  folders.write(tmp_path / 'a', config, lambda alpha, seed: 0.9 + seed / 100)
  out = tmp_path / 'out'
  command = [f'--runs={tmp_path}', f'--out={out}', '--table=mnist_pruning']
  assert paper.main(command) == 0
  assert '| as trained | 90.50 ± 0.71 | 90.50 ± 0.71 |' in (
    capsys.readouterr().out
  )
  assert (out / 'mnist_pruning_overlap.png').exists()


def test_a_table_that_cannot_be_filled_leaves_the_others(tmp_path, capsys):
  write_methods(tmp_path / 'runs')
  for name, num_steps in (('p', 3), ('q', 4)):
    config = folders.powerprop(
      seeds=[num_steps], powerprop__alphas=[1.0], train__num_steps=num_steps
    )
    folders.write(tmp_path / 'runs' / name, config, lambda *_: 0.5)
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'mnist_pruning.md').write_text('of before')
  assert paper.main([f'--runs={tmp_path}/runs', f'--out={out}']) == 2
  error = capsys.readouterr().err
  assert 'table mnist_pruning' in error
  assert 'train.num_steps: 3 in' in error
  assert (out / 'mnist_methods.csv').exists()
  assert (out / 'mnist_pruning.md').read_text() == 'of before'


def test_a_table_that_is_not_there_is_one_line(runs, tmp_path, capsys):
  command = [f'--runs={runs}', f'--out={tmp_path}', '--table=mnist_method']
  assert paper.main(command) == 2
  assert "did you mean 'mnist_methods'?" in capsys.readouterr().err
