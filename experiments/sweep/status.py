"""States of a plan's runs, read from their folders and shown live."""

from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import json
import os
import pathlib
import time
from typing import Any
from typing import NamedTuple

import rich.console
import rich.progress

from experiments import metrics
from experiments import progress
from experiments import rundir

ENDED = ('done', 'diverged')  # nothing is left to train
ORDER = ('running', 'failed', 'diverged', 'interrupted', 'waiting', 'done')
_METRICS = ('accuracy', 'bits_per_character', 'perplexity', 'loss')
_TAIL = 64 * 1024  # bytes read at the end of the metrics


class State(NamedTuple):
  """Status and progress of a run."""

  status: str  # one of `rundir.STATUSES`, or 'waiting'
  step: int = 0
  total_steps: int | None = None
  metric: str = ''  # of the last evaluation, such as 'accuracy 0.9781'
  message: str = ''


def read(folder: str | os.PathLike[str]) -> State:
  """Returns the state of a run.

  A run is 'interrupted' if its process was killed, and 'failed' if its folder
  cannot be read.
  """
  folder = pathlib.Path(folder)
  try:
    found = rundir.read_status(folder)
  except ValueError as error:
    return State('failed', message=str(error))
  if found is None:
    return State('waiting')
  if not isinstance(found, dict) or found.get('status') not in rundir.STATUSES:
    return State('failed', message=f'unknown status: {found!r:.100}')
  status = found['status']
  if status == 'running' and not rundir.is_locked(folder):
    status = 'interrupted'
  rows = _last_rows(folder / metrics.FILE)
  step = max([row['step'] for row in rows[-1:]] + [found.get('step') or 0])
  total, message = found.get('total_steps'), found.get('message') or ''
  return State(status, step, total, _metric(rows), message)


def counts(states: Iterable[State]) -> str:
  """Returns the number of runs in each state.

  Example:
    >>> counts([State('done'), State('waiting')])
    '2 runs: 1 waiting, 1 done'
  """
  statuses = [state.status for state in states]
  parts = [f'{statuses.count(s)} {s}' for s in ORDER if s in statuses]
  plural = '' if len(statuses) == 1 else 's'
  return f'{len(statuses)} run{plural}: {", ".join(parts)}'


def report(states: Mapping[str, State]) -> None:
  """Prints the counts, and the message of each run that failed."""
  print(counts(states.values()))
  for name, state in states.items():
    if state.status in ('diverged', 'failed'):
      print(f'{state.status}: {name}: {state.message}')


class Live:
  """Shows changes of states as lines and, on a terminal, bars of what runs."""

  def __init__(self, console: rich.console.Console | None = None):
    self._console = console or rich.console.Console()
    self._bars = progress.make_bars(
      self._console, disable=not self._console.is_terminal
    )
    self._tasks: dict[str, rich.progress.TaskID] = {}
    self._shown: dict[str, str] = {}

  def __enter__(self) -> 'Live':
    self._bars.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._bars.stop()

  def update(self, states: Mapping[str, State]) -> None:
    """Shows the states by the name of the run."""
    ended = sum(state.status in ENDED for state in states.values())
    for name, state in states.items():
      if name not in self._tasks:
        self._tasks[name] = self._bars.add_task('', total=None)
      self._bars.update(
        self._tasks[name], completed=state.step, total=state.total_steps,
        description=', '.join(filter(None, (name, state.metric))),
        visible=state.status == 'running',
      )  # fmt: skip
      if self._shown.get(name, 'waiting') != state.status:
        self._shown[name] = state.status
        words = (f'{name}: {state.status}', state.metric)
        line = f'[{ended}/{len(states)}] ' + ', '.join(filter(None, words))
        progress.print_line(self._console, line)


def watch(
  folders: Mapping[str, pathlib.Path],
) -> tuple[dict[str, State], bool]:
  """Shows runs that other processes train until all have ended, or Ctrl-C.

  Returns the last state of each run, and True if all have ended.
  """
  states: dict[str, State] = {}
  with Live() as shown:
    try:
      while True:
        states = {name: read(folder) for name, folder in folders.items()}
        shown.update(states)
        if all(s.status in (*ENDED, 'failed') for s in states.values()):
          return states, True
        time.sleep(1.0)
    except KeyboardInterrupt:
      return states, False


def _last_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the last rows of metrics, without lines cut at either end."""
  rows, lines = [], []
  with contextlib.suppress(OSError), path.open('rb') as file:
    file.seek(max(0, path.stat().st_size - _TAIL))
    lines = file.read().splitlines()
  for line in lines:
    try:
      row = json.loads(line)
    except ValueError:
      continue
    if isinstance(row, dict) and isinstance(row.get('step'), int):
      rows.append(row)
  return rows


def _metric(rows: list[dict[str, Any]]) -> str:
  """Returns the main metric of the last evaluation, else the last loss."""
  evaluated = [r for r in rows if r.get('split') in ('validation', 'test')]
  trained = [r for r in rows if r.get('split') == 'train']
  for row in (*evaluated[-1:], *trained[-1:]):
    for name in _METRICS:
      if name in row:
        return f'{name.replace("_", " ")} {float(row[name]):.4g}'
  return ''
