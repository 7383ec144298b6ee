"""How far a run is, from the files of its folder alone."""

import json
import os
import pathlib
from typing import Any
from typing import NamedTuple

from experiments.common import metrics as metrics_lib
from experiments.common import run as run_lib

WAITING = 'waiting'
# There is nothing left to do for the run.
ENDED = ('done', 'diverged')

# What tells most of an evaluation, the first that there is.
FIGURES = ('accuracy', 'bits_per_character', 'perplexity', 'loss')

_TAIL = 64 * 1024  # bytes at the end of the metrics that are looked at


class State(NamedTuple):
  """Where a run is."""

  status: str  # one of `run.STATUSES`, or 'waiting'
  step: int = 0  # the last with metrics
  total: int | None = None  # steps of the whole run, if they are known
  figure: str = ''  # such as 'accuracy 0.9781'
  message: str = ''  # why it failed


def read(
  folder: str | os.PathLike[str],
  pack: str | os.PathLike[str] | None = None,
  number: int = 0,
) -> State:
  """Returns the state of a run.

  A run whose results were not written any more is not done yet. A file that
  cannot be read is a run that failed, with the reason.

  Args:
    folder: of the run; need not exist.
    pack: the folder that has the run's metrics while it is trained in a pack.
    number: of the run in it.
  """
  folder = pathlib.Path(folder)
  try:
    found = run_lib.Run(folder).read_status()
  except ValueError as error:
    return State('failed', message=str(error))
  if found is None:
    return State(WAITING)
  if not isinstance(found, dict) or found.get('status') not in run_lib.STATUSES:
    return State('failed', message=f'not a status: {found!r:.100}')
  status = found['status']
  if status == 'done' and not (folder / 'summary.json').exists():
    status = 'interrupted'
  rows = _last_rows(folder / metrics_lib.FILE)
  if pack and not rows:
    found_there = _last_rows(pathlib.Path(pack) / metrics_lib.FILE)
    rows = [row for row in found_there if row['run'] == number]
  reached = [row['global_step'] for row in rows[-1:]]
  return State(
    status,
    max([*reached, found.get('global_step') or 0]),
    found.get('total_steps'),
    _figure(rows),
    found.get('message') or '',
  )


def _last_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the last rows of metrics; what is half written is left out."""
  try:
    with path.open('rb') as file:
      file.seek(max(0, path.stat().st_size - _TAIL))
      lines = file.read().splitlines()
  except OSError:
    return []
  rows = []
  for line in lines:
    try:
      row = json.loads(line)
    except ValueError:
      continue  # the first may be cut in two, the last be half written
    if isinstance(row, dict) and isinstance(row.get('global_step'), int):
      rows.append(row)
  return rows


def _figure(rows: list[dict[str, Any]]) -> str:
  """Returns the last figure of an evaluation, or else the last loss."""
  evaluated = [r for r in rows if r.get('split') in ('validation', 'test')]
  trained = [r for r in rows if r.get('split') == 'train']
  for row in (*evaluated[-1:], *trained[-1:]):
    for name in FIGURES:
      if name in row:
        return f'{name.replace("_", " ")} {float(row[name]):.4g}'
  return ''
