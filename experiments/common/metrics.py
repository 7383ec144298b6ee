"""Metrics: one JSON object a line, and the same for TensorBoard.

    metrics.jsonl              {"global_step": 100, "alpha": 2.0, "loss": 0.3}
    tensorboard/alpha=2.0/     events, one folder for each member of the run

Rows hold no time stamps, so a run that was interrupted and resumed has the same
file as one that was not, byte for byte. NaN and infinities are the strings
`'nan'`, `'inf'` and `'-inf'`; `read` turns them back.
"""

from collections.abc import Mapping
import json
import logging
import os
import pathlib
import threading
from typing import Any

import numpy as np
import tensorboardX

from experiments.common import run

FILE = 'metrics.jsonl'

_NOT_FINITE = ('nan', 'inf', '-inf')

# It warns of each NaN; whether that is a failure is for the run to say.
logging.getLogger('tensorboardX.x2num').setLevel(logging.ERROR)


class Writer:
  """Appends rows to metrics.jsonl, and their numbers to TensorBoard's events.

  A row is for ever only if a checkpoint of its step or a later one exists:
  resuming drops the rest, a half-written last line among it. Write a step's
  rows before its checkpoint.
  """

  def __init__(self, workdir: str | os.PathLike[str], resume_from: int | None):
    """Opens the file.

    Args:
      workdir: Where metrics.jsonl and tensorboard/ are, or will be.
      resume_from: Rows of a later global step are dropped; None drops all.

    Raises:
      ValueError: If a line other than the last is not a row.
    """
    self._workdir = pathlib.Path(workdir)
    self._resume_from = -1 if resume_from is None else resume_from
    self._boards: dict[str, tensorboardX.SummaryWriter] = {}
    path = self._workdir / FILE
    if path.exists():
      _truncate(path, self._resume_from)
    self._file = path.open('a', encoding='utf-8')
    # TensorBoard's events are written by threads, whose errors nobody sees.
    self._failure: OSError | None = None
    self._hook = threading.excepthook
    threading.excepthook = self._note

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(
    self,
    global_step: int,
    values: Mapping[str, Any],
    *,
    member: Mapping[str, Any] | None = None,
  ) -> None:
    """Writes one row: the global step, the fields of `member`, and `values`.

    Args:
      global_step: The position in the whole run.
      values: Numbers, strings and lists; the numbers go to TensorBoard too,
        over the member's own step if there is a `'step'` among them.
      member: What distinguishes one of several trainings in this run, such as
        `{'alpha': 2.0, 'seed': 0}`.

    Raises:
      ValueError: If a field is given twice.
      OSError: If it, or one before, cannot be written.
    """
    if self._failure is not None:
      raise self._failure
    member = member or {}
    twice = ({'global_step'} | member.keys()) & values.keys()
    if twice or 'global_step' in member:
      raise ValueError(
        f'expected each field once, got {sorted(twice) or "global_step"} twice'
      )
    row = {'global_step': int(global_step), **member, **values}
    self._file.write(run.to_json(row) + '\n')
    self._file.flush()
    self.write_scalars(global_step, values, member=member)

  def write_scalars(
    self,
    global_step: int,
    values: Mapping[str, Any],
    *,
    member: Mapping[str, Any] | None = None,
  ) -> None:
    """Writes the numbers among `values` to TensorBoard only: for times."""
    step = int(values.get('step', global_step))
    board = self._board(member or {}, global_step, step)
    for tag, value in values.items():
      if tag != 'step' and _is_number(value):
        board.add_scalar(tag, float(value), step)

  def close(self) -> None:
    """Writes out and closes everything.

    Raises:
      OSError: If something could not be written.
    """
    # A thread that ended with an error would be waited for without end, and one
    # that still has it before it would print it: these are left.
    self._file.close()
    if self._failure is not None:
      raise self._failure
    for board in self._boards.values():
      board.close()
    self._boards.clear()
    threading.excepthook = self._hook

  def _note(self, args: Any) -> None:
    if isinstance(args.exc_value, OSError):
      self._failure = args.exc_value
    else:
      self._hook(args)

  def _board(
    self, member: Mapping[str, Any], global_step: int, step: int
  ) -> tensorboardX.SummaryWriter:
    name = ','.join(f'{key}={value}' for key, value in member.items())
    name = name.replace('/', '_')
    if name not in self._boards:
      # TensorBoard forgets what an earlier process wrote from this step on.
      offset = global_step - step
      self._boards[name] = tensorboardX.SummaryWriter(
        str(self._workdir / 'tensorboard' / name),
        purge_step=max(0, self._resume_from + 1 - offset),
      )
    return self._boards[name]


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the rows of a run; a last line still being written is left out.

  The strings `'nan'`, `'inf'` and `'-inf'` are returned as floats.

  Raises:
    ValueError: If a line other than the last is not a row.
  """
  path = pathlib.Path(workdir) / FILE
  return [_restore(row) for _, row in _rows(path)]


def _truncate(path: pathlib.Path, last_step: int) -> None:
  kept = [line for line, row in _rows(path) if row['global_step'] <= last_step]
  content = b''.join(kept)
  if content != path.read_bytes():
    run.write_bytes(path, content)


def _rows(path: pathlib.Path) -> list[tuple[bytes, dict[str, Any]]]:
  """Returns the whole lines of a file, each with the row it holds."""
  lines = path.read_bytes().splitlines(keepends=True)
  rows = []
  for number, line in enumerate(lines, 1):
    if not line.endswith(b'\n'):
      break
    row = _parse(line)
    if row is not None:
      rows.append((line, row))
    elif number < len(lines):
      raise run.FolderError(
        f"expected a JSON object with 'global_step' in {path}, line {number}; "
        f'got {line[:80]!r}'
      )
  return rows


def _parse(line: bytes) -> dict[str, Any] | None:
  try:
    row = json.loads(line)
  except ValueError:
    return None
  has_step = isinstance(row, dict) and isinstance(row.get('global_step'), int)
  return row if has_step else None


def _restore(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _restore(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_restore(item) for item in value]
  if isinstance(value, str) and value in _NOT_FINITE:
    return float(value)
  return value


def _is_number(value: Any) -> bool:
  if isinstance(value, (str, list, tuple, dict)) or value is None:
    return False
  array = np.asarray(value)
  return array.ndim == 0 and array.dtype.kind in 'biufV'  # V: bfloat16
