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
import rich.progress

from experiments import metrics
from experiments import rundir

ENDED = ('done', 'diverged')  # nothing is left to train
ORDER = (  # worst first; `experiments.paper` finds runs unreadable
  'unreadable', 'failed', 'diverged', 'interrupted', 'running', 'waiting',
  'done',
)  # fmt: skip
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
  fields = found if isinstance(found, dict) else {}
  status, message = fields.get('status'), fields.get('message') or ''
  step, total = fields.get('step') or 0, fields.get('total_steps') or 0
  are_counts = isinstance(step, int) and isinstance(total, int)
  if status not in rundir.STATUSES or not are_counts:
    return State('failed', message=f'unknown status: {found!r:.100}')
  if status == 'running' and not rundir.is_locked(folder):
    status = 'interrupted'
  rows = _last_rows(folder / metrics.FILE)
  step = max([row['step'] for row in rows[-1:]] + [step])
  return State(status, step, total or None, _metric(rows), str(message))


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


class Progress(contextlib.AbstractContextManager):
  """Shows how far runs are: bars on a terminal, else lines.

  Example:
    >>> with Progress(2) as shown:
    ...   shown.update({'seed=0': State('done')})
    ...   shown.update({'seed=1': State('running', 10, 20, 'loss 0.5')})
    [1/2] seed=0 done
    [1/2] seed=1 running 10/20, loss 0.5
  """

  def __init__(
    self,
    num_runs: int,
    *,
    every_s: float = 5.0,
    console: rich.console.Console | None = None,
    disable: bool = False,
  ):
    self._num_runs, self._every_s, self._disable = num_runs, every_s, disable
    self._console = console or rich.console.Console()
    self._bars = rich.progress.Progress(
      rich.progress.BarColumn(bar_width=20),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TextColumn('{task.description}', markup=False),
      rich.progress.TimeRemainingColumn(),
      console=self._console,
      disable=disable or not self._console.is_terminal,
      speed_estimate_period=600.0,  # chunks of steps may take minutes
    )
    self._tasks: dict[str, rich.progress.TaskID] = {}
    self._states: dict[str, State] = {}
    self._last_line: dict[str, float] = {}
    self._bars.start()

  def __exit__(self, *exception: object) -> None:
    self._bars.stop()

  def update(self, states: Mapping[str, State]) -> None:
    """Shows the states of some runs, by name.

    A change of status is printed; without a terminal so are steps, unless the
    previous line of the run is too recent.
    """
    for name, state in states.items():
      before = self._states.get(name, State('waiting'))
      if state == before or self._disable:
        continue
      self._states[name] = state
      if name not in self._tasks:
        self._tasks[name] = self._bars.add_task('', total=None)
      bar = self._tasks[name]
      self._bars.update(
        bar, completed=state.step, total=state.total_steps,
        description=', '.join(filter(None, (name, state.metric))),
        visible=state.status == 'running',
      )  # fmt: skip
      now = self._console.get_time()
      is_due = now - self._last_line.get(name, 0.0) >= self._every_s
      if state.status != before.status or (
        is_due and not self._console.is_terminal
      ):
        self._last_line[name] = now
        line = self._line(name, state, self._bars.tasks[bar])
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)

  def _line(self, name: str, state: State, bar: rich.progress.Task) -> str:
    ended = sum(state.status in ENDED for state in self._states.values())
    number = f'[{ended}/{self._num_runs}]' if self._num_runs > 1 else ''
    steps = f'{state.step}/{state.total_steps}' if state.total_steps else ''
    words = [' '.join(filter(None, (number, name, state.status, steps)))]
    words += [state.metric] if state.metric else []
    if state.status == 'running' and bar.speed:
      words.append(f'{bar.speed:.4g} steps/s')
      left = bar.time_remaining
      words += [f'{datetime.timedelta(seconds=round(left))} left']
    return ', '.join(words)


def watch(
  folders: Mapping[str, pathlib.Path],
) -> tuple[dict[str, State], bool]:
  """Shows runs that other processes train until all have ended, or Ctrl-C.

  Returns the last state of each run, and True if all have ended.
  """
  states: dict[str, State] = {}
  with Progress(len(folders)) as shown:
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
      with contextlib.suppress(KeyError, TypeError, ValueError):
        return f'{name.replace("_", " ")} {float(row[name]):.4g}'
  return ''
