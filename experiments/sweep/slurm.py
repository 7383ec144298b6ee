"""Runs as a Slurm array, through submitit.

Slurm sends SIGUSR2 before it preempts a job or its time is over: the run saves,
and the job is requeued with the same command.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
import shlex
import signal
import subprocess
import time
from typing import Any
from typing import NamedTuple

import submitit
from submitit.core import utils as submitit_lib

from experiments import build
from experiments import rundir
from experiments.sweep import jobs
from experiments.sweep import plan as plan_lib
from experiments.sweep import points
from experiments.sweep import status

_SUBMITTED = 'submitted.json'  # ids of jobs, by run
_ROOT = pathlib.Path(__file__).parent.parent.parent
_POLL_S = 0.1


class Cluster(NamedTuple):
  """Resources of a job."""

  slurm: dict[str, Any]  # parameters of submitit.SlurmExecutor
  flags: tuple[str, ...]  # of launch.py, if several processes train a run
  num_requeues: int


def make_cluster(section: Mapping[str, Any]) -> Cluster:
  """Returns the resources of a job, from the keys of `configs/cluster.py`."""
  return build.call(_cluster, section, name='cluster')


def _cluster(
  *,
  time_min: int,
  nodes: int,
  tasks_per_node: int,
  signal_delay_s: int,
  num_requeues: int,
  mem_gb: int | None,
  gpus_per_node: int | None,
  cpus_per_task: int | None,
  setup: tuple[str, ...],
  **names: str | None,  # partition, account, ...
) -> Cluster:
  build.check_least(
    'cluster', 1, time_min=time_min, nodes=nodes,
    tasks_per_node=tasks_per_node, signal_delay_s=signal_delay_s,
  )  # fmt: skip
  build.check_least('cluster', 0, num_requeues=num_requeues)
  if signal_delay_s >= 60 * time_min:
    raise ValueError(
      'cluster.signal_delay_s: expected less than the time of a job, '
      f'{60 * time_min} s, got {signal_delay_s}'
    )
  num_tasks = nodes * tasks_per_node
  path = f'export PYTHONPATH={shlex.quote(str(_ROOT))}'
  slurm = {
    'time': time_min,
    'nodes': nodes,
    'ntasks_per_node': tasks_per_node,
    'gpus_per_node': gpus_per_node,
    'cpus_per_task': cpus_per_task,
    'mem': None if mem_gb is None else f'{mem_gb}GB',
    'signal_delay_s': signal_delay_s,
    'setup': [f'{path}${{PYTHONPATH:+:$PYTHONPATH}}', *setup],
    **names,
  }
  slurm = {name: value for name, value in slurm.items() if value is not None}
  flags = ('--distributed=slurm',) if num_tasks > 1 else ()
  return Cluster(slurm, flags, num_requeues)


class Command:
  """A command as a job's function, which saves before it is requeued.

  Example:
    >>> Command(('true',))()
    0
  """

  def __init__(self, command: Sequence[str]):
    self.command = tuple(command)
    self._process: subprocess.Popen | None = None

  def __call__(self) -> int:
    """Runs the command; returns its exit code."""
    previous = signal.signal(signal.SIGTERM, lambda *_: self._terminate())
    # Signals of the job reach the command through this process alone.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
      self._process = subprocess.Popen(self.command, start_new_session=True)
      signal.pthread_sigmask(signal.SIG_SETMASK, mask)
      # `wait` would hold a lock that `checkpoint`, called by a signal handler,
      # needs.
      while self._process.poll() is None:
        time.sleep(_POLL_S)
      return self._process.returncode
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, mask)
      signal.signal(signal.SIGTERM, previous)

  def checkpoint(self) -> submitit.helpers.DelayedSubmission:
    """Waits until the run has saved; returns the same command, to requeue."""
    if self._process is not None:
      self._terminate()
      os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
    return submitit.helpers.DelayedSubmission(Command(self.command))

  def _terminate(self) -> None:
    if self._process is not None:
      self._process.terminate()


def submit(
  plan: plan_lib.Plan,
  workdir: pathlib.Path,
  cluster: Cluster,
  parallel: int | None,
) -> dict[str, str]:
  """Submits runs that are neither ended nor queued as one Slurm array.

  Failed runs become interrupted, so that --watch waits for them. At most
  `parallel` jobs run at a time. Returns the ids of the new jobs by run.
  """
  path = workdir / points.JOBS / _SUBMITTED
  submitted = rundir.read_json(path) if path.exists() else {}
  queued = _queued()
  commands = {}
  for run in plan.runs:
    folder = workdir / run.name
    state = status.read(folder)
    if state.status in status.ENDED or submitted.get(run.name) in queued:
      continue
    command = jobs.command(run, workdir, *cluster.flags)
    commands[run.name] = Command(command)
    if state.status == 'failed':
      fields = {'step': state.step, 'total_steps': state.total_steps}
      rundir.write_status(folder, 'interrupted', **fields)
  ids: dict[str, str] = {}
  if commands:
    plan_lib.write(plan, workdir)
    executor = submitit.SlurmExecutor(
      workdir / points.JOBS / '%j', max_num_timeout=cluster.num_requeues
    )
    executor.update_parameters(
      **cluster.slurm,
      job_name='sweep',
      array_parallelism=parallel or len(commands),
    )
    try:
      submitted_jobs = executor.submit_array(list(commands.values()))
    except submitit_lib.FailedJobError as error:
      raise ValueError(
        f'expected sbatch to accept the jobs: {error}'
      ) from error
    new = [job.job_id for job in submitted_jobs]
    ids = dict(zip(commands, new, strict=True))
    rundir.write_json(path, {**submitted, **ids})
  for name, job_id in ids.items():
    print(f'{job_id} {name}')
  print(
    f'{len(ids)} of {len(plan.runs)} runs submitted; their logs are below '
    f'{path.parent}. --list shows them, --watch follows them.'
  )
  return ids


def _queued() -> set[str]:
  """Returns the ids of the user's jobs in Slurm's queue."""
  command = ('squeue', '--me', '--array', '--noheader', '--format=%i')
  options = {'capture_output': True, 'text': True, 'check': True, 'timeout': 60}
  try:
    return set(subprocess.run(command, **options).stdout.split())
  except (OSError, subprocess.SubprocessError) as error:
    raise ValueError(
      f'expected Slurm on this machine, but {" ".join(command)}: {error}; '
      '--dry_run shows the jobs without it'
    ) from error
