"""Processes on one machine, with programs that need no JAX."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from experiments.common import local

REPOSITORY = pathlib.Path(local.__file__).parents[2]
PROGRAM = """
import os, signal, sys, time
flags = dict(x[2:].split('=', 1) for x in sys.argv[1:])
index = int(flags['process_index'])
print('index', index, 'of', flags['process_count'], flush=True)
"""


@pytest.fixture
def program(tmp_path):
  def write(text):
    path = tmp_path / 'program.py'
    path.write_text(PROGRAM + text)
    return str(path)

  return write


def test_all_run_and_the_first_is_seen(program, capfd):
  flags = ['--processes=3', '--a=1']
  path = program("assert flags['a'] == '1' and 'processes' not in flags")
  assert local.run(path, flags, 3) == 0
  assert capfd.readouterr().out == 'index 0 of 3\n'


def test_the_others_end_when_one_fails_and_its_words_are_seen(
  program, capfd, monkeypatch
):
  monkeypatch.setattr(local, 'GRACE', 0.3)
  path = program("""
if index == 1:
  sys.exit('no such thing')
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
""")
  start = time.monotonic()
  assert local.run(path, [], 3) == 1
  assert time.monotonic() - start < 20
  error = capfd.readouterr().err
  assert 'no such thing' in error
  assert 'Process 1 of 3 ended with 1' in error
  assert 'killed the process(es) [0, 2] that did not' in error


def test_a_killed_process_is_named_by_its_signal(program, capfd, monkeypatch):
  monkeypatch.setattr(local, 'GRACE', 0.3)
  path = program("""
if index == 1:
  os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
""")
  assert local.run(path, [], 2) == 128 + signal.SIGKILL
  assert 'Process 1 of 2 ended by SIGKILL' in capfd.readouterr().err


def test_each_has_one_device(program, monkeypatch):
  flag = '--xla_force_host_platform_device_count=4'
  monkeypatch.setenv('XLA_FLAGS', f'--xla_a=1 {flag}')
  path = program("""
assert os.environ['XLA_FLAGS'].split() == ['--xla_a=1']
assert os.environ['JAX_PLATFORMS'] == 'cpu'
""")
  assert local.run(path, [], 2) == 0


PARENT = """
import sys
from experiments.common import local
sys.exit(local.run(sys.argv[1], [], 2))
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_once(program, tmp_path, number):
  path = program(f"""
def handle(number, frame):
  open(f'{{sys.argv[0]}}.{{index}}', 'a').write('x')
for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, handle)
open(f'{{sys.argv[0]}}.{{index}}.ready', 'w').close()
while not os.path.exists(f'{{sys.argv[0]}}.{{index}}'):
  time.sleep(0.02)
time.sleep(0.2)
sys.exit({128 + number})
""")
  parent = subprocess.Popen(
    [sys.executable, '-c', PARENT, path], cwd=REPOSITORY
  )
  wait_for(lambda: len(list(tmp_path.glob('*.ready'))) == 2)
  parent.send_signal(number)
  assert parent.wait(30) == 128 + number
  assert [(tmp_path / f'program.py.{i}').read_text() for i in (0, 1)] == [
    'x', 'x',
  ]  # fmt: skip


def test_the_processes_end_with_the_one_that_started_them(program, tmp_path):
  path = program(f"""
sys.path.insert(0, {str(REPOSITORY)!r})
from experiments.common import local
local.exit_with_parent()
open(f'{{sys.argv[0]}}.{{os.getpid()}}.pid', 'w').close()
time.sleep(60)
""")
  parent = subprocess.Popen(
    [sys.executable, '-c', PARENT, path], cwd=REPOSITORY
  )
  wait_for(lambda: len(list(tmp_path.glob('*.pid'))) == 2)
  parent.kill()
  parent.wait()
  pids = [int(p.name.split('.')[-2]) for p in tmp_path.glob('*.pid')]
  wait_for(lambda: not any(map(is_alive, pids)))


def start(path):
  command = [sys.executable, '-c', PARENT, path]
  return subprocess.Popen(command, cwd=REPOSITORY)


def wait_for(condition, seconds=20):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def is_alive(pid):
  try:
    os.kill(pid, 0)
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
  except (ProcessLookupError, FileNotFoundError):
    return False
  return state.split()[0] != 'Z'
