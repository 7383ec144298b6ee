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
import logging
import os
import pathlib
import time
from typing import Any

from tensorboardX import record_writer
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2

from experiments import rundir

FILE = 'metrics.jsonl'
FLUSH_EVERY = 10.0  # seconds by which TensorBoard's events lag

_logger = logging.getLogger(__name__)
_NOT_FINITE = ('nan', 'inf', '-inf')


class Writer(contextlib.AbstractContextManager):
  """Appends rows to metrics.jsonl and to TensorBoard's events.

  Write the rows of a step before its checkpoint: on resume, rows after the
  restored step are discarded. Errors are raised in the caller, with no thread
  in between.
  """

  def __init__(self, workdir: str | os.PathLike[str], resume_from: int):
    """Opens the files of a run folder, and discards the rows after a step.

    If those before it are gone, this is logged, and a row of the split 'lost'
    says so.
    """
    path = pathlib.Path(workdir) / FILE
    last = _truncate(path, resume_from) if path.exists() else 0
    with contextlib.ExitStack() as files:
      self._rows = files.enter_context(path.open('a', encoding='utf-8'))
      self._events = record_writer.RecordWriter(str(_new_events(path.parent)))
      files.callback(self._events.close)
      self._flushed = 0.0
      self._write_event(file_version='brain.Event:2')
      # TensorBoard drops the events of earlier sessions from this step on.
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write_event(step=resume_from + 1, session_log=start)
      self._files = files.pop_all()
    if last < resume_from:
      _logger.warning(
        '%s has no rows of steps %d to %d: they were deleted', path, last + 1,
        resume_from,
      )  # fmt: skip
      self.write(resume_from, {'split': 'lost', 'first': last + 1})

  def __exit__(self, *exception: object) -> None:
    self._files.close()

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Writes one row of numbers, strings and lists at a global step.

    TensorBoard gets the numbers, under `split/name` if there is a split.
    """
    self._rows.write(rundir.to_json({'step': int(step), **row}) + '\n')
    self._rows.flush()
    prefix = f'{row["split"]}/' if 'split' in row else ''
    scalars = [
      summary_pb2.Summary.Value(tag=prefix + name, simple_value=float(value))
      for name, value in row.items()
      if isinstance(value, int | float) or getattr(value, 'ndim', None) == 0
    ]
    self._write_event(step=step, summary=summary_pb2.Summary(value=scalars))
    if time.monotonic() - self._flushed > FLUSH_EVERY:
      self._flushed = time.monotonic()
      self._events.flush()

  def _write_event(self, **fields: Any) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    self._events.write(event.SerializeToString())


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the rows of a run, without a last line that is half written."""
  rows = _parse(pathlib.Path(workdir) / FILE)
  return [_with_floats(row) for _, row in rows]


def _new_events(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the path of the next event file; TensorBoard sorts by name."""
  folder = workdir / 'tensorboard'
  folder.mkdir(exist_ok=True)
  last = max(folder.glob('events.out.tfevents.*'), default=None)
  session = 0 if last is None else int(last.suffix[1:]) + 1
  return folder / f'events.out.tfevents.{session:06d}'


def _truncate(path: pathlib.Path, last_step: int) -> int:
  """Removes the rows after a step, atomically; returns the last step left."""
  kept = [item for item in _parse(path) if item[1]['step'] <= last_step]
  content = b''.join(line for line, _ in kept)
  if content != path.read_bytes():
    rundir.write_bytes(path, content)
  return max((row['step'] for _, row in kept), default=0)


def _parse(path: pathlib.Path) -> list[tuple[bytes, dict[str, Any]]]:
  """Returns the complete lines of a file, each with its row."""
  lines = path.read_bytes().splitlines(keepends=True)
  rows = []
  for number, line in enumerate(lines, 1):
    if not line.endswith(b'\n'):
      break
    try:
      row = json.loads(line)
      is_row = isinstance(row['step'], int)
    except (KeyError, TypeError, ValueError):
      is_row = False
    if is_row:
      rows.append((line, row))
    elif number < len(lines):
      raise rundir.FolderError(
        f"expected a JSON object with 'step' in {path}, line {number}; got "
        f'{line[:80]!r}'
      )
  return rows


def _with_floats(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _with_floats(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_with_floats(item) for item in value]
  if isinstance(value, str) and value in _NOT_FINITE:
    return float(value)
  return value
