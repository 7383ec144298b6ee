"""A command as the function of a job of submitit.

It is loaded in every process of every job: there is nothing of JAX here.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import signal
import subprocess
import time
from typing import Any

from submitit.core import utils as submitit_lib

_POLL_S = 0.1


@contextlib.contextmanager
def blocked(number: int) -> Iterator[None]:
  """A context in which a signal waits; what is started in it never gets it."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Command:
  """A command that saves when its job has to go, and then goes on.

  Slurm sends SIGUSR2 some time before a job is preempted or its time is over:
  the command gets SIGTERM, on which it saves and leaves, and the job is queued
  again with the same command. On SIGTERM it saves and leaves as well.

  Example:
    >>> Command(('true',))()
    0
  """

  def __init__(self, command: Sequence[str]):
    self._command = tuple(command)
    self._process: subprocess.Popen | None = None

  def __call__(self) -> int:
    """Runs it, in this environment; returns the exit code."""
    previous = signal.signal(signal.SIGTERM, lambda *_: self._terminate())
    try:
      # The signals of the job are ours to pass on, whoever of it gets them.
      with blocked(signal.SIGUSR2):
        self._process = subprocess.Popen(self._command, start_new_session=True)
      # Not `wait`, whose lock `checkpoint` would find taken: it is called from
      # a signal's handler.
      while self._process.poll() is None:
        time.sleep(_POLL_S)
      return self._process.returncode
    finally:
      signal.signal(signal.SIGTERM, previous)

  def checkpoint(self) -> submitit_lib.DelayedSubmission:
    """Lets the run save and end; returns what is queued: the same command."""
    if self._process is not None:
      self._terminate()
      os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
    return submitit_lib.DelayedSubmission(Command(self._command))

  def _terminate(self) -> None:
    if self._process is not None:
      self._process.terminate()

  def __getstate__(self) -> dict[str, Any]:
    return {'_command': self._command, '_process': None}
