"""States of a plan's runs, read from their folders and shown live."""

from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import datetime
import json
import os
import pathlib
import time
from typing import Any
from typing import NamedTuple

import rich.console
import rich.live
import rich.table
import rich.text

from experiments import metrics
from experiments import rundir

ENDED = ('done', 'diverged')  # nothing is left to train
STYLES = {
  'running': 'bold cyan', 'failed': 'red', 'diverged': 'red',
  'interrupted': 'yellow', 'waiting': 'dim', 'done': 'green',
}  # fmt: skip

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
  return State(
    status,
    step,
    found.get('total_steps'),
    _metric(rows),
    found.get('message') or '',
  )


def counts(states: Iterable[State]) -> str:
  """Returns the number of runs in each state.

  Example:
    >>> counts([State('done'), State('waiting')])
    '2 runs: 1 waiting, 1 done'
  """
  statuses = [state.status for state in states]
  parts = [f'{statuses.count(s)} {s}' for s in STYLES if s in statuses]
  plural = '' if len(statuses) == 1 else 's'
  return f'{len(statuses)} run{plural}: {", ".join(parts)}'


def report(states: Mapping[str, State]) -> None:
  """Prints the counts, and the message of each run that failed."""
  print(counts(states.values()))
  for name, state in states.items():
    if state.status in ('diverged', 'failed'):
      print(f'{state.status}: {name}: {state.message}')


def steps_of(state: State) -> str:
  """Returns steps done and in all, such as '20/80'; '' before the first."""
  if state.total_steps is None:
    return str(state.step or '')
  return f'{state.step}/{state.total_steps}'


def make_table(
  states: Mapping[str, State], left: Mapping[str, float | None]
) -> rich.table.Table:
  """Returns a table with a row for each run; those that run come first.

  Args:
    states: by name.
    left: seconds until the end, where known.
  """
  table = rich.table.Table(title=counts(states.values()))
  for header in ('run', 'state', 'step', 'metric', 'time left'):
    justify = 'right' if header in ('step', 'time left') else 'left'
    table.add_column(header, justify=justify, overflow='fold')
  order = list(STYLES)
  for name in sorted(states, key=lambda name: order.index(states[name].status)):
    state, seconds = states[name], left.get(name)
    table.add_row(
      rich.text.Text(name),
      rich.text.Text(state.status, STYLES[state.status]),
      steps_of(state),
      state.metric,
      str(datetime.timedelta(seconds=round(seconds))) if seconds else '',
    )
  return table


class Live:
  """Shows states while runs train: a table on a terminal, else lines."""

  def __init__(self, console: rich.console.Console | None = None):
    self._console = console or rich.console.Console()
    self._first: dict[str, tuple[float, int]] = {}  # time and step first seen
    self._shown: dict[str, str] = {}
    self._live = rich.live.Live(console=self._console, auto_refresh=False)

  def __enter__(self) -> 'Live':
    if self._console.is_terminal:
      self._live.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._live.stop()

  def update(self, states: Mapping[str, State]) -> None:
    """Shows the states; without a terminal, those that changed."""
    if self._console.is_terminal:
      left = {name: self._left(name, state) for name, state in states.items()}
      self._live.update(make_table(states, left), refresh=True)
      return
    ended = sum(state.status in ENDED for state in states.values())
    for name, state in states.items():
      if self._shown.get(name, 'waiting') != state.status:
        self._shown[name] = state.status
        line = f'[{ended}/{len(states)}] {name}: {state.status}'
        line += f', {state.metric}' if state.metric else ''
        # The console would wrap the line.
        print(line, file=self._console.file, flush=True)

  def _left(self, name: str, state: State) -> float | None:
    """Returns the seconds left, at the rate since the run was first seen."""
    if state.status != 'running':
      self._first.pop(name, None)
      return None
    now = time.monotonic()
    then, step = self._first.setdefault(name, (now, state.step))
    if state.total_steps is None or state.step <= step:
      return None
    return (state.total_steps - state.step) * (now - then) / (state.step - step)


def watch(
  folders: Mapping[str, pathlib.Path], every_s: float = 1.0
) -> tuple[dict[str, State], bool]:
  """Shows runs that other processes train until all have ended, or Ctrl-C.

  Args:
    folders: of the runs, by name.
    every_s: seconds between two looks at the folders.

  Returns:
    The last state of each run, and whether all have ended.
  """
  states: dict[str, State] = {}
  with Live() as shown:
    try:
      while True:
        states = {name: read(folder) for name, folder in folders.items()}
        shown.update(states)
        if all(s.status in (*ENDED, 'failed') for s in states.values()):
          return states, True
        time.sleep(every_s)
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
