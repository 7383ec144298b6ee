"""Runs in other processes, some at a time."""

import signal

import pytest

from experiments import rundir
from experiments.sweep import jobs
from experiments.sweep import plan as plan_lib
from experiments.sweep import run as run_lib


class Process:
  """A process that ends after some looks, or when it is asked to."""

  def __init__(self, looks, code, folder=None):
    self.looks, self.code, self.folder = looks, code, folder
    self.is_told = self.is_killed = False

  def poll(self):
    self.looks -= 1
    if self.looks >= 0:
      return None
    if self.folder and self.code == 0:
      self.folder.mkdir(parents=True)
      rundir.write_status(self.folder, 'done', step=20, total_steps=20)
    return self.code

  def terminate(self):
    self.is_told, self.looks, self.code = True, 0, 128 + signal.SIGTERM

  def kill(self):
    self.is_killed = True


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
  monkeypatch.setattr(jobs, '_POLL_S', 0.0)


@pytest.fixture
def plan(config):
  return plan_lib.make(config, ['--config.seeds=(0,1,2)'])


NAMES = ['alpha=1,seed=0', 'alpha=1,seed=1', 'alpha=1,seed=2']


def test_all_run_a_few_at_a_time_and_are_summarized(plan, tmp_path, capsys):
  looks, started = iter((3, 1, 2)), []

  def start(run, slot):
    started.append((run.name, slot))
    return Process(next(looks), 0, tmp_path / run.name)

  assert jobs.train(plan, tmp_path, 2, start) == 0
  assert started == list(zip(NAMES, (0, 1, 1), strict=True))
  assert (tmp_path / 'summary.json').exists()
  assert '[3/3] alpha=1,seed=2 done 20/20' in capsys.readouterr().out
  assert jobs.train(plan, tmp_path, 2, pytest.fail) == 0


def test_one_that_fails_does_not_stop_the_others(plan, tmp_path, capsys):
  (tmp_path / 'logs').mkdir()
  (tmp_path / 'logs' / f'{NAMES[0]}.log').write_text('begin\nno such data\n\n')
  codes = dict(zip(NAMES, (2, -9, 0), strict=True))

  def start(run, slot):
    return Process(1, codes[run.name], tmp_path / run.name)

  assert jobs.train(plan, tmp_path, 1, start) == run_lib.FAILED
  output = capsys.readouterr().out
  assert '3 runs: 2 failed, 1 done' in output
  assert f'failed: {NAMES[0]}: no such data\n  {tmp_path}/logs' in output
  assert f'failed: {NAMES[1]}: ended by SIGKILL' in output
  assert not (tmp_path / 'summary.json').exists()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_runs_save_and_starts_no_more(
  plan, tmp_path, capsys, number
):
  processes = []

  def start(run, slot):
    processes.append(Process(99, 0))
    if len(processes) == 2:
      signal.raise_signal(number)
    return processes[-1]

  assert jobs.train(plan, tmp_path, 2, start) == 128 + number
  assert [process.is_told for process in processes] == [True, True]
  assert 'the runs have saved. The same command' in capsys.readouterr().out
