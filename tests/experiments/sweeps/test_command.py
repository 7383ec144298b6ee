"""The command for a sweep, as a user gives it."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from experiments.common import run as run_lib
from experiments.sweeps import runner
import launch

ROOT = pathlib.Path(launch.__file__).parent
DENSE = f'--config={ROOT}/configs/mnist_dense.py:quick'
SMALL = [
  '--config.model.hidden=(16,8)',
  '--config.train.num_steps=20',
  '--config.train.log_every=10',
  '--config.train.eval_every=20',
  '--config.train.checkpoint_every=20',
  '--config.prune.num_levels=0',
]
SWEEPS = """
def good(add):
  for seed in (0, 1):
    add({'seeds': (seed,)})

def bad(add):
  good(add)
  add({'data.data_dir': '/nowhere'})

def long(add):
  for seed in (0, 1, 2):
    add({'seeds': (seed,), 'train.num_steps': 1_000_000})

def wrong(add):
  good(add)
  add({'optimizer.lr': 0.1})

def wide(add):
  add({'method.name': 'topkats'})

def densities(add):
  for density in (0.1, 0.2):
    add({'config': f'CONFIGS/mnist_methods.py:rigl,density={density}'})
"""


@pytest.fixture
def sweeps(tmp_path):
  path = tmp_path / 'my_sweeps.py'
  path.write_text(SWEEPS.replace('CONFIGS', f'{ROOT}/configs'))
  return lambda name: [DENSE, f'--sweep={path}:{name}']


def read_json(path):
  return json.loads(path.read_text())


def end(folder, status, **fields):
  """Makes a folder of a run that has ended."""
  folder.mkdir(parents=True)
  run_lib.Run(folder).write_status(status, **fields)
  (folder / 'summary.json').write_text('{}')


def test_runs_are_listed_with_their_states(sweeps, tmp_path, capsys):
  workdir = tmp_path / 'sweep'
  arguments = [*sweeps('good'), '--list']
  assert launch.main(arguments) == 0
  assert capsys.readouterr().out == '   0 seeds=0\n   1 seeds=1\n'
  end(workdir / 'seeds=1', 'done', global_step=20, total_steps=20)
  assert launch.main([*arguments, f'--workdir={workdir}']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert 'waiting' in lines[0]
  assert 'done' in lines[1]
  assert '20/20' in lines[1]
  assert not (workdir / 'sweep.json').exists()


def test_one_run_is_trained_by_its_number(sweeps, tmp_path, capsys):
  workdir = tmp_path / 'sweep'
  arguments = [*sweeps('good'), *SMALL, f'--workdir={workdir}']
  assert launch.main([*arguments, '--index=1']) == 0
  assert read_json(workdir / 'seeds=1' / 'status.json')['status'] == 'done'
  assert read_json(workdir / 'seeds=1' / 'config.json')['seeds'] == [1]
  assert not (workdir / 'seeds=0').exists()
  assert [run['name'] for run in read_json(workdir / 'sweep.json')['runs']] == [
    'seeds=0', 'seeds=1',
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('name', 'more', 'message'),
  [
    ('', [], 'expected --sweep as one of good, bad, long'),
    ('goood', [], "did you mean 'good'"),
    ('wrong', [], "run 'optimizer.lr=0.1': unknown config key"),
    ('wide', [], "run 'method.name=topkats': config.method.name: expected one"),
    ('good', ['--config.seeds=(3,)'], 'expected --config.seeds to be set once'),
    ('good', ['--config.train.num_stps=3'], 'Did you mean "num_steps"'),
    ('good', ['--nothing'], "run 'seeds=0': Unknown .* flag 'nothing'"),
    ('good', ['--eval_only'], 'expected no --eval_only with --sweep'),
    ('good', ['--jobs=0'], 'expected --jobs >= 1, got 0'),
    ('good', ['--pack=0'], 'expected --pack >= 1, got 0'),
    ('good', ['--index=2'], 'expected --index from 0 to 1, got 2'),
    ('good', ['--cluster.nodes=2'], 'expected --executor, one of local, slurm'),
    ('good', ['--executor=slurm', '--cluster.node=2'],
     'unknown cluster key .*"nodes"'),
    ('good', ['--executor=slurm', '--cluster.nodes=0'],
     'cluster.nodes: expected >= 1'),
    ('good', ['--executor=local', '--cluster.nodes=2'],
     'expected one task of a run with --executor=local, got 2'),
    ('good', ['--executor=slurm', '--cluster=x.py'], 'expected a config file'),
  ],
)  # fmt: skip
def test_mistakes_are_one_message_and_leave_nothing(
  sweeps, tmp_path, capsys, name, more, message
):
  workdir = tmp_path / 'sweep'
  code = launch.main([*sweeps(name), f'--workdir={workdir}', *more])
  error = capsys.readouterr().err
  assert code == launch.USER_ERROR
  assert re.search(message, error)
  assert not workdir.exists()


def test_a_missing_folder_is_named(sweeps, capsys):
  assert launch.main(sweeps('good')) == launch.USER_ERROR
  assert 'expected --workdir=DIR' in capsys.readouterr().err


def test_a_dry_run_prints_the_command_of_each_run(sweeps, tmp_path, capsys):
  workdir = tmp_path / 'sweep'
  arguments = [*sweeps('densities'), f'--workdir={workdir}', '--dry_run']
  arguments[0] = DENSE.removesuffix(':quick')
  assert launch.main(arguments) == 0
  output = capsys.readouterr().out
  assert 'mnist_methods.py:rigl,density=0.1 --workdir=' in output
  assert output.count('launch.py') == 2
  assert not workdir.exists()


def test_a_dry_run_for_slurm_prints_its_script(sweeps, tmp_path, capsys):
  arguments = [
    *sweeps('good'),
    f'--workdir={tmp_path / "sweep"}',
    '--executor=slurm',
    '--cluster.gpus_per_node=2',
    '--cluster.nodes=2',
    '--jobs=1',
    '--dry_run',
  ]
  assert launch.main(arguments) == 0
  output = capsys.readouterr().out
  assert '#SBATCH --array=0-1%1' in output
  assert '#SBATCH --gpus-per-node=2' in output
  assert '--distributed=slurm' in output
  assert '--config.seeds=(1,)' in output


def test_a_dry_run_of_packs_shows_one_process_for_many_runs(
  sweeps, tmp_path, capsys
):
  workdir = tmp_path / 'sweep'
  arguments = [*sweeps('good'), f'--workdir={workdir}', '--dry_run', '--pack=8']
  assert launch.main(arguments) == 0
  assert capsys.readouterr().out.count('--packed=pack-') == 1
  end(workdir / 'seeds=0', 'done')
  (workdir / 'seeds=0' / 'config.json').write_text(
    json.dumps(launch.parse([DENSE, '--workdir=x']).config.to_dict())
  )
  assert launch.main(arguments) == 0
  output = capsys.readouterr().out
  assert '--packed' not in output
  assert output.count('launch.py') == 1


def test_help_says_how_to_use_it(capsys):
  with pytest.raises(SystemExit):
    launch.main(['--sweep', '--help'])
  assert '--sweep=NAME --workdir=DIR' in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_trains_what_is_left_and_reports_what_failed(
  sweeps, tmp_path, capsys
):
  workdir = tmp_path / 'sweep'
  arguments = [*sweeps('bad'), *SMALL, f'--workdir={workdir}']
  assert launch.main([*arguments, '--index=0']) == 0
  done = workdir / 'seeds=0'
  before = {p: p.stat().st_mtime_ns for p in done.rglob('*')}
  capsys.readouterr()
  assert launch.main([*arguments, '--jobs=2']) == 1
  output = capsys.readouterr().out
  assert {p: p.stat().st_mtime_ns for p in done.rglob('*')} == before
  assert read_json(workdir / 'seeds=1' / 'status.json')['status'] == 'done'
  assert '3 runs: 1 failed, 2 done' in output
  assert 'failed: data.data_dir=_nowhere' in output
  assert '/nowhere' in output
  assert 'seeds=1: done, accuracy' in output


@pytest.mark.slow
def test_an_interrupted_sweep_saves_and_says_how_to_go_on(sweeps, tmp_path):
  workdir = tmp_path / 'sweep'
  arguments = [*sweeps('long'), *SMALL[:1], *SMALL[2:], '--jobs=2']
  log = tmp_path / 'log'
  with log.open('w') as file:
    process = subprocess.Popen(
      [sys.executable, 'launch.py', *arguments, f'--workdir={workdir}'],
      cwd=ROOT,
      stdout=file,
      stderr=subprocess.STDOUT,
    )
  files = [workdir / f'seeds={i},train.num_steps=1000000' for i in (0, 1)]
  deadline = time.monotonic() + 120
  while not all((file / 'metrics.jsonl').exists() for file in files):
    assert process.poll() is None, log.read_text()
    assert time.monotonic() < deadline
    time.sleep(0.1)
  os.kill(process.pid, signal.SIGINT)
  assert process.wait(60) == 128 + signal.SIGINT
  output = log.read_text()
  assert 'The same command goes on from there:\n  python launch.py' in output
  assert '3 runs: 2 interrupted, 1 waiting' in output
  assert 'Traceback' not in output
  for file in files:
    assert read_json(file / 'status.json')['status'] == 'interrupted'
    assert any((file / 'checkpoints').iterdir())
  with runner.locked(workdir):  # nothing of it runs any more
    pass
