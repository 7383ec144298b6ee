"""One run in one folder: the lock of a folder, by host and process.

The file `.lock` names who has it. On one host the operating system knows
whether that process is alive (`flock`), so a lock left behind by a process that
was killed does not count. From another host that cannot always be known: the
holder touches the file every few seconds, and what is not touched for a while
is left behind. No two clocks are compared.
"""

import datetime
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from typing import Any

FILE = '.lock'
BEAT = 5.0  # seconds from one touch to the next
PATIENCE = 30.0  # seconds without a touch: left behind
_DYING = 5.0  # seconds in which the children of a killed process end


class Lock:
  """A folder's lock, held until `release`."""

  def __init__(self, path: pathlib.Path, descriptor: int):
    self._path, self._descriptor = path, descriptor
    self._released = threading.Event()
    self._beat = threading.Thread(target=self._touch, daemon=True)
    self._beat.start()

  def release(self) -> None:
    """Lets others have the folder."""
    if not self._released.is_set():
      self._released.set()
      self._beat.join()
      self._path.unlink(missing_ok=True)  # first: nobody else has it yet
      os.close(self._descriptor)

  def _touch(self) -> None:
    while not self._released.wait(BEAT):
      os.utime(self._descriptor)


def acquire(
  folder: str | os.PathLike[str], *, patience: float = PATIENCE
) -> Lock:
  """Returns the lock of a folder, which is created if absent.

  Args:
    folder: that no other run may use.
    patience: seconds after which a lock of another host that was not touched is
      left behind.

  Raises:
    ValueError: If a process has it that is not known to have ended; the message
      names its host, its number and since when.
  """
  path = pathlib.Path(folder) / FILE
  path.parent.mkdir(parents=True, exist_ok=True)
  descriptor = _open_locked(path)
  try:
    holder = _read(descriptor)
    if holder and holder.get('host') != socket.gethostname():
      _check_left_behind(path, descriptor, holder, patience)
    _write(descriptor)
  except BaseException:
    os.close(descriptor)
    raise
  return Lock(path, descriptor)


def _open_locked(path: pathlib.Path) -> int:
  """Returns the descriptor of the file, locked against processes here."""
  deadline = time.monotonic() + _DYING
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      holder = _read(descriptor)
      os.close(descriptor)
      if not _is_dead(holder) or time.monotonic() > deadline:
        raise _refusal(path, holder) from error
      time.sleep(0.1)
      continue
    if _is_at(path, descriptor):
      return descriptor
    os.close(descriptor)  # its holder removed it meanwhile


def _check_left_behind(path, descriptor, holder, patience: float) -> None:
  """Raises if a file that another host left is touched while we look."""
  touched, deadline = os.fstat(descriptor).st_mtime_ns, time.monotonic()
  deadline += patience
  while time.monotonic() < deadline:
    time.sleep(min(0.5, patience))
    if not _is_at(path, descriptor):
      raise _refusal(path, holder)
    if os.fstat(descriptor).st_mtime_ns != touched:
      raise _refusal(path, holder)


def _refusal(path: pathlib.Path, holder: dict[str, Any]) -> ValueError:
  who = 'process {pid} on {host} since {since}'.format_map(
    {'pid': '?', 'host': '?', 'since': '?', **holder}
  )
  return ValueError(
    f'expected no other run in {path.parent}, but {who} is at work there; wait '
    'for it or stop it, or choose another folder'
  )


def _is_dead(holder: dict[str, Any]) -> bool:
  """Returns whether the holder was a process of this host and is no more."""
  pid = holder.get('pid')
  if holder.get('host') != socket.gethostname() or not isinstance(pid, int):
    return False
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return True
  except PermissionError:
    pass
  return False


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
  try:
    return os.path.samestat(os.stat(path), os.fstat(descriptor))
  except FileNotFoundError:
    return False


def _read(descriptor: int) -> dict[str, Any]:
  """Returns what the file says; nothing if it is empty or half written."""
  try:
    holder = json.loads(os.pread(descriptor, 4096, 0))
  except ValueError:
    return {}
  return holder if isinstance(holder, dict) else {}


def _write(descriptor: int) -> None:
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  holder = {'host': socket.gethostname(), 'pid': os.getpid(), 'since': now}
  os.ftruncate(descriptor, 0)
  os.pwrite(descriptor, (json.dumps(holder) + '\n').encode(), 0)
