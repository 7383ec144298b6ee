"""What one sees of a sweep: a live table on a terminal, lines elsewhere."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import datetime
import time

import rich.console
import rich.live
import rich.table
import rich.text

from experiments.sweeps import states

STYLES = {
  'running': 'bold cyan', 'done': 'green', 'diverged': 'red', 'failed': 'red',
  'interrupted': 'yellow', 'waiting': 'dim',
}  # fmt: skip
# Where there are more runs than lines, the first of these are shown.
_ORDER = ('running', 'failed', 'diverged', 'interrupted', 'waiting', 'done')

Read = Callable[[str], states.State]


class Pace:
  """How much time a run needs yet, from what was seen of it so far."""

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self._clock = clock
    self._first: dict[str, tuple[float, int]] = {}

  def left(self, name: str, state: states.State) -> float | None:
    """Returns seconds, or None while it cannot be told.

    Example:
      >>> pace = Pace(iter([0.0, 10.0]).__next__)
      >>> pace.left('a', states.State('running', 100, 1000))
      >>> pace.left('a', states.State('running', 300, 1000))
      35.0
    """
    if state.status != 'running':
      self._first.pop(name, None)
      return None
    now = self._clock()
    then, step = self._first.setdefault(name, (now, state.step))
    if state.total is None or state.step <= step:
      return None
    return (state.total - state.step) * (now - then) / (state.step - step)


def make_table(
  found: Mapping[str, states.State],
  left: Mapping[str, float | None],
  *,
  max_rows: int | None = None,
) -> rich.table.Table:
  """Returns the table: run, state, step, metric, time left.

  Args:
    found: the state of each run.
    left: seconds, of those of which they are known.
    max_rows: how many runs at most, those that run first.
  """
  names = list(found)
  if max_rows is not None and len(names) > max_rows:
    names.sort(key=lambda name: _ORDER.index(found[name].status))
    names = names[:max_rows]
  table = rich.table.Table(caption=counts(found))
  for header in ('run', 'state', 'step', 'metric', 'time left'):
    justify = 'right' if header in ('step', 'time left') else 'left'
    table.add_column(header, justify=justify, overflow='fold')
  for name in names:
    state = found[name]
    table.add_row(
      rich.text.Text(name),
      rich.text.Text(state.status, STYLES[state.status]),
      steps_of(state),
      state.figure,
      _time(left.get(name)),
    )
  return table


def counts(found: Mapping[str, states.State]) -> str:
  """Returns how many runs are in which state.

  Example:
    >>> counts({'a': states.State('done'), 'b': states.State('waiting')})
    '2 runs: 1 waiting, 1 done'
  """
  statuses = [state.status for state in found.values()]
  parts = [
    f'{statuses.count(status)} {status}'
    for status in _ORDER
    if status in statuses
  ]
  return f'{len(statuses)} run{"s" * (len(statuses) != 1)}: {", ".join(parts)}'


class Display:
  """Shows the runs of a sweep while they run; a context manager."""

  def __init__(
    self,
    names: Sequence[str],
    read: Read,
    console: rich.console.Console | None = None,
    every_s: float = 1.0,
  ):
    """Begins.

    Args:
      names: of the runs.
      read: the state of one of them.
      console: where to; None is the standard output.
      every_s: seconds from one look at the folders to the next.
    """
    self._names, self._read, self._every_s = names, read, every_s
    self._console = console or rich.console.Console()
    self._pace = Pace()
    self._last = -float('inf')
    self._shown: dict[str, str] = {}  # status of each run in the last line
    self._live = None
    if self._console.is_terminal:
      self._live = rich.live.Live(console=self._console, auto_refresh=False)

  def __enter__(self) -> 'Display':
    if self._live:
      self._live.start()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._live:
      self._live.stop()

  def update(self, running: set[str], *, force: bool = False) -> None:
    """Shows how far the runs are, if the last time was long enough ago.

    Args:
      running: names of those that run: what the folder of another says of
        itself is from when it was ended.
      force: whether to look in any case.
    """
    now = time.monotonic()
    if not force and now - self._last < self._every_s:
      return
    self._last = now
    found = {name: now_of(self._read(name), name in running)
             for name in self._names}  # fmt: skip
    left = {name: self._pace.left(name, found[name]) for name in running}
    if self._live:
      rows = max(3, self._console.height - 6)
      self._live.update(make_table(found, left, max_rows=rows), refresh=True)
      return
    for name, state in found.items():
      if self._shown.get(name, states.WAITING) != state.status:
        self._shown[name] = state.status
        ended = sum(s.status in states.ENDED for s in found.values())
        figure = f', {state.figure}' if state.figure else ''
        # Not through the console, which would wrap the line.
        line = f'[{ended}/{len(found)}] {name}: {state.status}{figure}'
        print(line, file=self._console.file, flush=True)


def now_of(state: states.State, is_running: bool) -> states.State:
  """Returns the state of a run, given whether it does run."""
  if is_running and state.status not in states.ENDED:
    return state._replace(status='running')
  if not is_running and state.status == 'running':
    return state._replace(status='interrupted')
  return state


def steps_of(state: states.State) -> str:
  """Returns how far a run is.

  Example:
    >>> steps_of(states.State('running', 20, 80))
    '20/80'
  """
  if not state.step and state.total is None:
    return ''
  total = '' if state.total is None else f'/{state.total}'
  return f'{state.step}{total}'


def _time(seconds: float | None) -> str:
  if seconds is None:
    return ''
  return str(datetime.timedelta(seconds=round(seconds)))
