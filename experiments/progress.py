"""Progress over the runs of a plan: bars on a terminal, else plain lines."""

import collections
from collections.abc import Mapping
import datetime
import math
import time

import rich.console
import rich.progress

_WINDOW = 20  # updates over which the rate is averaged


class Progress:
  """Shows how far the runs of a plan are; a context manager.

  Example:
    >>> with Progress(2) as progress:
    ...   progress.start(1, 'alpha=2,seed=0', num_steps=20)
    ...   progress.update(10, {'loss': 0.5})
    [2/2] alpha=2,seed=0 10/20, loss 0.5

  Args:
    num_runs: runs of the plan.
    every_s: least seconds between two lines.
    console: where to print; by default standard output.
    disable: True to show nothing.
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
      console=self._console,
      disable=disable or not self._console.is_terminal,
    )
    self._overall = None
    if num_runs > 1:
      self._overall = self._bars.add_task('runs', total=num_runs)
    self._current = self._bars.add_task('')
    self._label, self._num_steps = '', 0

  def __enter__(self) -> 'Progress':
    self._bars.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._bars.stop()

  def start(self, index: int, name: str, num_steps: int) -> None:
    """Begins to show the run with number `index`, counted from 0."""
    number = f'[{index + 1}/{self._num_runs}] ' if self._num_runs > 1 else ''
    self._label, self._num_steps = f'{number}{name}'.strip(), num_steps
    self._last_line = -math.inf
    self._recent = collections.deque(maxlen=_WINDOW)
    if self._overall is not None:
      self._bars.update(self._overall, completed=index)
    self._bars.update(
      self._current, completed=0, total=num_steps, description=name
    )

  def update(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows that `step` steps of the current run are done.

    Without a terminal a line is printed, unless the previous one is too recent;
    the first and the last of a run always are.
    """
    now = time.monotonic()
    shown = [f'{name} {float(value):.4g}' for name, value in metrics.items()]
    shown += self._rate(now, step)
    label = f'{self._label}, ' if self._label else ''
    self._bars.update(
      self._current, completed=step, description=label + ', '.join(shown)
    )
    if self._disable or self._console.is_terminal:
      return
    if now - self._last_line >= self._every_s or step >= self._num_steps:
      self._last_line = now
      words = [f'{self._label} {step}/{self._num_steps}'.strip(), *shown]
      # The console would wrap the line.
      print(', '.join(words), file=self._console.file, flush=True)

  def _rate(self, now: float, step: int) -> list[str]:
    """Returns the rate and the time left, over the most recent updates."""
    self._recent.append((now, step))
    then, earlier = self._recent[0]
    if step <= earlier or now <= then:
      return []
    rate = (step - earlier) / (now - then)
    left = datetime.timedelta(seconds=round((self._num_steps - step) / rate))
    return [f'{rate:.4g} steps/s', f'{left} left']
