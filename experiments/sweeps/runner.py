"""Runs tasks, some at a time, until all have ended or a signal stops them."""

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys
import time
from typing import Any
from typing import NamedTuple
from typing import Protocol

from experiments.common import run as run_lib

LOGS = 'logs'
_POLL_S = 0.2


class Task(NamedTuple):
  """A process that trains one run, or several side by side."""

  name: str
  runs: tuple[str, ...]  # names
  command: tuple[str, ...]
  pack: str | None = None  # the folder of several runs
  slot: int = 0  # while it runs: a number below `jobs` that no other one has


class Process(Protocol):
  """What is started for a task."""

  def poll(self) -> int | None:
    """Returns the exit code, or None while it runs."""

  def terminate(self) -> None:
    """Asks it to save and to leave."""

  def kill(self) -> None:
    """Ends it at once."""


Start = Callable[[Task], Process]


class Outcome(NamedTuple):
  """How the tasks ended."""

  codes: dict[str, int]  # exit codes by task, of those that were started
  signal: int | None  # that stopped them


def run_all(
  tasks: Sequence[Task],
  start: Start,
  *,
  jobs: int,
  show: Callable[[dict[str, int], set[str]], None],
) -> Outcome:
  """Runs all tasks, at most `jobs` at a time, and returns how they ended.

  One that fails does not stop the others. SIGINT and SIGTERM ask all that run
  to save and to leave, and start no more; a further SIGINT kills them.

  Args:
    tasks: what to run, in this order.
    start: of a task.
    jobs: processes at a time.
    show: called again and again with the exit codes so far and the names of the
      tasks that run.
  """
  waiting = collections.deque(tasks)
  running: dict[str, Process] = {}
  slots: dict[str, int] = {}
  codes: dict[str, int] = {}
  is_told = False
  with run_lib.Interrupt() as interrupt:
    try:
      while running or (waiting and interrupt.signal is None):
        while waiting and len(running) < jobs and interrupt.signal is None:
          task = waiting.popleft()
          taken = {slots[name] for name in running}
          slots[task.name] = min(set(range(jobs)) - taken)
          running[task.name] = start(task._replace(slot=slots[task.name]))
        if interrupt.signal is not None and not is_told:
          is_told = True
          for process in running.values():
            process.terminate()
        for name, process in list(running.items()):
          if (code := process.poll()) is not None:
            codes[name] = code
            del running[name]
        show(codes, set(running))
        time.sleep(_POLL_S if running else 0)
    except BaseException:
      for process in running.values():
        process.kill()
      raise
    return Outcome(codes, interrupt.signal)


def start_process(
  workdir: pathlib.Path, lock: int, jobs: int, task: Task
) -> Process:
  """Starts a task on this machine; what it prints goes to its log.

  The GPUs of `CUDA_VISIBLE_DEVICES` are divided among the tasks that run at a
  time, if there are as many. The process is no part of the terminal's group, so
  that Ctrl-C reaches it once, through us; it holds the lock as long as it
  lives, should we be killed.
  """
  with log_of(workdir, task.name).open('ab') as log:
    return subprocess.Popen(
      task.command,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      env={**os.environ, **visible(os.environ, task.slot, jobs)},
      start_new_session=True,
      pass_fds=(lock,),
    )


def visible(
  environment: Mapping[str, str], slot: int, jobs: int
) -> dict[str, str]:
  """Returns which GPUs a task sees, as variables of its environment.

  Example:
    >>> visible({'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, slot=1, jobs=2)
    {'CUDA_VISIBLE_DEVICES': '1,3'}
    >>> visible({}, slot=1, jobs=2)
    {}
  """
  name = 'CUDA_VISIBLE_DEVICES'
  devices = [x for x in environment.get(name, '').split(',') if x]
  if len(devices) < jobs:
    return {}
  return {name: ','.join(devices[slot::jobs])}


def log_of(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns where a task prints to; its folder exists."""
  folder = pathlib.Path(workdir) / LOGS
  folder.mkdir(parents=True, exist_ok=True)
  return folder / f'{name}.log'


def last_line(path: pathlib.Path) -> str:
  """Returns the last line of a log that says something, or ''."""
  try:
    lines = path.read_text(errors='replace').splitlines()
  except OSError:
    return ''
  return next((line.strip() for line in reversed(lines) if line.strip()), '')


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Any:
  """A context in which no other process runs this folder's sweep.

  Yields:
    The descriptor of the lock; who inherits it holds it too.

  Raises:
    ValueError: If another one does.
  """
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  descriptor = os.open(workdir / '.lock', os.O_RDWR | os.O_CREAT)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise ValueError(
        f'expected {workdir} to be free, but a sweep runs in it, or runs that '
        'an earlier one started; wait for them or end them'
      ) from error
    yield descriptor
  finally:
    os.close(descriptor)


def python_command(script: pathlib.Path, *arguments: str) -> tuple[str, ...]:
  """Returns the command that runs a script as this one is run."""
  return (sys.executable, str(script), *arguments)
