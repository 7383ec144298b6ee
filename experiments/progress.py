"""Progress over the runs of a plan: bars on a terminal, else plain lines."""

from collections.abc import Mapping
import contextlib
import datetime
import math

import rich.console
import rich.progress


def make_bars(
  console: rich.console.Console, disable: bool
) -> rich.progress.Progress:
  """Returns bars of runs; their rates are those of this command."""
  return rich.progress.Progress(
    rich.progress.BarColumn(bar_width=20),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn('{task.description}', markup=False),
    rich.progress.TimeRemainingColumn(),
    console=console,
    disable=disable,
    speed_estimate_period=600.0,  # chunks of steps may take minutes
  )


def print_line(console: rich.console.Console, line: str) -> None:
  """Prints a line as it is, without wrapping it."""
  console.print(line, soft_wrap=True, markup=False, highlight=False)


class Progress(contextlib.AbstractContextManager):
  """Shows how far the runs of a plan are; a context manager.

  Example:
    >>> with Progress(2) as progress:
    ...   progress.start(1, 'alpha=2,seed=0', num_steps=20)
    ...   progress.update(10, {'loss': 0.5})
    [2/2] alpha=2,seed=0 10/20, loss 0.5
  """

  def __init__(
    self,
    num_runs: int,
    *,
    every_s: float = 5.0,
    console: rich.console.Console | None = None,
    disable: bool = False,
  ):
    self._num_runs, self._every_s = num_runs, every_s
    self._console = console or rich.console.Console()
    self._prints = not disable and not self._console.is_terminal
    self._bars = make_bars(self._console, disable or self._prints)
    several = num_runs > 1
    self._overall = self._bars.add_task('runs', total=num_runs, visible=several)
    self._current = self._bars.add_task('')
    self._label = ''
    self._bars.start()

  def __exit__(self, *exception: object) -> None:
    self._bars.stop()

  def start(self, index: int, name: str, num_steps: int) -> None:
    """Begins to show the run with number `index`, counted from 0."""
    number = f'[{index + 1}/{self._num_runs}] ' if self._num_runs > 1 else ''
    self._label = f'{number}{name}'.strip()
    self._last_line = -math.inf
    self._bars.update(self._overall, completed=index)
    self._bars.reset(self._current, total=num_steps, description=name)

  def update(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows that `step` steps of the current run are done.

    Without a terminal a line is printed, unless the previous one is too recent;
    the first and the last of a run always are.
    """
    self._bars.update(self._current, completed=step)
    task = self._bars.tasks[-1]
    shown = [f'{name} {float(value):.4g}' for name, value in metrics.items()]
    if task.speed:
      shown.append(f'{task.speed:.4g} steps/s')
    label = ', '.join(filter(None, (self._label, *shown)))
    self._bars.update(self._current, description=label)
    if task.time_remaining is not None:
      left = datetime.timedelta(seconds=round(task.time_remaining))
      shown.append(f'{left} left')
    now = self._console.get_time()
    is_due = now - self._last_line >= self._every_s or task.finished
    if self._prints and is_due:
      self._last_line = now
      words = [f'{self._label} {step}/{task.total}'.strip(), *shown]
      print_line(self._console, ', '.join(words))
