"""The run directory: what was run, how far it came, and how it ended.

    config.json     the config, written once; a folder belongs to one config
    status.json     running, done, diverged, interrupted or failed
    summary.json    the results, with the device and the versions behind them

Every file is replaced as a whole or not at all. All is plain JSON; the numbers
that JSON does not know are the strings `'nan'`, `'inf'` and `'-inf'`, which
`float` reads.
"""

from collections.abc import Mapping
import datetime
import functools
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import signal
import subprocess
import threading
import types
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from experiments.common import build
from experiments.common import lock
from experiments.common import processes

STATUSES = ('running', 'done', 'diverged', 'interrupted', 'failed')

_LIBRARIES = ('jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy')


class FolderError(ValueError):
  """A run cannot go on from what its folder holds; the message says why."""


class Run(NamedTuple):
  """An opened run directory."""

  workdir: pathlib.Path

  def write_status(self, status: str, **fields: Any) -> None:
    """Writes status.json: the status, the time (UTC), and `fields`.

    Raises:
      ValueError: If `status` is not one of `STATUSES`.
    """
    if status not in STATUSES:
      raise ValueError(f'expected a status of {STATUSES}, got {status!r}')
    if not processes.is_first():
      return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    value = {'status': status, 'updated': now, **fields}
    write_json(self.workdir / 'status.json', value)

  def read_status(self) -> dict[str, Any] | None:
    """Returns what status.json holds, or None if there is none yet."""
    path = self.workdir / 'status.json'
    return read_json(path) if path.exists() else None

  def write_summary(self, values: Mapping[str, Any]) -> None:
    """Writes summary.json: `values`, the device, and the versions."""
    value = {**values, 'device': device(), 'versions': versions()}
    write_json(self.workdir / 'summary.json', value)


def open_run(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> Run:
  """Returns the run at `workdir`, new or to be resumed.

  A folder that is absent or empty becomes this config's; a folder that already
  is this config's is resumed. Nothing else is touched.

  Raises:
    ValueError: As `check_workdir` does; nothing is changed then.
  """
  check_workdir(workdir, config)
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  if not (workdir / 'config.json').exists():
    write_json(workdir / 'config.json', config)
  return Run(workdir)


def check_workdir(
  workdir: str | os.PathLike[str], config: Mapping[str, Any]
) -> None:
  """Checks that `workdir` is free or this config's; changes nothing.

  Raises:
    ValueError: If it is a file, holds something else, or belongs to another
      config; then what differs is listed.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / 'config.json'
  if not workdir.exists():
    return
  if not workdir.is_dir():
    raise ValueError(f'expected a folder for the run, got the file {workdir}')
  if not path.exists():
    # A process that was killed in its first write may leave a temporary file.
    others = [
      p
      for p in workdir.iterdir()
      if not _is_temporary(p, path) and p.name != lock.FILE
    ]
    if others:
      raise ValueError(
        f'expected a new or empty folder, or one with a config.json, but '
        f'{workdir} has none and holds {others[0].name!r}; choose another'
      )
    return
  there = read_json(path)
  now = json.loads(to_json(config))
  if not isinstance(there, dict):
    raise ValueError(f'expected {path} to hold a config, got {there!r}')
  differences = build.differences(there, now)
  if differences:
    lines = '\n  '.join(differences)
    raise ValueError(
      f'{workdir} belongs to another config; choose another folder, or '
      f'change back:\n  {lines}'
    )


def to_json(value: Any, indent: int | None = None) -> str:
  """Returns `value` as JSON: arrays as lists, NaN and infinities as strings.

  Example:
    >>> to_json({'loss': np.float32(0.5), 'bad': [math.nan, -math.inf]})
    '{"loss": 0.5, "bad": ["nan", "-inf"]}'

  Raises:
    TypeError: If `value` holds something that is not plain data.
  """
  return json.dumps(_to_plain(value), indent=indent, allow_nan=False)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Writes `value` as JSON, atomically: a reader sees the old or the new."""
  write_bytes(path, (to_json(value, indent=2) + '\n').encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
  """Writes `content` atomically: a reader sees the old or the new."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with temporary.open('wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def read_json(path: str | os.PathLike[str]) -> Any:
  """Returns what a JSON file holds.

  Raises:
    ValueError: If it is not JSON.
  """
  try:
    return json.loads(pathlib.Path(path).read_text())
  except ValueError as error:  # Not JSON, or not even text.
    raise ValueError(f'expected JSON in {path}, but: {error}') from error


def device() -> dict[str, Any]:
  """Returns the platform, the kind and the number of JAX's devices."""
  devices = jax.devices()
  return {
    'platform': devices[0].platform,
    'kind': devices[0].device_kind,
    'count': len(devices),
  }


@functools.cache
def versions() -> types.MappingProxyType[str, str | None]:
  """Returns the versions behind a result; None where there is no telling."""
  installed = importlib.metadata.packages_distributions().get('powerprop')
  return types.MappingProxyType(
    {
      'python': platform.python_version(),
      **{name: _version(name) for name in _LIBRARIES},
      'project': _version(installed[0]) if installed else None,
      'git_commit': _git_commit(),
    }
  )


class Interrupt:
  """A context in which SIGINT and SIGTERM only set a flag.

  The loop reads `signal` between chunks, and saves and leaves when it is set. A
  further SIGINT raises `KeyboardInterrupt` at once. Outside the main thread,
  where Python allows no handlers, the flag stays None.

  Attributes:
    signal: The number of the signal received, or None.
  """

  def __init__(self):
    self.signal: int | None = None
    self._previous: dict[int, Any] = {}

  def agree(self) -> bool:
    """Returns whether a signal came, to any of the processes of a run."""
    number = processes.largest(self.signal or 0)
    if number:
      self.signal = number
    return bool(number)

  def __enter__(self) -> 'Interrupt':
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      # None: a handler that was not installed from Python; it is lost.
      signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    self._previous.clear()

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if number == signal.SIGINT and self.signal is not None:
      raise KeyboardInterrupt
    self.signal = number


def _to_plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(key): _to_plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_to_plain(item) for item in value]
  if isinstance(value, (np.ndarray, np.generic, jax.Array)):
    return _to_plain(np.asarray(value).tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def _is_temporary(path: pathlib.Path, of: pathlib.Path) -> bool:
  return path.name.startswith(f'.{of.name}.') and path.suffix == '.tmp'


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def _git_commit() -> str | None:
  """Returns this code's commit, `-dirty` if changed; None if no checkout."""
  file = pathlib.Path(__file__)
  try:
    # Installed code may lie inside a checkout of something else.
    _git(file.parent, 'ls-files', '--error-unmatch', file.name)
    return _git(
      file.parent, 'describe', '--always', '--dirty', '--abbrev=40',
      '--exclude=*',
    )  # fmt: skip
  except (OSError, subprocess.SubprocessError):
    return None


def _git(folder: pathlib.Path, *arguments: str) -> str:
  completed = subprocess.run(
    ('git', '-C', str(folder), *arguments),
    capture_output=True,
    text=True,
    check=True,
    timeout=10,
  )
  return completed.stdout.strip()
