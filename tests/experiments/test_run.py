import json
import math
import os
import pathlib
import re
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common import run

CONFIG = {'seed': 0, 'model': {'sizes': (300, 100), 'scale': math.inf}}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize('prepare', ['absent', 'empty', 'killed'])
def test_a_new_folder_becomes_this_configs(tmp_path, prepare):
  workdir = tmp_path / 'a' / 'b'
  if prepare != 'absent':
    workdir.mkdir(parents=True)
  if prepare == 'killed':
    (workdir / '.config.json.12.tmp').write_text('{"se')
  assert run.open_run(workdir, CONFIG).workdir == workdir
  assert json.loads((workdir / 'config.json').read_text()) == {
    'seed': 0,
    'model': {'sizes': [300, 100], 'scale': 'inf'},
  }


def test_the_same_config_resumes_and_changes_nothing(tmp_path):
  run.open_run(tmp_path, CONFIG)
  (tmp_path / 'metrics.jsonl').write_text('{}\n')
  before = contents(tmp_path)
  run.check_workdir(tmp_path, CONFIG)
  run.open_run(str(tmp_path), CONFIG)
  assert contents(tmp_path) == before


@pytest.mark.parametrize('function', [run.open_run, run.check_workdir])
def test_another_config_is_an_error_that_lists_what_differs(tmp_path, function):
  run.open_run(tmp_path, CONFIG)
  before = contents(tmp_path)
  other = {'seed': 1, 'model': {'sizes': (300,), 'scale': math.inf}}
  with pytest.raises(ValueError, match='belongs to another config') as error:
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
    ('config.json', b'\xff\xfe', 'expected JSON in .*config.json'),
    ('config.json', b'3', 'to hold a config, got 3'),
  ],
)
@pytest.mark.parametrize('function', [run.open_run, run.check_workdir])
def test_a_folder_of_something_else_is_left_alone(
  tmp_path, name, content, message, function
):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message):
    function(tmp_path, CONFIG)
  assert contents(tmp_path) == {name: content}


def test_a_file_is_not_a_folder(tmp_path):
  path = tmp_path / 'file'
  path.write_text('mine')
  with pytest.raises(ValueError, match='expected a folder for the run'):
    run.open_run(path, CONFIG)
  assert path.read_text() == 'mine'


def test_checking_an_absent_folder_does_not_create_it(tmp_path):
  run.check_workdir(tmp_path / 'a', CONFIG)
  assert not (tmp_path / 'a').exists()


def test_the_status_is_read_as_it_was_written(tmp_path):
  opened = run.open_run(tmp_path, CONFIG)
  assert opened.read_status() is None
  opened.write_status('running', step=1, num_steps=5)
  opened.write_status('diverged', step=2, loss=jnp.float32(np.nan))
  status = opened.read_status()
  updated = status.pop('updated')
  assert status == {'status': 'diverged', 'step': 2, 'loss': 'nan'}
  assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00', updated)
  with pytest.raises(ValueError, match="got 'finished'"):
    opened.write_status('finished')


def test_the_summary_says_on_what_it_was_measured(tmp_path):
  opened = run.open_run(tmp_path, CONFIG)
  opened.write_summary({'accuracy': 0.5, 'wall_time_s': 2.0})
  summary = run.read_json(tmp_path / 'summary.json')
  assert summary['accuracy'] == 0.5
  assert summary['device'] == {
    'platform': 'cpu',
    'kind': jax.devices()[0].device_kind,
    'count': jax.device_count(),
  }
  assert summary['versions']['jax'] == jax.__version__
  assert summary['versions'].keys() == {
    'python', 'jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy', 'project',
    'git_commit',
  }  # fmt: skip


def test_json_is_valid_whatever_the_numbers():
  value = {
    'a': np.float32(0.1),
    'b': jnp.array([1.0, np.nan, np.inf], jnp.bfloat16),
    3: (np.int64(1), np.bool_(True), -math.inf, None, 'x'),
  }
  text = run.to_json(value)
  assert json.loads(text, parse_constant=pytest.fail) == {
    'a': float(np.float32(0.1)),
    'b': [1.0, 'nan', 'inf'],
    '3': [1, True, '-inf', None, 'x'],
  }
  with pytest.raises(TypeError):
    run.to_json({'f': print})


@pytest.mark.parametrize('function', ['fsync', 'replace'])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch, function
):
  path = tmp_path / 'a.json'
  run.write_json(path, 1)

  def fail(*_):
    raise OSError('no space left')

  monkeypatch.setattr(os, function, fail)
  with pytest.raises(OSError, match='no space left'):
    run.write_json(path, 2)
  assert contents(tmp_path) == {'a.json': b'1\n'}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_a_second_sigint_raises(number):
  before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  with run.Interrupt() as interrupt:
    assert interrupt.signal is None
    signal.raise_signal(number)
    assert interrupt.signal == number
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  after = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  assert after == before


def test_handlers_are_restored_after_an_error():
  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(RuntimeError), run.Interrupt():
    raise RuntimeError
  assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone():
  flags = []

  def work():
    with run.Interrupt() as interrupt:
      flags.append(interrupt.signal)

  before = signal.getsignal(signal.SIGINT)
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert flags == [None]
  assert signal.getsignal(signal.SIGINT) == before
