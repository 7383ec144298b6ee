"""Trains the runs of a plan in other processes: children, or jobs."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

from experiments import interrupt as interrupt_lib
from experiments import rundir
from experiments.sweep import plan as plan_lib
from experiments.sweep import points
from experiments.sweep import run as run_lib
from experiments.sweep import status

_LAUNCH = pathlib.Path(__file__).parent.parent.parent / 'launch.py'
_POLL_S = 0.3


def train(
  plan: plan_lib.Plan,
  workdir: pathlib.Path,
  jobs: int,
  start: Callable[[plan_lib.Run, int], subprocess.Popen],
) -> int:
  """Trains the runs in processes, `jobs` at a time; returns the exit code.

  SIGINT and SIGTERM terminate the processes, which save; a second SIGINT kills
  them. `start` starts a run in a slot below `jobs` and returns its process.
  """
  found = {run.name: run_lib.ended(workdir, run) for run in plan.runs}
  endings = {name: ending for name, ending in found.items() if ending}
  waiting = collections.deque(r for r in plan.runs if r.name not in endings)
  running: dict[str, tuple[int, subprocess.Popen]] = {}
  with contextlib.ExitStack() as stack:
    stack.callback(rundir.lock(workdir).release)
    plan_lib.write(plan, workdir)
    interrupt = stack.enter_context(interrupt_lib.Interrupt())
    shown = stack.enter_context(status.Progress(len(plan.runs)))
    is_told = False
    try:
      while running or (waiting and interrupt.signal is None):
        while waiting and len(running) < jobs and interrupt.signal is None:
          run = waiting.popleft()
          slot = min(set(range(jobs)) - {slot for slot, _ in running.values()})
          running[run.name] = slot, start(run, slot)
        if interrupt.signal is not None and not is_told:
          is_told = True
          for _, process in running.values():
            process.terminate()
        for name, (_, process) in list(running.items()):
          if (code := process.poll()) is not None:
            endings[name] = _ending(_log(workdir, name), code)
            del running[name]
        states = run_lib.states(plan, workdir, endings)
        for name in running:
          states[name] = states[name]._replace(status='running')
        shown.update(states)
        time.sleep(_POLL_S if running else 0)
    except BaseException:
      for _, process in running.values():
        process.kill()
      raise
  if interrupt.signal is not None:
    status.report(run_lib.states(plan, workdir, endings))
    return run_lib.say_interrupted(interrupt.signal, 'the runs have saved')
  return run_lib.conclude(plan, workdir, endings)


@contextlib.contextmanager
def children(
  workdir: pathlib.Path, jobs: int
) -> Iterator[Callable[[plan_lib.Run, int], subprocess.Popen]]:
  """Yields a function that starts a run as a child process.

  Children print to `logs`, end with this process, and divide the GPUs of
  CUDA_VISIBLE_DEVICES if there are at least `jobs`. They have sessions of their
  own, so that Ctrl-C reaches them once, through this process.
  """
  reader, writer = os.pipe()

  def start(run: plan_lib.Run, slot: int) -> subprocess.Popen:
    log = _log(workdir, run.name)
    log.parent.mkdir(exist_ok=True)
    devices = visible_devices(os.environ, slot, jobs)
    with log.open('ab') as file:
      return subprocess.Popen(
        command(run, workdir),
        stdin=reader,
        stdout=file,
        stderr=subprocess.STDOUT,
        env={**os.environ, **devices, interrupt_lib.CHILD: '1'},
        start_new_session=True,
      )

  try:
    yield start
  finally:
    os.close(reader)
    os.close(writer)


def command(run: plan_lib.Run, workdir: pathlib.Path, *more: str) -> list[str]:
  """Returns the command that trains one run of a plan alone."""
  folder = f'--workdir={workdir / run.name}'
  return [sys.executable, str(_LAUNCH), *run.arguments, folder, *more]


def visible_devices(
  environment: Mapping[str, str], slot: int, jobs: int
) -> dict[str, str]:
  """Returns the GPUs of a process, as an environment variable.

  Example:
    >>> visible_devices({'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, slot=1, jobs=2)
    {'CUDA_VISIBLE_DEVICES': '1,3'}
    >>> visible_devices({}, slot=1, jobs=2)
    {}
  """
  name = 'CUDA_VISIBLE_DEVICES'
  devices = [x for x in environment.get(name, '').split(',') if x]
  return {name: ','.join(devices[slot::jobs])} if len(devices) >= jobs else {}


def _ending(log: pathlib.Path, code: int) -> run_lib.Ending:
  """Returns the ending of a process: the last line of its log says why."""
  if code in (0, run_lib.DIVERGED) or code > run_lib.SIGNALLED:
    return run_lib.Ending(code)
  if code < 0:
    why = f'ended by {signal.Signals(-code).name}'
  else:
    text = log.read_text(errors='replace') if log.exists() else ''
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    why = lines[-1] if lines else f'exit code {code}'
  return run_lib.Ending(run_lib.FAILED, f'{why}\n  {log}')


def _log(workdir: pathlib.Path, name: str) -> pathlib.Path:
  return workdir / points.LOGS / f'{name}.log'
