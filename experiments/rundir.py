"""The folder of one run: config, status, summary and lock.

    config.json     format, version and config; written once
    status.json     running, done, diverged, interrupted or failed
    summary.json    results, device and library versions
    .lock           names the process that trains here

Files are replaced atomically. All is plain JSON; NaN and infinities are the
strings 'nan', 'inf' and '-inf', which `float` reads.
"""

from collections.abc import Mapping
import datetime
import fcntl
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import socket
import subprocess
import time
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from experiments import build
from experiments import multihost

FORMAT = 2
VERSION = '0.2.0'
STATUSES = ('running', 'done', 'diverged', 'interrupted', 'failed')
LOCK = '.lock'
PATIENCE = 3.0  # seconds; a killed process's children may hold a lock so long

_LIBRARIES = ('jax', 'jaxlib', 'dm-haiku', 'optax', 'numpy')
_FOLDERS = ('checkpoints', 'plots', 'tensorboard')
_FILES = (
  'config.json', 'status.json', 'summary.json', 'metrics.jsonl', LOCK,
)  # fmt: skip
_TEMPORARY = re.compile(r'\..+\.\d+\.tmp')
_Path = str | os.PathLike[str]


class FolderError(ValueError):
  """A run cannot use its folder; the message says why."""


class Lock(NamedTuple):
  """Exclusive use of a folder until `release`."""

  path: pathlib.Path
  descriptor: int

  def release(self) -> None:
    """Lets others use the folder; called once."""
    self.path.unlink(missing_ok=True)  # before anyone else can lock it
    os.close(self.descriptor)


def check(workdir: _Path, config: Mapping[str, Any]) -> None:
  """Raises FolderError unless a folder is free or of this config.

  The message lists the values that differ. Nothing is changed.
  """
  workdir = pathlib.Path(workdir)
  if not workdir.exists():
    return
  if not workdir.is_dir():
    raise FolderError(f'expected a folder for the run, got the file {workdir}')
  for path in workdir.iterdir():
    if path.is_symlink():
      raise FolderError(
        f'expected no link in a run folder, got {path}; link the whole folder'
      )
    if path.name in (_FILES if path.is_dir() else _FOLDERS):
      kind = 'file' if path.is_dir() else 'folder'
      raise FolderError(f'expected a {kind} at {path}; remove what is there')
  if not (workdir / 'config.json').exists():
    for path in workdir.iterdir():
      if path.name != LOCK and not _TEMPORARY.fullmatch(path.name):
        raise FolderError(
          f'expected a new or empty folder, or one with a config.json, but '
          f'{workdir} holds {path.name!r}; choose another'
        )
    return
  now = json.loads(to_json(config))
  if lines := build.differences(read_config(workdir), now):
    raise FolderError(
      f'{workdir} belongs to another config; choose another folder, or change '
      'back:\n  ' + '\n  '.join(lines)
    )


def create(workdir: _Path, config: Mapping[str, Any]) -> None:
  """Writes config.json after `check`; removes killed writers' files.

  The caller holds the lock.
  """
  check(workdir, config)
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  clean(workdir)
  if not (workdir / 'config.json').exists():
    value = {'format': FORMAT, 'version': VERSION, 'config': config}
    write_json(workdir / 'config.json', value)


def clean(workdir: _Path) -> None:
  """Removes killed writers' files; the caller holds the folder's lock."""
  workdir = pathlib.Path(workdir)
  for path in [*workdir.iterdir(), *workdir.glob('plots/*')]:
    if _TEMPORARY.fullmatch(path.name):
      path.unlink(missing_ok=True)


def read_config(workdir: _Path) -> dict[str, Any]:
  """Returns the config of a run; FolderError if damaged or too old."""
  path = pathlib.Path(workdir) / 'config.json'
  value = read_json(path)
  if not isinstance(value, dict):
    raise FolderError(f'expected a config in {path}, got {value!r}')
  if value.get('format') != FORMAT or 'config' not in value:
    version = value.get('version', '0.1')
    raise FolderError(
      f'{path.parent} was made by version {version} of this project, which '
      f'version {VERSION} cannot read; go on with that version, or choose '
      'another folder'
    )
  return value['config']


def write_status(workdir: _Path, status: str, **fields: Any) -> None:
  """Writes one of `STATUSES`, the time (UTC) and `fields`; on rank 0."""
  if multihost.is_first():
    value = {'status': status, 'updated': _now(), **fields}
    write_json(pathlib.Path(workdir) / 'status.json', value)


def read_status(workdir: _Path) -> dict[str, Any] | None:
  """Returns the content of status.json, or None if there is none."""
  path = pathlib.Path(workdir) / 'status.json'
  return read_json(path) if path.exists() else None


def write_summary(workdir: _Path, values: Mapping[str, Any]) -> None:
  """Writes summary.json: `values`, device and versions; on rank 0."""
  if not multihost.is_first():
    return
  first = jax.devices()[0]
  device = {'platform': first.platform, 'kind': first.device_kind}
  versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
  versions |= {'python': platform.python_version(), 'project': VERSION}
  value = {
    **values,
    'device': device | {'count': jax.device_count()},
    'versions': versions | {'git_commit': _git_commit()},
  }
  write_json(pathlib.Path(workdir) / 'summary.json', value)


def lock(workdir: _Path) -> Lock:
  """Returns the lock of a folder, which is created if absent.

  The kernel releases the lock of a killed process. Raises FolderError if
  another process holds it, and names that.
  """
  path = pathlib.Path(workdir) / LOCK
  path.parent.mkdir(parents=True, exist_ok=True)
  deadline = time.monotonic() + PATIENCE
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      holder = os.pread(descriptor, 4096, 0).decode(errors='replace').strip()
      os.close(descriptor)
      if time.monotonic() > deadline:
        raise FolderError(
          f'expected no other run in {path.parent}, but it is in use by '
          f'{holder or "another process"}; wait for it, stop it, or choose '
          'another folder'
        ) from error
      time.sleep(0.1)
      continue
    if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
      break
    os.close(descriptor)  # released and removed meanwhile
  who = f'process {os.getpid()} on {socket.gethostname()} since {_now()}\n'
  os.ftruncate(descriptor, 0)
  os.pwrite(descriptor, who.encode(), 0)
  return Lock(path, descriptor)


def is_locked(workdir: _Path) -> bool:
  """Returns whether a process holds the lock of a folder."""
  try:
    path = pathlib.Path(workdir) / LOCK
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
  except OSError:
    return False
  with os.fdopen(descriptor) as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
  return False


def to_json(value: Any, indent: int | None = None) -> str:
  """Returns `value` as JSON: arrays as lists, NaN and infinities as strings."""
  return json.dumps(_to_plain(value), indent=indent, allow_nan=False)


def write_json(path: _Path, value: Any) -> None:
  """Writes `value` as JSON, atomically."""
  write_bytes(path, (to_json(value, indent=2) + '\n').encode())


def write_bytes(path: _Path, content: bytes) -> None:
  """Writes `content` atomically: readers see the old file or the new one."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  temporary.unlink(missing_ok=True)
  try:
    with temporary.open('xb') as file:  # not through a link
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def out_file(path: _Path) -> pathlib.Path:
  """Returns the regular file that `--out` means, links followed."""
  path = pathlib.Path(path).expanduser().resolve()
  if path.exists() and not path.is_file():
    raise ValueError(f'expected --out=FILE, got {path}, which is not a file')
  return path


def user_path(path: str) -> pathlib.Path:
  """Returns a path of the command line, `~` expanded."""
  return pathlib.Path(path).expanduser()


def read_json(path: _Path) -> Any:
  """Returns the content of a JSON file; FolderError if it is not JSON."""
  try:
    return json.loads(pathlib.Path(path).read_text())
  except ValueError as error:  # neither JSON nor text
    raise FolderError(f'expected JSON in {path}, but: {error}') from error


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


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


def _git_commit() -> str | None:
  """Returns this code's commit, `-dirty` if changed; None if no checkout."""
  file = pathlib.Path(__file__)
  git = ['git', '-C', str(file.parent)]
  options = {'capture_output': True, 'text': True, 'check': True, 'timeout': 10}
  describe = ('describe', '--always', '--dirty', '--abbrev=40', '--exclude=*')
  try:
    # Installed code may lie inside an unrelated checkout.
    subprocess.run([*git, 'ls-files', '--error-unmatch', file.name], **options)
    return subprocess.run([*git, *describe], **options).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return None
