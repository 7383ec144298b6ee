"""Run folders: what is read, and what is left out."""

import json

import pytest

from experiments import rundir
from experiments.paper import runs
from experiments.paper import table as table_lib
from tests.experiments.paper import folders


def test_a_network_has_a_row_as_trained_and_one_for_each_level(tmp_path):
  config = folders.powerprop(2.0, 1)
  folders.write_image(tmp_path / 'run', config, 0.8)
  found, left = runs.read(tmp_path)
  assert not left
  frame = runs.to_frame(found)
  assert frame.share.isna().tolist() == [True, False, False]
  assert frame.accuracy.tolist() == [0.8, 0.8 * 0.1, 0.8]
  assert (frame.alpha == 2.0).all()
  assert (frame.seed == 1).all()
  assert (frame.method == 'dense').all()
  assert (frame.density == 1.0).all()
  assert (frame.seconds == 12.0).all()


def test_facts_name_densities_and_examples():
  config = folders.methods('topkast,density=0.1', train__num_steps=4)
  facts = table_lib.facts(config)
  assert facts['density'] == 0.1
  assert facts['backward_ratio'] == 2
  assert facts['examples'] == 4 * 50


def edit(name, change):
  def spoil(folder):
    path = folder / name
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value) or value))

  return spoil


def cut(name):
  def spoil(folder):
    path = folder / name
    path.write_text(path.read_text()[:20])

  return spoil


def with_row(**changes):
  """Replaces the test row by one with other values; None removes it."""

  def spoil(folder):
    path = folder / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True)
    i = next(i for i, line in enumerate(lines) if '"test"' in line)
    row = json.loads(lines[i]) | changes
    lines[i] = json.dumps(row) + '\n' if changes else ''
    path.write_text(''.join(lines))

  return spoil


def twice(folder):
  path = folder / 'metrics.jsonl'
  path.write_text(2 * path.read_text())


def set_in_config(**values):
  return edit('config.json', lambda value: value['config'].update(values))


def old(folder):
  (folder / 'config.json').write_text('{"seeds": [0], "powerprop": {}}')


SPOILT = {
  'config of version 0.1': (old, 'version 0.1'),
  'config cut': (cut('config.json'), 'config.json'),
  'config a list': (edit('config.json', lambda _: [1]), 'config.json'),
  'config null': (
    edit('config.json', lambda v: {**v, 'config': None}), 'experiment'
  ),
  'experiment unknown': (
    set_in_config(experiment='segmentation'), "got 'segmentation'"
  ),
  'section a number': (set_in_config(model=3), 'expected the form of this version'),
  'no method': (set_in_config(method=None), 'expected the form of this version'),
  'seed a text': (set_in_config(seed='x'), "'x'"),
  'density a text': (
    set_in_config(method={'forward_density': 'x', 'backward_density': 0.5}),
    'expected the form of this version',
  ),
  'running': (
    lambda folder: rundir.write_status(
      folder, 'running', step=7, total_steps=9
    ),
    'not done: running at step 7 of 9',
  ),
  'status a list': (edit('status.json', lambda _: [1]), 'a JSON object in'),
  'status cut': (cut('status.json'), 'status.json'),
  'no status': (lambda f: (f / 'status.json').unlink(), 'status.json'),
  'no summary': (lambda f: (f / 'summary.json').unlink(), 'summary.json'),
  'summary cut': (cut('summary.json'), 'summary.json'),
  'summary a number': (edit('summary.json', lambda _: 3), 'a JSON object in'),
  'no metrics': (lambda f: (f / 'metrics.jsonl').unlink(), 'metrics.jsonl'),
  'no test': (with_row(), 'half written'),
  'written twice': (twice, 'two runs wrote into this folder'),
  'accuracy a text': (with_row(accuracy='x'), "expected 'split' and numbers"),
  'split a number': (with_row(split=3), "expected 'split' and numbers"),
}  # fmt: skip


@pytest.mark.parametrize('name', SPOILT)
def test_an_unreadable_folder_is_named_and_the_others_are_read(tmp_path, name):
  spoil, message = SPOILT[name]
  config = folders.powerprop(2.0)
  folders.write_image(tmp_path / 'good', config, 0.5)
  folders.write_image(tmp_path / 'bad', config, 0.5)
  spoil(tmp_path / 'bad')
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  found, left = runs.read(tmp_path)
  assert [run.path.name for run in found] == ['good']
  [(path, why)] = left
  assert path.name == 'bad'
  assert message in why
  after = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  assert after == before


def test_a_task_beyond_the_configured_ones_is_left_out(tmp_path):
  config = folders.tasks('ewc', tasks__num_tasks=1)
  folders.write_tasks(tmp_path / 'run', config, [[0.9, 0.1], [0.8, 0.8]])
  _, [(_, why)] = runs.read(tmp_path)
  assert 'expected the form of this version' in why


def test_a_folder_without_runs_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'expected run folders.*got none'):
    runs.read(tmp_path)
