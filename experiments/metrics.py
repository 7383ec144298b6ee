"""Metrics of a run: JSON lines, and the same numbers for TensorBoard.

    metrics.jsonl    {"step": 100, "split": "train", "loss": 0.3}
    tensorboard/     event files, one for each session of the run

Rows hold no time stamps: the file of a resumed run equals that of an
uninterrupted one, byte for byte. NaN and infinities are the strings `'nan'`,
`'inf'` and `'-inf'`; `read` turns them back into floats.
"""

from collections.abc import Mapping
import contextlib
import json
import os
import pathlib
import time
from typing import Any

import numpy as np
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2

from experiments import multihost
from experiments import rundir

FILE = 'metrics.jsonl'
FLUSH_EVERY = 10.0  # seconds of events that TensorBoard is behind

_EVENTS = 'events.out.tfevents.{}'
_NOT_FINITE = ('nan', 'inf', '-inf')


class Writer:
  """Appends rows to metrics.jsonl and to TensorBoard's events.

  On resume, rows after the restored checkpoint's step are discarded: write the
  rows of a step before its checkpoint. Of several processes only the first
  writes.
  """

  def __init__(self, workdir: str | os.PathLike[str], resume_from: int | None):
    """Opens the files.

    Args:
      workdir: The run folder.
      resume_from: The restored step; rows of later steps are discarded. None
        discards all.

    Raises:
      ValueError: If a line other than the last is not a row.
      OSError: If a file cannot be written.
    """
    self._rows = self._events = None
    with contextlib.ExitStack() as files:
      if multihost.is_first():
        last_step = -1 if resume_from is None else resume_from
        path = pathlib.Path(workdir) / FILE
        if path.exists():
          _truncate(path, last_step)
        self._rows = files.enter_context(path.open('a', encoding='utf-8'))
        self._events = _Events(path.parent / 'tensorboard', last_step + 1)
        files.callback(self._events.close)
      self._files = files.pop_all()

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Writes one row.

    Args:
      step: Of the whole run.
      row: Numbers, strings and lists; numbers go to TensorBoard too, under
        `split/name` if there is a split.

    Raises:
      ValueError: If the row has a `step` of its own.
      OSError: If it cannot be written.
    """
    if 'step' in row:
      raise ValueError("expected a row without 'step', got one; leave it out")
    if self._rows is not None:
      self._rows.write(rundir.to_json({'step': int(step), **row}) + '\n')
      self._rows.flush()
    self.write_scalars(step, row)

  def write_scalars(self, step: int, row: Mapping[str, Any]) -> None:
    """Writes the numbers of a row to TensorBoard only, such as times.

    Raises:
      OSError: If they cannot be written.
    """
    if self._events is None:
      return
    prefix = f'{row["split"]}/' if 'split' in row else ''
    scalars = {
      prefix + name: float(value)
      for name, value in row.items()
      if _is_number(value)
    }
    self._events.write(step, scalars)

  def close(self) -> None:
    """Flushes and closes the files.

    Raises:
      OSError: If something cannot be written.
    """
    self._files.close()


class _Events:
  """Writes an event file in the caller's thread, where its errors are seen."""

  def __init__(self, folder: pathlib.Path, purge_step: int):
    """Opens a new file, from which on events since `purge_step` count anew."""
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files in the order of their names.
    last = max(folder.glob(_EVENTS.format('[0-9]' * 6)), default=None)
    session = 0 if last is None else int(last.suffix[1:]) + 1
    path = folder / _EVENTS.format(f'{session:06d}')
    self._file = record_writer.RecordWriter(str(path))
    self._flushed = 0.0
    self._write(file_version='brain.Event:2')
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(step=purge_step, session_log=start)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes the scalars of a step, as one event."""
    if not scalars:
      return
    value = [
      summary_pb2.Summary.Value(tag=tag, simple_value=scalar)
      for tag, scalar in scalars.items()
    ]
    self._write(step=step, summary=summary_pb2.Summary(value=value))
    if time.monotonic() - self._flushed > FLUSH_EVERY:
      self._flushed = time.monotonic()
      self._file.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._file.close()

  def _write(self, **fields: Any) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    self._file.write(event.SerializeToString())


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the rows of a run, without a last line that is half written.

  The strings `'nan'`, `'inf'` and `'-inf'` are returned as floats.

  Raises:
    ValueError: If a line other than the last is not a row.
  """
  path = pathlib.Path(workdir) / FILE
  return [_with_floats(row) for _, row in _parse(path)]


def _truncate(path: pathlib.Path, last_step: int) -> None:
  """Removes the rows after a step; the file is replaced atomically."""
  kept = [line for line, row in _parse(path) if row['step'] <= last_step]
  content = b''.join(kept)
  if content != path.read_bytes():
    rundir.write_bytes(path, content)


def _parse(path: pathlib.Path) -> list[tuple[bytes, dict[str, Any]]]:
  """Returns the complete lines of a file, each with its row."""
  lines = path.read_bytes().splitlines(keepends=True)
  rows = []
  for number, line in enumerate(lines, 1):
    if not line.endswith(b'\n'):
      break
    row = _parse_line(line)
    if row is not None:
      rows.append((line, row))
    elif number < len(lines):
      raise rundir.FolderError(
        f"expected a JSON object with 'step' in {path}, line {number}; got "
        f'{line[:80]!r}'
      )
  return rows


def _parse_line(line: bytes) -> dict[str, Any] | None:
  """Returns the row in a line, None if there is none."""
  try:
    row = json.loads(line)
  except ValueError:
    return None
  has_step = isinstance(row, dict) and isinstance(row.get('step'), int)
  return row if has_step else None


def _with_floats(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _with_floats(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_with_floats(item) for item in value]
  if isinstance(value, str) and value in _NOT_FINITE:
    return float(value)
  return value


def _is_number(value: Any) -> bool:
  if isinstance(value, (str, list, tuple, dict)) or value is None:
    return False
  array = np.asarray(value)
  return array.ndim == 0 and array.dtype.kind in 'biufV'  # V: bfloat16
