"""Runs as jobs: submitit's local and debug executors, and Slurm's scripts."""

import json
import os
import pathlib
import signal
import sys
import time

import pytest
import submitit

from configs import cluster as cluster_config
from experiments.common import build
from experiments.sweeps import executors
from experiments.sweeps import job as job_lib
from experiments.sweeps import runner

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
  return build.call(executors.make_cluster, config, name='cluster')


def tasks_of(*names):
  return [runner.Task(name, (name,), ('true', name)) for name in names]


def wait_for(condition, seconds=60):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def children_of(pid):
  """Returns the processes that a process has started."""
  path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
  return [int(word) for word in path.read_text().split()]


# submitit leaves its logs open.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('code', [0, 3])
def test_a_job_of_the_debug_executor_has_the_exit_code(tmp_path, code):
  command = (sys.executable, '-c', f'import sys; sys.exit({code})')
  job = submitit.DebugExecutor(tmp_path).submit(job_lib.Command(command))
  assert job.result() == code


def test_a_job_that_has_to_go_saves_and_goes_on_in_its_place(tmp_path):
  command = (sys.executable, '-c', TRAINING, str(tmp_path))
  task = runner.Task('a', ('a',), command)
  job = executors.start_local(tmp_path, make_cluster(), task)
  wait_for(lambda: (tmp_path / 'begun').exists())
  assert job.poll() is None
  [process] = children_of(job._job.job_id)
  os.kill(process, signal.SIGUSR2)  # as Slurm does before it takes the node
  wait_for(lambda: job.poll() is not None)
  assert (tmp_path / 'saved').exists()
  assert job.poll() == 0
  assert 'went on' in job._job.stdout()


def test_a_local_job_that_is_stopped_saves_and_is_not_queued_again(tmp_path):
  command = (sys.executable, '-c', TRAINING, str(tmp_path))
  task = runner.Task('a', ('a',), command)
  job = executors.start_local(tmp_path, make_cluster(), task)
  wait_for(lambda: (tmp_path / 'begun').exists())
  job.terminate()
  wait_for(lambda: job.poll() is not None)
  assert job.poll() == 143
  assert (tmp_path / 'saved').exists()


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


def test_the_script_asks_for_what_the_config_says(tmp_path):
  cluster = make_cluster(
    time_min=90,
    nodes=2,
    tasks_per_node=4,
    gpus_per_node=4,
    mem_gb=64,
    partition='gpu',
    setup=('module load cuda',),
  )
  lines = executors.script(tmp_path, cluster, 5, parallel=3).splitlines()
  for expected in (
    '#SBATCH --array=0-4%3',
    '#SBATCH --gpus-per-node=4',
    '#SBATCH --mem=64GB',
    '#SBATCH --nodes=2',
    '#SBATCH --ntasks-per-node=4',
    '#SBATCH --partition=gpu',
    '#SBATCH --signal=USR2@120',
    '#SBATCH --time=90',
    'module load cuda',
  ):
    assert expected in lines
  assert not any('account' in line or 'qos' in line for line in lines)
  assert any(line.startswith('export PYTHONPATH=') for line in lines)
  assert lines[-1].startswith('srun ')


@pytest.mark.parametrize('names', [('a',), ('a', 'b')])
def test_what_is_submitted_is_the_script_that_is_shown(tmp_path, slurm, names):
  cluster, tasks = make_cluster(partition='gpu'), tasks_of(*names)
  shown = executors.script(tmp_path, cluster, len(tasks), 2)
  ids = executors.submit(tmp_path, cluster, tasks, 2)
  assert (slurm / 'script').read_text() == shown
  assert ids == {
    name: f'42_{i}' if len(names) > 1 else '42' for i, name in enumerate(names)
  }
  for name, job_id in ids.items():
    folder = tmp_path / 'jobs' / job_id
    pickled = folder / f'{job_id}_submitted.pkl'
    function = submitit.core.utils.DelayedSubmission.load(pickled).function
    assert function._command == ('true', name)


def test_what_is_in_the_queue_is_not_submitted_again(tmp_path, slurm):
  cluster, tasks = make_cluster(), tasks_of('a', 'b')
  executors.submit(tmp_path, cluster, tasks, 2)
  (slurm / 'queue').write_text('7\n42_0\n42_1\n')
  assert executors.submit(tmp_path, cluster, tasks, 2) == {}
  (slurm / 'queue').write_text('42_0\n')
  ids = executors.submit(tmp_path, cluster, tasks, 2)
  assert set(ids) == {'b'}
  kept = json.loads((tmp_path / 'jobs' / 'submitted.json').read_text())
  assert kept == {'a': '42_0', 'b': '42'}


def test_a_queue_that_refuses_is_a_clear_error(tmp_path, slurm):
  (slurm / 'sbatch').write_text('#!/bin/sh\necho invalid partition >&2\nexit 1')
  with pytest.raises(ValueError, match=r'sbatch to accept.*\n?.*invalid part'):
    executors.submit(tmp_path, make_cluster(), tasks_of('a'), 1)


def test_without_slurm_there_is_a_clear_error(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(ValueError, match='expected Slurm on this machine'):
    executors.submit(tmp_path, make_cluster(), tasks_of('a'), 1)


def test_several_processes_of_a_run_find_each_other():
  assert executors.distributed_arguments(make_cluster()) == ()
  cluster = make_cluster(nodes=2)
  assert executors.distributed_arguments(cluster) == ('--distributed=slurm',)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'time_min': 0}, 'cluster.time_min: expected >= 1, got 0'),
    ({'nodes': 0}, 'cluster.nodes: expected >= 1, got 0'),
    ({'time_min': 2}, 'signal_delay_s: expected less than .* 120 s, got 120'),
    ({'num_requeues': -1}, 'num_requeues: expected >= 0, got -1'),
  ],
)
def test_a_cluster_that_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    make_cluster(**changes)
