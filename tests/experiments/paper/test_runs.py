"""Run folders: what is read, and what is left out."""

import json

import pytest

from experiments import rundir
from experiments.paper import runs
from tests.experiments.paper import folders


def test_a_network_has_a_row_as_trained_and_one_for_each_level(tmp_path):
  config = folders.powerprop(2.0, 1)
  folders.write_image(tmp_path / 'run', config, 0.8)
  found, left = runs.read(tmp_path)
  assert not left
  frame = runs.to_frame(found)
  assert frame.share.isna().tolist() == [True, False, False]
  assert frame.accuracy.tolist() == [0.8, 0.8 * 0.1, 0.8]
  facts = frame[['alpha', 'seed', 'method', 'density', 'seconds']]
  assert (facts == [2.0, 1, 'dense', 1.0, 12.0]).all(axis=None)


def edit(name, change):
  def spoil(folder):
    path = folder / name
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value) or value))

  return spoil


def without_test(folder):
  path = folder / 'metrics.jsonl'
  path.write_text(path.read_text().replace('"test"', '"other"'))


def set_in_config(**values):
  return edit('config.json', lambda value: value['config'].update(values))


def old(folder):
  (folder / 'config.json').write_text('{"seeds": [0], "powerprop": {}}')


FORM = 'expected the form of this version'
SPOILT = {
  'config of version 0.1': (old, 'version 0.1'),
  'config null': (edit('config.json', lambda v: v | {'config': None}), FORM),
  'section a number': (set_in_config(model=3), FORM),
  'density a text': (
    set_in_config(method={'forward_density': 'x', 'backward_density': 1}), FORM
  ),
  'killed': (
    lambda f: rundir.write_status(f, 'running', step=7, total_steps=9),
    'interrupted at step 7 of 9',
  ),
  'status a list': (edit('status.json', lambda _: [1]), 'unknown status: [1]'),
  'summary a list': (edit('summary.json', lambda _: [1]), FORM),
  'no metrics': (lambda f: (f / 'metrics.jsonl').unlink(), 'metrics.jsonl'),
  'no test': (without_test, "expected a 'test' row"),
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
