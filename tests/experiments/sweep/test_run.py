"""Plans trained in this process, by the command."""

import json
import re

import pytest

from experiments import rundir
from experiments.sweep import run as run_lib
import launch
from tests.experiments.sweep import fakes

NETWORKS = ['--config.seeds=(0,1)', '--config.powerprop.alphas=(1.0,2.0)']
NAMES = ['alpha=1,seed=0', 'alpha=1,seed=1', 'alpha=2,seed=0', 'alpha=2,seed=1']


@pytest.fixture
def command(config, tmp_path):
  """Returns a function that runs launch.py, and the folder of the runs."""
  workdir = tmp_path / 'runs'

  def run(*arguments):
    return launch.main(
      [f'--config={config}', f'--workdir={workdir}', *arguments]
    )

  return run, workdir


def test_one_network_is_trained_in_the_folder_itself(command, capsys):
  run, workdir = command
  assert run() == 0
  assert {path.name for path in workdir.iterdir()} == {
    'config.json', 'metrics.jsonl', 'status.json', 'summary.json',
    'vocabulary.json',
  }  # fmt: skip
  config = rundir.read_config(workdir)
  assert (config['seed'], config['powerprop']['alpha']) == (0, 1.0)
  assert rundir.read_status(workdir)['status'] == 'done'
  assert rundir.read_status(workdir)['step'] == 20
  summary = rundir.read_json(workdir / 'summary.json')
  assert summary['results']['accuracy'] == 0.5
  assert summary['wall_time_s'] == 1.0
  assert 'running 10/20, loss 0.1\ndone 20/20' in capsys.readouterr().out
  assert run(*NETWORKS) == run_lib.USER_ERROR  # the folder of one run
  assert 'is the folder of one run' in capsys.readouterr().err


def test_several_networks_have_folders_and_are_trained_once(command, capsys):
  run, workdir = command
  assert run(*NETWORKS) == 0
  assert [path.name for path in fakes.Task.trained] == NAMES
  config = rundir.read_config(workdir / NAMES[3])
  assert (config['seed'], config['powerprop']['alpha']) == (1, 2.0)
  assert (workdir / 'summary.json').exists()
  assert (
    '[4/4] alpha=2,seed=1 done 20/20, accuracy 0.5' in capsys.readouterr().out
  )
  before = {p: p.stat().st_mtime_ns for p in workdir.glob('*/*')}
  assert run(*NETWORKS) == 0
  assert len(fakes.Task.trained) == 4
  assert {p: p.stat().st_mtime_ns for p in workdir.glob('*/*')} == before


def test_runs_that_fail_do_not_stop_the_others(command, capsys):
  run, workdir = command
  assert run('--sweep=mixed') == run_lib.FAILED
  output = capsys.readouterr().out
  assert '4 runs: 1 failed, 1 diverged, 2 done' in output
  assert 'failed: data.name=absent: expected data in /nowhere' in output
  assert 'diverged: train.learning_rate=3.0: the loss is nan' in output
  assert not (workdir / 'data.name=absent').exists()
  trained = len(fakes.Task.trained)
  assert run('--sweep=mixed') == run_lib.USER_ERROR  # only the data are left
  assert len(fakes.Task.trained) == trained


@pytest.mark.parametrize(
  ('rate', 'code', 'status', 'message'),
  [
    (3.0, run_lib.DIVERGED, 'diverged', 'the loss is nan'),
    (4.0, run_lib.MACHINE, 'failed', 'OSError: No space left'),
    (5.0, run_lib.FAILED, 'failed', 'RuntimeError: a bug'),
    (6.0, 143, 'interrupted', ''),
  ],
)
def test_the_exit_code_says_how_a_run_ended(
  command, capsys, rate, code, status, message
):
  run, workdir = command
  assert run(f'--config.train.learning_rate={rate}') == code
  found = rundir.read_status(workdir)
  assert found['status'] == status
  assert message in found['message']
  output, error = capsys.readouterr()
  assert ('Traceback' in error) == (rate == 5.0)
  assert ('The same command goes on from there' in output) == (rate == 6.0)
  assert not rundir.is_locked(workdir)


@pytest.mark.parametrize(
  ('rate', 'code', 'text'),
  [(4.0, run_lib.MACHINE, ''), (7.0, 143, 'SIGTERM: stopped between runs')],
)
def test_a_full_disk_or_a_signal_between_runs_starts_no_more(
  command, capsys, rate, code, text
):
  run, _ = command
  assert run(*NETWORKS, f'--config.train.learning_rate={rate}') == code
  assert [path.name for path in fakes.Task.trained] == NAMES[:1]
  assert text in capsys.readouterr().out


def test_a_signal_ends_the_plan_and_the_same_command_goes_on(command, capsys):
  run, workdir = command
  flags = [*NETWORKS, '--config.train.learning_rate=6.0']
  assert run(*flags) == 143
  assert [path.name for path in fakes.Task.trained] == NAMES[:1]
  assert '4 runs: 1 interrupted, 3 waiting' in capsys.readouterr().out
  assert rundir.read_status(workdir / NAMES[0])['status'] == 'interrupted'
  for end in range(2, 5):
    assert run(*flags) == 143
    assert [p.name for p in fakes.Task.trained[-2:]] == NAMES[end - 2 : end]
  assert run(*flags) == 0


def test_one_run_is_trained_by_its_number(command, config, capsys):
  run, workdir = command
  flags = ['--sweep=seeds', '--config.powerprop.alphas=(1.0,2.0)']
  assert run(*flags, '--index=2') == 0
  names = [
    f'seeds={i},alpha={alpha},seed={i}' for i in (0, 1) for alpha in '12'
  ]
  assert [path.name for path in fakes.Task.trained] == [names[2]]
  assert f'Run 2 of 4: {names[2]}' in capsys.readouterr().out
  assert run(*flags, '--index=4') == run_lib.USER_ERROR
  assert '--index from 0 to 3, got 4' in capsys.readouterr().err
  written = json.loads((workdir / 'sweep.json').read_text())
  assert (written['config'], written['sweep']) == (config, 'seeds')
  assert [r['name'] for r in written['runs']] == names


def test_runs_are_listed_with_their_states(command, config, capsys):
  run, _ = command
  assert launch.main([f'--config={config}', '--sweep=seeds', '--list']) == 0
  assert capsys.readouterr().out == '   0 seeds=0\n   1 seeds=1\n'
  assert run('--sweep=seeds', '--index=1') == 0
  capsys.readouterr()
  assert run('--sweep=seeds', '--list') == 0
  waiting, done = capsys.readouterr().out.splitlines()
  assert re.fullmatch(r' +0 seeds=0 +waiting *', waiting)
  assert re.fullmatch(r' +1 seeds=1 +done +20/20 +accuracy 0.5', done)


def test_an_evaluation_is_written_beside_each_run(command, capsys, monkeypatch):
  run, workdir = command
  assert run(*NETWORKS) == 0
  rows = [{'split': 'test', 'accuracy': 0.75}, {'split': 'histogram'}]
  monkeypatch.setattr(launch.trainer, 'evaluate', lambda *_: rows)
  capsys.readouterr()
  assert run(*NETWORKS, '--eval_only') == 0
  assert rundir.read_json(workdir / NAMES[1] / 'evaluation.json') == rows
  output = capsys.readouterr().out
  assert 'alpha=1,seed=1 {"split": "test", "accuracy": 0.75}' in output
  assert 'histogram' not in output
