"""Runs that others train are watched, and left alone."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments.common import lock
from experiments.common import run as run_lib
from experiments.sweeps import plan
from experiments.sweeps import unpacking
from experiments.sweeps import watching
import launch

ROOT = pathlib.Path(launch.__file__).parent
COMMAND = [
  f'--config={ROOT}/configs/mnist_dense.py:quick',
  '--sweep=seeds',
]
SMALL = [
  '--config.model.hidden=(16,8)',
  '--config.train.num_steps=20',
  '--config.train.log_every=10',
  '--config.train.eval_every=20',
  '--config.train.checkpoint_every=20',
  '--config.prune.num_levels=0',
]
NAMES = ('seeds=0', 'seeds=1', 'seeds=2')


def begin(folder, status):
  """Makes a folder of a run in which no process is at work."""
  folder.mkdir(parents=True, exist_ok=True)
  run_lib.Run(folder).write_status(status, global_step=3, total_steps=9)
  if status == 'done':
    (folder / 'summary.json').write_text('{}')
  return folder


def write_plan(workdir):
  config, sweep = (word.partition('=')[2] for word in COMMAND)
  runs = plan.make_runs(plan.collect(plan.find(sweep, config)), config)
  plan.write(workdir, config, sweep, runs)


def interrupt_in(seconds):
  """Has Ctrl-C come after a while."""
  signal.signal(signal.SIGALRM, signal.default_int_handler)
  signal.setitimer(signal.ITIMER_REAL, seconds)


def test_a_run_runs_as_long_as_its_lock_is_touched(tmp_path):
  folder = begin(tmp_path / 'a', 'running')
  now = [0.0]
  seen = watching.Folders(tmp_path, ['a'], clock=lambda: now[0])
  assert seen.now('a').status == 'interrupted'  # no lock
  (folder / lock.FILE).touch()
  assert seen.now('a').status == 'running'
  now[0] = lock.PATIENCE - 1
  assert seen.now('a').status == 'running'
  now[0] = lock.PATIENCE + 1
  assert seen.now('a').status == 'interrupted'
  os.utime(folder / lock.FILE, (1, 1))
  assert seen.now('a').status == 'running'


def test_until_a_submitted_run_begins_its_folder_is_of_before(tmp_path):
  for name in ('a', 'b', 'c'):
    begin(tmp_path / name, 'done' if name == 'c' else 'failed')
  seen = watching.Folders(tmp_path, ['a', 'b', 'c'], submitted=['a', 'c'])
  status = {name: seen.now(name).status for name in ('a', 'b', 'c')}
  assert status == {'a': 'waiting', 'b': 'failed', 'c': 'done'}
  begin(tmp_path / 'a', 'failed')
  assert seen.now('a').status == 'failed'


def test_a_run_of_a_pack_has_its_figures(tmp_path):
  folder = tmp_path / 'packs/pack-1'
  unpacking.write(folder, [unpacking.Packed(n, [], {}) for n in ('a', 'b')])
  row = {'global_step': 4, 'split': 'test', 'accuracy': 0.5, 'run': 1}
  (folder / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  begin(tmp_path / 'b', 'running')
  state = watching.Folders(tmp_path, ['a', 'b']).now('b')
  assert (state.status, state.figure) == ('running', 'accuracy 0.5')


def test_it_ends_when_all_runs_have(tmp_path, capsys):
  write_plan(tmp_path)
  for name in NAMES:
    begin(tmp_path / name, 'done')
  arguments = [*COMMAND, f'--workdir={tmp_path}', '--watch']
  assert launch.main(arguments) == 0
  assert '3 runs: 3 done' in capsys.readouterr().out
  begin(tmp_path / NAMES[0], 'failed')
  assert launch.main(arguments) == 1
  assert '3 runs: 1 failed, 2 done' in capsys.readouterr().out


def test_ctrl_c_ends_it_alone(tmp_path, capsys):
  write_plan(tmp_path)
  begin(tmp_path / NAMES[0], 'done')
  interrupt_in(0.5)
  code = launch.main([*COMMAND, f'--workdir={tmp_path}', '--watch'])
  assert code == 128 + signal.SIGINT
  output = capsys.readouterr().out
  assert '3 runs: 2 waiting, 1 done' in output
  assert 'Runs that are left go on' in output


def test_a_folder_without_a_sweep_is_a_mistake(tmp_path, capsys):
  assert launch.main([*COMMAND, f'--workdir={tmp_path}', '--watch']) == 2
  assert 'expected the folder of a sweep' in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_of_the_local_executor_is_watched(tmp_path):
  workdir = tmp_path / 'sweep'
  write_plan(workdir)
  command = [sys.executable, 'launch.py', *COMMAND, f'--workdir={workdir}']
  options = {'cwd': ROOT, 'stdout': subprocess.PIPE, 'text': True}
  with (
    subprocess.Popen([*command, '--watch'], **options) as watcher,
    subprocess.Popen(
      [*command, *SMALL, '--executor=local', '--jobs=3'], **options
    ) as sweep,
  ):
    assert sweep.wait(240) == 0, sweep.stdout.read()
    assert watcher.wait(30) == 0
    seen = watcher.stdout.read()
  for name in NAMES:
    assert f'{name}: running' in seen
    assert f'{name}: done, accuracy' in seen
  assert '3 runs: 3 done' in seen
