"""Tasks that run, some at a time."""

import functools
import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.sweeps import runner


class Process:
  """A process that ends after some looks, or when it is asked to."""

  def __init__(self, looks, code):
    self.looks, self.code = looks, code
    self.is_told = self.is_killed = False

  def poll(self):
    self.looks -= 1
    return self.code if self.looks < 0 else None

  def terminate(self):
    self.is_told, self.looks, self.code = True, 0, 128 + signal.SIGTERM

  def kill(self):
    self.is_killed = True


def tasks_of(*names):
  return [runner.Task(name, (name,), ()) for name in names]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
  monkeypatch.setattr(runner, '_POLL_S', 0.0)


def test_all_run_a_few_at_a_time_whatever_their_end():
  processes = {'a': Process(3, 0), 'b': Process(1, 2), 'c': Process(2, 0)}
  started, most = [], []

  def start(task):
    started.append((task.name, task.slot))
    return processes[task.name]

  outcome = runner.run_all(
    tasks_of('a', 'b', 'c'),
    start,
    jobs=2,
    show=lambda codes, running: most.append(len(running)),
  )
  assert started == [('a', 0), ('b', 1), ('c', 1)]
  assert max(most) == 2
  assert outcome == runner.Outcome({'a': 0, 'b': 2, 'c': 0}, None)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_save_and_starts_no_more(number):
  processes = {'a': Process(99, 0), 'b': Process(99, 0)}
  shown = []

  def show(codes, running):
    if not shown:
      os.kill(os.getpid(), number)
    shown.append(running)

  outcome = runner.run_all(
    tasks_of('a', 'b', 'never'),
    lambda task: processes[task.name],
    jobs=2,
    show=show,
  )
  assert outcome.signal == number
  assert outcome.codes == {'a': 143, 'b': 143}
  assert all(process.is_told for process in processes.values())


def test_a_second_interrupt_kills():
  process = Process(10**9, 0)
  process.terminate = lambda: None

  with pytest.raises(KeyboardInterrupt):
    runner.run_all(
      tasks_of('a'),
      lambda task: process,
      jobs=1,
      show=lambda *_: os.kill(os.getpid(), signal.SIGINT),
    )
  assert process.is_killed


def test_a_process_prints_to_its_log_and_keeps_what_was_there(tmp_path):
  for word in ('first', 'second'):
    task = runner.Task('a', (), (sys.executable, '-c', f'print("{word}")'))
    assert runner.start_process(tmp_path, 0, 1, task).wait(60) == 0
  log = runner.log_of(tmp_path, 'a')
  assert log.read_text() == 'first\nsecond\n'
  assert runner.last_line(log) == 'second'


def test_one_folder_is_for_one_sweep(tmp_path):
  with (
    runner.locked(tmp_path),
    pytest.raises(ValueError, match=r'expected .* to be free'),
    runner.locked(tmp_path),
  ):
    pass
  with runner.locked(tmp_path):
    pass


def test_what_a_killed_sweep_started_holds_its_folder(tmp_path):
  task = runner.Task('a', (), (sys.executable, '-c', 'input()'))
  with runner.locked(tmp_path) as lock:
    start = functools.partial(runner.start_process, tmp_path, lock, 1)
    process = start(task._replace(command=('sleep', '60')))
  try:
    with (
      pytest.raises(ValueError, match='runs that an earlier one started'),
      runner.locked(tmp_path),
    ):
      pass
  finally:
    process.kill()
    process.wait()
  with runner.locked(tmp_path):
    pass


def test_a_process_is_out_of_reach_of_the_terminal(tmp_path):
  task = runner.Task('a', (), ('sleep', '60'))
  process = runner.start_process(tmp_path, 0, 1, task)
  try:
    deadline = time.monotonic() + 10
    while os.getsid(process.pid) == os.getsid(0):
      assert time.monotonic() < deadline
  finally:
    process.terminate()
  assert process.wait(10) == -signal.SIGTERM
  assert isinstance(process, subprocess.Popen)
