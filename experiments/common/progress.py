"""How far a run is: a live bar on a terminal, plain lines elsewhere."""

import collections
from collections.abc import Mapping
import datetime
import math
import time

import rich.console
import rich.progress

_WINDOW = 20  # Updates over which the rate is averaged.


class Progress:
  """Shows how far a run is; a context manager.

  Example:
    >>> with Progress(20) as progress:  # doctest: +ELLIPSIS
    ...   progress.update(10, {'loss': 0.5}, 'alpha=2, seed 0')
    10/20 alpha=2, seed 0, loss 0.5, ... steps/s, 0:00:00 left
  """

  def __init__(
    self,
    num_steps: int,
    first_step: int = 0,
    *,
    every_s: float = 5.0,
    console: rich.console.Console | None = None,
  ):
    """Begins to measure the time.

    Args:
      num_steps: How many steps the whole run has.
      first_step: How many of them are done already, in a run that is resumed.
      every_s: Seconds from one line to the next, if there is no terminal.
      console: Where to; None is the standard output.
    """
    self._num_steps = num_steps
    self._every_s = every_s
    self._console = console or rich.console.Console()
    self._last_line = -math.inf
    self._recent = collections.deque(
      [(time.monotonic(), first_step)], maxlen=_WINDOW
    )
    self._bar = rich.progress.Progress(
      rich.progress.BarColumn(bar_width=20),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TextColumn('{task.description}', markup=False),
      console=self._console,
      disable=not self._console.is_terminal,
    )
    self._task = self._bar.add_task('', total=num_steps, completed=first_step)

  def __enter__(self) -> 'Progress':
    self._bar.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.stop()

  def update(
    self, step: int, values: Mapping[str, float], description: str = ''
  ) -> None:
    """Shows that `step` steps are done.

    Without a terminal that is a line, unless the last one is too recent; the
    first and the last are always shown.

    Args:
      step: How many steps of the whole run are done.
      values: The loss and the like.
      description: What is being trained: `'alpha=2, seed 0'`.
    """
    now = time.monotonic()
    shown = [description] if description else []
    shown += [f'{name} {float(value):.4g}' for name, value in values.items()]
    shown += self._pace(now, step)
    text = ', '.join(shown)
    self._bar.update(self._task, completed=step, description=text)
    is_due = now - self._last_line >= self._every_s or step >= self._num_steps
    if not self._console.is_terminal and is_due:
      self._last_line = now
      # Not through the console, which would wrap the line.
      line = f'{step}/{self._num_steps} {text}'
      print(line, file=self._console.file, flush=True)

  def _pace(self, now: float, step: int) -> list[str]:
    """Returns the rate and the time left, over the most recent updates."""
    then, earlier = self._recent[0]
    self._recent.append((now, step))
    if step <= earlier or now <= then:
      return []
    rate = (step - earlier) / (now - then)
    left = datetime.timedelta(seconds=round((self._num_steps - step) / rate))
    return [f'{rate:.4g} steps/s', f'{left} left']
