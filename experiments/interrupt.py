"""Signals: save on SIGINT and SIGTERM, end with the parent process."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from typing import Any

from experiments import multihost

CHILD = 'SPARSE_TRAINING_CHILD'  # set where standard input is the parent's pipe
FIRST = b'\nStopping after the current steps; Ctrl-C again ends at once.\n'
SECOND = b'\nEnded at once; the last checkpoint is whole.\n'


class Interrupt:
  """A context in which SIGINT and SIGTERM only set a flag.

  The trainer reads the flag between chunks of steps. SIGINT after another
  signal ends the process at once with code 130, even while a library compiles
  or writes. Only for the main thread.

  Attributes:
    signal: number of the signal received, or None.
  """

  def __init__(self):
    self.signal: int | None = None
    self._previous: dict[int, Any] = {}

  def agree(self) -> bool:
    """Returns True if a signal reached any process of the run."""
    number = multihost.largest(self.signal or 0)
    if number:
      self.signal = number
    return bool(number)

  def __enter__(self) -> 'Interrupt':
    # Python's handlers wait for library calls; this pipe is written at once.
    reader, self._pipe = os.pipe()
    os.set_blocking(self._pipe, False)
    self._outer = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(reader,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      # None: the previous handler was not installed from Python.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    self._previous.clear()
    signal.set_wakeup_fd(self._outer)
    os.close(self._pipe)  # ends the thread

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    self.signal = number


def _end_at_second(reader: int) -> None:
  """Ends the process on SIGINT after another signal; reads until closed."""
  seen = b''
  with open(reader, 'rb', buffering=0) as pipe:
    while new := pipe.read(64):
      seen += new
      is_second = signal.SIGINT in seen[1:]
      if is_second or seen[0] == signal.SIGINT:
        with contextlib.suppress(OSError):
          os.write(2, SECOND if is_second else FIRST)
      if is_second:
        os._exit(128 + signal.SIGINT)


def end_with_parent() -> None:
  """Ends this process when its parent ends, even by SIGKILL.

  The parent is that of `multiprocessing`, or sets the environment variable
  `CHILD` and holds the write end of this process's standard input, which the
  kernel closes when the parent ends.
  """
  parent = multiprocessing.parent_process()
  if parent is not None:
    wait = parent.join
  elif os.environ.pop(CHILD, None):
    wait = sys.stdin.buffer.raw.read
  else:
    return

  def follow() -> None:
    wait()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()
