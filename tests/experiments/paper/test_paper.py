"""The command: tables, plots and the page of results."""

import pathlib

from matplotlib import pyplot as plt
import numpy as np
import pytest

from experiments import rundir
from experiments.paper import __main__ as paper
from experiments.paper import fill
from experiments.paper import plots
from experiments.paper import results
from experiments.paper import runs as runs_lib
from experiments.paper import tables
from tests.experiments.paper import folders

REPOSITORY = pathlib.Path(tables.__file__).parents[2]
METHODS = tables.TABLES['mnist_methods']
ACCURACIES = {0.2: 0.97, 0.1: 0.95, 0.05: 0.8}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  for density, accuracy in ACCURACIES.items():
    for seed in (0, 1):
      config = folders.methods(f'topkast,density={density}', seed)
      folders.write_image(
        folder / f'topkast{density}{seed}',
        config,
        accuracy + seed / 100,
        mask_change=density,
      )
      config = folders.methods(f'rigl,density={density}', seed)
      folders.write_image(
        folder / f'rigl{density}{seed}',
        config,
        accuracy - 0.1,
        diverged=density == 0.1 and seed == 1,
      )
  return folder


@pytest.fixture(scope='module')
def written(runs, tmp_path_factory):
  out = tmp_path_factory.mktemp('out') / 'tables'
  assert paper.main([f'--runs={runs}', f'--out={out}']) == 0
  return out


@pytest.fixture(autouse=True)
def _closed():
  yield
  plt.close('all')


def test_the_command_writes_every_form_and_plot(written):
  names = {path.name for path in written.iterdir()}
  kinds = ('density', 'flops', 'histograms', 'masks', 'training')
  assert names == {'mnist_methods.csv'} | {
    f'mnist_methods_{kind}.png' for kind in kinds
  }
  for path in written.glob('*.png'):
    assert path.read_bytes().startswith(b'\x89PNG')
  page = written.with_name('tables.md').read_text()
  for kind in kinds:
    assert f'(tables/mnist_methods_{kind}.png)' in page
  assert 'Diverged: rigl plain, 10%, seed 1: the loss is nan by step 2' in page
  assert 'imagenet_resnet50.py --sweep=imagenet_extended ' in page
  assert '| 87.00 ± 0.00 | diverged | 70.00 ' in ' '.join(page.split())


def test_stored_results_fill_the_cells_without_runs(written, tmp_path):
  new = tmp_path / 'new'
  folders.write_image(new, folders.methods('topkast,density=0.2'), 0.5)
  out = tmp_path / 'out'
  command = [f'--runs={new}', f'--stored={written}', f'--out={out}']
  assert paper.main(command) == 0
  before, after = (
    fill.summarize(METHODS, fill.read(METHODS, path / 'mnist_methods.csv'))
    for path in (written, out)
  )
  changed = before['mean'].fillna(0) != after['mean'].fillna(0)
  assert after[changed].method.tolist() == ['topkast']
  assert after[changed]['mean'].tolist() == [0.5]


def test_pruning_and_tasks_have_their_own_plots(tmp_path, capsys):
  folders.write_image(tmp_path / 'runs/a', folders.powerprop(1.0), 0.9)
  config = folders.tasks('ewc', tasks__num_tasks=10, train__num_steps=8_000)
  matrix = np.full((10, 10), 0.5).tolist()
  folders.write_tasks(tmp_path / 'runs/tasks', config, matrix)
  out = tmp_path / 'out'
  assert paper.main([f'--runs={tmp_path}/runs', f'--out={out}']) == 0
  text = capsys.readouterr().out
  assert '| as trained         |     90.00 |' in text
  assert 'ewc               | 1       |      50.00' in text
  assert (out / 'mnist_pruning_overlap.png').exists()
  assert (out / 'permuted_mnist_tasks.png').exists()


def test_a_table_of_one_column_has_a_panel_for_each_density(tmp_path):
  variants = (
    'dense', 'topkast,density=0.1,backward_density=0.2',
    'topkast,density=0.1,backward_density=1.0', 'static,density=0.1',
    'static,density=0.2',
  )  # fmt: skip
  for i, variant in enumerate(variants):
    folders.write_language(tmp_path / str(i), folders.language(variant), 2.0)
  found, _ = runs_lib.read(tmp_path)
  text = tables.TABLES['text']
  results, _ = fill.fill(text, found, runs_lib.to_frame(found))
  cells = fill.summarize(text, results)
  figure = plots.of_table(text, cells, results, found)['training']()
  lines = {axis.get_title(): len(axis.lines) for axis in figure.axes}
  assert lines == {'100%': 1, '10%': 3, '20%': 1}


def test_folders_left_out_and_refused_tables_leave_the_others(tmp_path, capsys):
  folders.write_image(tmp_path / 'runs/a', folders.methods('rigl'), 0.9)
  for seed, size in enumerate((3, 4)):
    config = folders.powerprop(1.0, seed, train__batch_size=size)
    folders.write_image(tmp_path / f'runs/p{seed}', config, 0.5)
  rundir.create(tmp_path / 'runs/half', folders.methods('set'))
  out = tmp_path / 'out'
  assert paper.main([f'--runs={tmp_path}/runs', f'--out={out}']) == 2
  error = capsys.readouterr().err
  assert 'left out' in error
  assert 'half' in error
  assert 'table mnist_pruning' in error
  assert 'train.batch_size: 3 in' in error
  assert [path.stem for path in out.glob('*.csv')] == ['mnist_methods']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--stored=nowhere'], 'expected CSV files of tables in nowhere'),
    (['--runs=nowhere'], 'expected run folders below nowhere'),
  ],
)
def test_a_wrong_command_is_one_line(
  written, tmp_path, capsys, arguments, message
):
  command = [f'--stored={written}', f'--out={tmp_path}', *arguments]
  assert paper.main(command) == 2
  error = capsys.readouterr().err
  assert message in error


def test_the_page_of_results_is_that_of_the_stored_files():
  directory = REPOSITORY / 'docs/results'
  page = directory.with_name('results.md').read_text()
  assert page == results.page(directory)
  shown = {word for word in page.split('(') if word.startswith('results/')}
  shown = {word.partition(')')[0].partition('/')[2] for word in shown}
  assert shown == {path.name for path in directory.glob('*.png')}
