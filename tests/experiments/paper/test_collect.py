"""What the folders of runs say, and which of them cannot be read."""

import json
import pathlib

import pytest

from experiments.common import run as run_lib
from experiments.paper import collect
import launch
from tests.experiments.paper import folders

REPOSITORY = pathlib.Path(launch.__file__).parent
TINY = (
  '--config.model.hidden=(12, 8)', '--config.train.num_steps=4',
  '--config.train.log_every=2', '--config.train.eval_every=4',
  '--config.train.checkpoint_every=4', '--config.prune.num_levels=2',
  '--config.prune.lowest=0.1', '--config.method.refresh_every=1',
)  # fmt: skip


def constant(alpha, seed):
  return 0.5 + alpha / 10 + seed / 100


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """The folder of a run that was really trained, if not for long."""
  folder = tmp_path_factory.mktemp('trained') / 'run'
  config = f'--config={REPOSITORY}/configs/mnist_topkast.py:quick'
  assert launch.main([config, f'--workdir={folder}', *TINY]) == 0
  return folder


def test_the_networks_of_a_run_are_those_of_its_summary(trained):
  [record], left = collect.read_runs(trained.parent)
  assert not left
  assert record.status == 'done'
  found = collect.networks(record)
  summary = json.loads((trained / 'summary.json').read_text())
  whole = [n for n in found if n.facts['share'] is None]
  assert [(n.alpha, n.seed) for n in whole] == [(1.0, 0), (2.0, 0)]
  for network, entry in zip(whole, summary['test'], strict=True):
    assert network.figures['accuracy'] == entry['accuracy']['mean']
    assert network.facts['method'] == 'topkast'
    assert network.facts['density'] == 0.1
    assert network.facts['backward_ratio'] == 2
    assert network.facts['examples'] == 4 * 60
  pruned = [n for n in found if n.facts['share'] is not None]
  assert len(pruned) == len(summary['pruned'])


def test_a_run_tells_how_much_of_its_masks_changes(trained):
  [record], _ = collect.read_runs(trained.parent)
  changes = [r['mask_change'] for r in record.rows if r['split'] == 'train']
  assert len(changes) == 4
  assert all(0 <= change < 1 for change in changes)
  assert any(changes)


def unreadable():
  """Yields names, what is done to a folder, and what is said of it."""

  def running(folder):
    run_lib.Run(folder).write_status('running', global_step=7, total_steps=9)
    (folder / 'summary.json').unlink()

  def cut(name):
    def cut(folder):
      path = folder / name
      path.write_text(path.read_text()[:20])

    return cut

  def without(name):
    return lambda folder: (folder / name).unlink()

  def config_without(key):
    def edit(folder):
      config = run_lib.read_json(folder / 'config.json')
      del config[key]
      run_lib.write_json(folder / 'config.json', config)

    return edit

  def other_experiment(folder):
    config = run_lib.read_json(folder / 'config.json')
    config['experiment'] = 'segmentation'
    run_lib.write_json(folder / 'config.json', config)

  def last_test_lost(folder):
    path = folder / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if '"test"' in line)
    path.write_text(''.join(lines[:last] + lines[last + 1 :]))

  def twice(folder):
    path = folder / 'metrics.jsonl'
    path.write_text(2 * path.read_text())

  yield 'running', running, 'not done: running at step 7 of 9'
  yield 'no summary', without('summary.json'), 'not done: done'
  yield 'config cut', cut('config.json'), 'expected JSON in'
  yield 'summary cut', cut('summary.json'), 'expected JSON in'
  yield 'no metrics', without('metrics.jsonl'), 'got none: half written'
  yield (
    'test lost',
    last_test_lost,
    'alpha 2, seed 1 in metrics.jsonl',
  )
  yield 'written twice', twice, 'got 2: two runs wrote into this folder'
  yield 'no powerprop', config_without('powerprop'), 'another version: expected'
  yield 'no method', config_without('method'), 'another version: expected'
  yield 'experiment', other_experiment, "got 'segmentation'"


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [pytest.param(*case, id=name) for name, *case in unreadable()],
)
def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_read(
  tmp_path, spoil, message
):
  config = folders.powerprop(seeds=[0, 1], powerprop__alphas=[1.0, 2.0])
  folders.write(tmp_path / 'good', config, constant)
  spoil(folders.write(tmp_path / 'bad', config, constant))
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  records, left = collect.read_runs(tmp_path)
  assert [record.path.name for record in records] == ['good']
  [(path, why)] = left
  assert path.name == 'bad'
  assert message in why
  after = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  assert after == before


def test_networks_before_one_that_diverged_are_kept(tmp_path):
  config = folders.powerprop(seeds=[0, 1, 2], powerprop__alphas=[2.0])
  folders.write(tmp_path / 'run', config, constant, diverged=(2.0, 1))
  [record], _ = collect.read_runs(tmp_path)
  whole = [n for n in collect.networks(record) if n.facts['share'] is None]
  assert [n.status for n in whole] == ['done', 'diverged', 'untrained']
  assert whole[0].figures['accuracy'] == constant(2.0, 0)
  assert record.message == 'the loss is nan by step 2 (alpha 2, seed 1)'


def test_a_folder_without_runs_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'expected folders of runs.*got none'):
    collect.read_runs(tmp_path)
