"""Runs as jobs of a cluster, through submitit.

The runs, their folders and their commands are those of this machine; see
`job.Command` for what a job does when it has to go.
"""

from collections.abc import Sequence
import os
import pathlib
import shlex
import signal
import subprocess
from typing import Any
from typing import NamedTuple

import submitit
from submitit.core import utils as submitit_lib

from experiments.common import build as build_lib
from experiments.common import run as run_lib
from experiments.sweeps import job as job_lib
from experiments.sweeps import runner

FOLDER = 'jobs'  # in that of the sweep: what submitit keeps, and logs
_SUBMITTED = 'submitted.json'  # ids of jobs by task
_ROOT = pathlib.Path(__file__).parent.parent.parent


class Cluster(NamedTuple):
  """What a job may use."""

  slurm: dict[str, Any]  # parameters of submitit.SlurmExecutor
  num_tasks: int  # processes of a run
  time_min: int
  signal_delay_s: int
  num_requeues: int  # when the time was too short


def make_cluster(
  *,
  time_min: int,
  nodes: int,
  tasks_per_node: int,
  gpus_per_node: int | None,
  cpus_per_task: int | None,
  mem_gb: int | None,
  partition: str | None,
  account: str | None,
  qos: str | None,
  constraint: str | None,
  signal_delay_s: int,
  num_requeues: int,
  setup: tuple[str, ...],
) -> Cluster:
  """Returns what the jobs of a sweep may use.

  Args:
    time_min: minutes, after which a job is queued again.
    nodes: of a run.
    tasks_per_node: processes on each; with several in all, JAX makes one
      program of them.
    gpus_per_node: None: not asked for, as all that follow.
    cpus_per_task: of a process.
    mem_gb: of a node.
    partition: of the cluster.
    account: that pays.
    qos: quality of service.
    constraint: features of nodes.
    signal_delay_s: seconds before the end at which a run is told to save.
    num_requeues: how often it may be queued again because its time was over;
      there is no limit to how often it may be preempted.
    setup: lines of shell before the command.

  Raises:
    ValueError: If a number is too small.
  """
  build_lib.check_least(
    'cluster',
    1,
    time_min=time_min,
    nodes=nodes,
    tasks_per_node=tasks_per_node,
    signal_delay_s=signal_delay_s,
  )
  build_lib.check_least('cluster', 0, num_requeues=num_requeues)
  if signal_delay_s >= 60 * time_min:
    raise ValueError(
      'cluster.signal_delay_s: expected less than the time of a job, '
      f'{60 * time_min} s, got {signal_delay_s}'
    )
  path = shlex.quote(str(_ROOT))
  path = f'export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}'
  optional = {
    'gpus_per_node': gpus_per_node,
    'cpus_per_task': cpus_per_task,
    'mem': None if mem_gb is None else f'{mem_gb}GB',
    'partition': partition,
    'account': account,
    'qos': qos,
    'constraint': constraint,
  }
  slurm = {
    'time': time_min,
    'nodes': nodes,
    'ntasks_per_node': tasks_per_node,
    'signal_delay_s': signal_delay_s,
    'setup': [path, *setup],
    **{name: value for name, value in optional.items() if value is not None},
  }
  return Cluster(
    slurm, nodes * tasks_per_node, time_min, signal_delay_s, num_requeues
  )


class LocalJob:
  """A job of submitit on this machine, as the runner sees processes."""

  def __init__(self, job: submitit.LocalJob):
    self._job = job

  def poll(self) -> int | None:
    """Returns the exit code, or None while it runs."""
    if not self._job.done():
      return None
    try:
      return self._job.result()
    except Exception:  # of whatever kind; the job's log says which
      return 1

  def terminate(self) -> None:
    """Asks it to save and to leave."""
    os.kill(int(self._job.job_id), signal.SIGTERM)

  def kill(self) -> None:
    """Asks as well, then ends what started it."""
    self.terminate()
    os.kill(int(self._job.job_id), signal.SIGKILL)


def start_local(
  workdir: pathlib.Path, cluster: Cluster, task: runner.Task
) -> LocalJob:
  """Starts a task through submitit on this machine."""
  executor = submitit.LocalExecutor(
    workdir / FOLDER / task.name, max_num_timeout=cluster.num_requeues
  )
  executor.update_parameters(
    timeout_min=cluster.time_min,
    signal_delay_s=cluster.signal_delay_s,
    gpus_per_node=cluster.slurm.get('gpus_per_node', 0),
  )
  before = os.environ.get('PYTHONPATH')
  os.environ['PYTHONPATH'] = ':'.join(filter(None, (str(_ROOT), before)))
  try:
    # Ctrl-C is ours to pass on: submitit would kill the run a second after it.
    with job_lib.blocked(signal.SIGINT):
      return LocalJob(executor.submit(job_lib.Command(task.command)))
  finally:
    if before is None:
      del os.environ['PYTHONPATH']
    else:
      os.environ['PYTHONPATH'] = before


class _SlurmExecutor(submitit.SlurmExecutor):
  """Writes scripts where there is no Slurm too."""

  @classmethod
  def affinity(cls) -> int:
    return 2


def script(
  workdir: pathlib.Path, cluster: Cluster, num_jobs: int, parallel: int
) -> str:
  """Returns the script that `submit` would hand to sbatch."""
  executor = _slurm(workdir, cluster, parallel)
  if num_jobs > 1:
    executor.parameters['map_count'] = num_jobs
  return executor._make_submission_file_text(executor._submitit_command_str, '')


def submit(
  workdir: pathlib.Path,
  cluster: Cluster,
  tasks: Sequence[runner.Task],
  parallel: int,
) -> dict[str, str]:
  """Hands tasks that are not in the queue to Slurm, as one array.

  Args:
    workdir: of the sweep.
    cluster: what each job may use.
    tasks: what to run.
    parallel: jobs at a time.

  Returns:
    The ids of the new jobs by task.

  Raises:
    ValueError: If there is no Slurm here, or it refuses.
  """
  path = workdir / FOLDER / _SUBMITTED
  submitted = run_lib.read_json(path) if path.exists() else {}
  queued = _queued()
  tasks = [task for task in tasks if submitted.get(task.name) not in queued]
  if not tasks:
    return {}
  executor = _slurm(workdir, cluster, parallel)
  commands = [job_lib.Command(task.command) for task in tasks]
  try:
    jobs = executor.submit_array(commands)
  except submitit_lib.FailedJobError as error:
    raise ValueError(f'expected sbatch to accept the jobs: {error}') from error
  ids = {task.name: job.job_id for task, job in zip(tasks, jobs, strict=True)}
  run_lib.write_json(path, {**submitted, **ids})
  return ids


def _slurm(workdir, cluster: Cluster, parallel: int) -> _SlurmExecutor:
  executor = _SlurmExecutor(
    workdir / FOLDER / '%j', max_num_timeout=cluster.num_requeues
  )
  executor.update_parameters(
    **cluster.slurm, job_name='sweep', array_parallelism=parallel
  )
  return executor


def _queued() -> set[str]:
  """Returns the ids of the user's jobs that Slurm has.

  Raises:
    ValueError: If there is no Slurm here.
  """
  command = ('squeue', '--me', '--array', '--noheader', '--format=%i')
  try:
    listing = subprocess.run(
      command, capture_output=True, text=True, check=True, timeout=60
    )
  except (OSError, subprocess.SubprocessError) as error:
    raise ValueError(
      f'expected Slurm on this machine, but {" ".join(command)}: {error}; '
      '--dry_run prints the script without it'
    ) from error
  return set(listing.stdout.split())


def distributed_arguments(cluster: Cluster) -> tuple[str, ...]:
  """Returns what tells the processes of a run that they are one program."""
  return ('--distributed=slurm',) if cluster.num_tasks > 1 else ()
