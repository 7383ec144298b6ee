"""Runs as Slurm jobs, against stand-ins of its commands."""

import json
import os
import pathlib
import signal
import sys

import pytest
import submitit

from configs import cluster as cluster_config
from experiments import rundir
from experiments.sweep import jobs
from experiments.sweep import plan as plan_lib
from experiments.sweep import slurm as slurm_lib
import launch
from tests import killing

# Trains until it is told to save; what was saved ends it at once.
TRAINING = """
import pathlib, signal, sys, time
saved = pathlib.Path(sys.argv[1], 'saved')
def save(*_):
  saved.touch()
  sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], 'begun').touch()
if saved.exists():
  print('went on')
  sys.exit(0)
time.sleep(60)
"""


def make_cluster(**changes):
  config = cluster_config.get_config()
  config.update(changes)
  return slurm_lib.make_cluster(config)


def test_a_job_that_has_to_go_saves_and_goes_on_in_its_place(
  tmp_path, monkeypatch
):
  root = str(pathlib.Path(launch.__file__).parent)
  monkeypatch.setenv('PYTHONPATH', root)
  executor = submitit.LocalExecutor(tmp_path / 'jobs', max_num_timeout=1)
  executor.update_parameters(timeout_min=9, signal_delay_s=60)
  command = (sys.executable, '-c', TRAINING, str(tmp_path))
  job = executor.submit(slurm_lib.Command(command))
  killing.wait_for(lambda: (tmp_path / 'begun').exists())
  job_id = job.job_id
  [child] = (
    pathlib.Path(f'/proc/{job_id}/task/{job_id}/children').read_text().split()
  )
  os.kill(int(child), signal.SIGUSR2)  # as Slurm does before it takes the node
  killing.wait_for(job.done)
  assert (tmp_path / 'saved').exists()
  assert job.result() == 0
  assert 'went on' in job.stdout()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
  """A Slurm that accepts everything: what it is given, and its queue."""
  folder = tmp_path / 'slurm'
  folder.mkdir()
  (folder / 'queue').touch()
  programs = {
    'srun': '',
    'sbatch': f'cp "$1" {folder}/script\necho Submitted batch job 42',
    'squeue': f'cat {folder}/queue',
  }
  for name, text in programs.items():
    (folder / name).write_text(f'#!/bin/sh\n{text}\n')
    (folder / name).chmod(0o755)
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  return folder


@pytest.fixture
def plan(config):
  return plan_lib.make(config, (), 'seeds')


def test_the_script_asks_for_what_the_config_says(plan, tmp_path, slurm):
  cluster = make_cluster(
    time_min=90, nodes=2, tasks_per_node=4, gpus_per_node=4, mem_gb=64,
    partition='gpu', setup=('module load cuda',),
  )  # fmt: skip
  ids = slurm_lib.submit(plan, tmp_path, cluster, 1)
  lines = (slurm / 'script').read_text().splitlines()
  for option in (
    'array=0-1%1', 'gpus-per-node=4', 'mem=64GB', 'nodes=2',
    'ntasks-per-node=4', 'partition=gpu', 'signal=USR2@120', 'time=90',
  ):  # fmt: skip
    assert f'#SBATCH --{option}' in lines
  assert 'module load cuda' in lines
  assert not any('account' in line or 'qos' in line for line in lines)
  assert any(line.startswith('export PYTHONPATH=') for line in lines)
  assert ids == {'seeds=0': '42_0', 'seeds=1': '42_1'}
  for run in plan.runs:
    folder = tmp_path / 'jobs' / ids[run.name]
    pickled = folder / f'{ids[run.name]}_submitted.pkl'
    function = submitit.helpers.DelayedSubmission.load(pickled).function
    assert list(function.command) == jobs.command(
      run, tmp_path, '--distributed=slurm'
    )


def test_queued_runs_are_not_submitted_again(plan, tmp_path, slurm):
  slurm_lib.submit(plan, tmp_path, make_cluster(), 2)
  (slurm / 'queue').write_text('7\n42_0\n42_1\n')
  assert slurm_lib.submit(plan, tmp_path, make_cluster(), 2) == {}
  (slurm / 'queue').write_text('42_0\n')
  failed = tmp_path / 'seeds=1'
  failed.mkdir()
  rundir.write_status(failed, 'failed', step=3)
  ids = slurm_lib.submit(plan, tmp_path, make_cluster(), 2)
  assert set(ids) == {'seeds=1'}
  kept = json.loads((tmp_path / 'jobs' / 'submitted.json').read_text())
  assert kept == {'seeds=0': '42_0', 'seeds=1': ids['seeds=1']}
  assert rundir.read_status(failed)['status'] == 'interrupted'


def test_without_slurm_or_with_one_that_refuses_there_is_a_clear_error(
  plan, tmp_path, slurm, monkeypatch
):
  (slurm / 'sbatch').write_text('#!/bin/sh\necho invalid partition >&2\nexit 1')
  with pytest.raises(ValueError, match=r'sbatch to accept.*\n?.*invalid part'):
    slurm_lib.submit(plan, tmp_path, make_cluster(), 1)
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(ValueError, match='expected Slurm on this machine'):
    slurm_lib.submit(plan, tmp_path, make_cluster(), 1)


def test_the_command_submits_the_runs_that_are_left(
  config, tmp_path, slurm, capsys
):
  workdir = tmp_path / 'runs'
  command = [f'--config={config}', '--sweep=seeds', f'--workdir={workdir}']
  assert launch.main([*command, '--index=0']) == 0
  cluster = f'--cluster={cluster_config.__file__}'
  flags = [*command, '--executor=slurm', cluster, '--cluster.partition=gpu']
  capsys.readouterr()
  assert launch.main([*flags, '--dry_run']) == 0
  output = capsys.readouterr().out
  assert 'partition: gpu' in output
  assert '--config.seeds=(1,)' in output
  assert not (slurm / 'script').exists()
  assert launch.main(flags) == 0
  assert '42 seeds=1\n1 of 2 runs submitted' in capsys.readouterr().out
