"""Signals: save on SIGINT and SIGTERM, end with the parent process."""

import multiprocessing
import os
import signal
import sys
import threading
import types
from typing import Any

from experiments import multihost

CHILD = 'SPARSE_TRAINING_CHILD'  # set where standard input is the parent's pipe


class Interrupt:
  """A context in which SIGINT and SIGTERM only set a flag.

  The trainer reads the flag between chunks of steps. A second SIGINT raises
  `KeyboardInterrupt` at once. Only for the main thread.

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
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      # None: the previous handler was not installed from Python.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    self._previous.clear()

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if number == signal.SIGINT and self.signal is not None:
      raise KeyboardInterrupt
    self.signal = number


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
