"""The command, as a user gives it; training itself is tested elsewhere."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments import rundir
import launch
from tests import killing

REPOSITORY = pathlib.Path(launch.__file__).parent
TOPKAST = f'--config={REPOSITORY}/configs/mnist_topkast.py'
METHODS = f'--config={REPOSITORY}/configs/mnist_methods.py'
DENSE = f'--config={REPOSITORY}/configs/mnist_dense.py:quick'
SWEEP = f'--sweep={REPOSITORY}/configs/sweeps.py:tune_pruning'
SLURM = [DENSE, SWEEP, '--executor=slurm']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([f'{METHODS}:topkats'], "got 'topkats'; did you mean 'topkast'"),
    ([f'{METHODS}:topkast,desity=0.1'], "'desity'; did you mean 'density'"),
    ([f'{METHODS}:topkast,density=much'], 'expected density=float'),
    ([f'{METHODS}:topkast,0.1'], "got '0.1'"),
    ([f'{DENSE[:-10]}.py'], "did you mean '/"),
    ([DENSE, '--config.train.num_stps=3'], 'Did you mean "num_steps"'),
    ([DENSE, '--config.train.num_steps=many'], 'num_steps=many'),
    ([DENSE, 'more'], "expected flags only, got 'more'"),
    ([DENSE, '--workdri=x'], "flag --workdri; did you mean '--workdir'"),
    ([DENSE, '--jobs=0'], 'jobs=0'),
    ([DENSE, '--list', '--config.train.log_every=0'], 'log_every'),
    ([TOPKAST, '--list', "--config.method.dense=('(',)"], 'regular expression'),
    ([TOPKAST, '--config.method.init=layer'], 'unknown config key'),
    ([f'{METHODS}:rigl', '--config.method.explore_scale=0.5'], 'unknown conf'),
    ([f'{METHODS}:rigl', '--config.method.init=fan'], "'neuron'), got 'fan'"),
    ([f'{METHODS}:acdc,ham=1', '--config.optimizer.ham_b=-1.0'], 'got -1.0'),
    ([DENSE, '--executor=slurm'], 'expected several runs with --executor'),
    ([DENSE, '--index=1'], 'expected --index from 0 to 0, got 1'),
    ([DENSE, '--sweep=densites'], "'densites'; did you mean 'densities'"),
    ([DENSE, SWEEP, '--config.powerprop.alphas=(3.0,)'], 'to be set once'),
    ([DENSE, SWEEP, '--eval_only'], 'expected no --eval_only with --sweep'),
    ([DENSE, SWEEP, '--cluster.nodes=2'], 'expected --executor=slurm'),
    ([DENSE, '--coordinator=h:1'], 'expected --distributed alone'),
    ([DENSE, '--coordinator=h:1', '--process_count=2', '--process_index=2'],
     'less than --process_count=2, got 2'),
    ([DENSE, '--distributed=auto', '--jobs=2'], 'expected no --jobs'),
    (['--dry_run'], 'expected --config=FILE'),
    ([*SLURM, '--cluster.node=2'], 'unknown cluster key'),
    ([*SLURM, '--cluster.time_min=2'], 'expected less than the time of a job'),
    ([*SLURM, '--cluster.num_requeues=-1'], 'expected >= 0, got -1'),
    ([*SLURM, '--cluster.mem_gb=much'], 'mem_gb=much'),
  ],
)  # fmt: skip
def test_mistakes_are_one_message_and_leave_nothing(
  tmp_path, capsys, arguments, message
):
  workdir = tmp_path / 'run'
  code = launch.main([*arguments, f'--workdir={workdir}'])
  output, error = capsys.readouterr()
  assert code == launch.USER_ERROR
  assert error.startswith('launch.py: ')
  assert message in error
  assert 'Traceback' not in error
  assert output == ''
  assert not workdir.exists()


def test_a_dry_run_of_a_sweep_prints_the_command_of_each_run(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(launch.initial, 'make_task', lambda config: None)
  workdir = tmp_path / 'runs'
  flags = [DENSE, SWEEP, f'--workdir={workdir}', '--dry_run']
  assert launch.main(flags) == 0
  lines = capsys.readouterr().out.splitlines()
  name = 'optimizer.learning_rate=0.2,powerprop.alphas=1.0'
  assert lines[2] == f'# {name}'
  assert lines[3].endswith(f'learning_rate=0.2 --workdir={workdir / name}')
  assert "--config.powerprop.alphas=(1.0,)'" in lines[3]
  assert len(lines) == 60
  assert not workdir.exists()


@pytest.mark.nightly
def test_a_sweep_in_children_saves_and_goes_on(tmp_path):
  workdir, log = tmp_path / 'runs', tmp_path / 'log'
  folders = [workdir / f'alpha=1,seed={seed}' for seed in (0, 1)]

  def start():
    flags = [
      DENSE, '--config.model.hidden=(16,8)', '--config.seeds=(0,1)',
      '--config.train.num_steps=4000000', '--config.train.log_every=10',
      '--config.train.eval_every=20', '--config.train.checkpoint_every=20',
      '--config.prune.num_levels=0', f'--workdir={workdir}', '--jobs=2',
    ]  # fmt: skip
    with log.open('w') as file:
      return subprocess.Popen(
        [sys.executable, 'launch.py', *flags],
        cwd=REPOSITORY,
        stdout=file,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'XLA_FLAGS': ''},
      )

  process = start()
  started = [folder / 'metrics.jsonl' for folder in folders]
  killing.wait_for(lambda: all(path.exists() for path in started))
  process.send_signal(signal.SIGINT)
  assert process.wait(300) == 128 + signal.SIGINT
  output = log.read_text()
  assert 'The same command goes on from there:\n  python launch.py' in output
  assert '2 runs: 2 interrupted' in output
  assert 'Traceback' not in output
  for folder in folders:
    assert rundir.read_status(folder)['status'] == 'interrupted'
    assert any((folder / 'checkpoints').iterdir())
    assert not rundir.is_locked(folder)
  # Killed outright, the parent takes its children with it.
  process = start()
  killing.wait_for(lambda: all(map(rundir.is_locked, folders)))
  process.kill()
  process.wait()
  killing.wait_for(lambda: not any(map(rundir.is_locked, folders)))
