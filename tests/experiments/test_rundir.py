import json
import math
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import rundir

CONFIG = {'seed': 0, 'model': {'sizes': (300, 100), 'scale': math.inf}}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_new_folder_becomes_this_configs(tmp_path):
  workdir = tmp_path / 'a' / 'b'
  rundir.check(workdir, CONFIG)
  assert not workdir.exists()
  workdir.mkdir(parents=True)
  (workdir / '.config.json.12.tmp').write_text('{"se')  # killed
  (workdir / '.lock').write_text('process 12')
  rundir.check(workdir, CONFIG)
  rundir.create(workdir, CONFIG)
  assert json.loads((workdir / 'config.json').read_text()) == {
    'format': 2,
    'version': rundir.VERSION,
    'config': {'seed': 0, 'model': {'sizes': [300, 100], 'scale': 'inf'}},
  }
  before = contents(workdir)
  (workdir / '.status.json.99.tmp').write_text('{')
  rundir.create(str(workdir), CONFIG)  # to resume
  assert contents(workdir) == before
  assert not list(workdir.glob('.*.tmp'))


def test_links_and_wrong_kinds_in_a_folder_are_refused(tmp_path):
  workdir, other = tmp_path / 'run', tmp_path / 'other'
  rundir.create(workdir, CONFIG)
  other.write_text('mine')
  for name, place, message in [
    ('metrics.jsonl', 'mkdir', 'expected a file at'),
    ('checkpoints', 'touch', 'expected a folder at'),
    ('.lock', None, 'expected no link in'),
  ]:
    path = workdir / name
    if place is None:
      path.symlink_to(other)
      with pytest.raises(OSError, match='symbolic links'):
        rundir.lock(workdir)
    else:
      getattr(path, place)()
    with pytest.raises(rundir.FolderError, match=f'{message}.*{name}'):
      rundir.check(workdir, CONFIG)
    path.rmdir() if path.is_dir() else path.unlink()
  (workdir / f'.status.json.{os.getpid()}.tmp').symlink_to(other)
  rundir.write_status(workdir, 'done')
  assert rundir.read_status(workdir)['status'] == 'done'
  assert other.read_text() == 'mine'


def test_another_config_is_an_error_that_lists_what_differs(tmp_path):
  rundir.create(tmp_path, CONFIG)
  before = contents(tmp_path)
  other = {'seed': 1, 'model': {'sizes': (300,), 'scale': math.inf}}
  for function in (rundir.create, rundir.check):
    with pytest.raises(rundir.FolderError, match='another config') as error:
      function(tmp_path, other)
    assert str(error.value).splitlines()[1:] == [
      '  model.sizes: [300, 100] there, [300] now',
      '  seed: 0 there, 1 now',
    ]
  assert contents(tmp_path) == before


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('notes.txt', b'mine', "holds 'notes.txt'"),
    ('config.json', b'{"seed": ', 'expected JSON in .*config.json'),
    ('config.json', b'3', 'expected a config in .*, got 3'),
    ('config.json', b'{"seeds": [0]}', 'made by version 0.1 of this project'),
    ('config.json', b'{"format": 3, "version": "9.0", "config": {}}',
     'made by version 9.0'),
  ],
)  # fmt: skip
def test_a_folder_of_something_else_is_left_alone(
  tmp_path, name, content, message
):
  (tmp_path / name).write_bytes(content)
  for function in (rundir.create, rundir.check):
    with pytest.raises(rundir.FolderError, match=message):
      function(tmp_path, CONFIG)
  assert contents(tmp_path) == {name: content}


def test_status_and_summary_are_read_as_they_were_written(tmp_path):
  assert rundir.read_status(tmp_path) is None
  rundir.write_status(tmp_path, 'diverged', step=2, loss=jnp.float32(np.nan))
  status = rundir.read_status(tmp_path)
  updated = status.pop('updated')
  assert status == {'status': 'diverged', 'step': 2, 'loss': 'nan'}
  assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00', updated)
  rundir.write_summary(tmp_path, {'wall_time_s': 2.0})
  summary = rundir.read_json(tmp_path / 'summary.json')
  assert summary['wall_time_s'] == 2.0
  assert summary['device']['platform'] == 'cpu'
  assert summary['device']['count'] == jax.device_count()
  assert summary['versions']['jax'] == jax.__version__
  assert summary['versions']['project'] == rundir.VERSION
  assert {'python', 'optax', 'git_commit'} < summary['versions'].keys()


@pytest.mark.parametrize('function', ['fsync', 'replace'])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch, function
):
  path = tmp_path / 'a.json'
  rundir.write_json(path, 1)

  def fail(*_):
    raise OSError('no space left')

  monkeypatch.setattr(os, function, fail)
  with pytest.raises(OSError, match='no space left'):
    rundir.write_json(path, 2)
  assert contents(tmp_path) == {'a.json': b'1\n'}
