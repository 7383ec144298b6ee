import io
import re

import pytest
import rich.console

from experiments import progress as progress_lib


def show(is_terminal: bool, every_s: float, num_runs: int) -> str:
  file = io.StringIO()
  console = rich.console.Console(
    file=file, force_terminal=is_terminal, width=120
  )
  with progress_lib.Progress(
    num_runs, every_s=every_s, console=console
  ) as shown:
    for index in range(num_runs):
      shown.start(index, '[bold]alpha=2', 4)
      for step in (1, 2, 3, 4):
        shown.update(step, {'loss': 0.5, 'density': 0.1})
  return file.getvalue()


@pytest.mark.parametrize(('every_s', 'steps'), [(0.0, '1234'), (1e9, '14')])
def test_without_a_terminal_there_are_plain_lines(every_s, steps):
  lines = show(False, every_s, num_runs=2).splitlines()
  for index, line in enumerate(lines):
    run, step = divmod(index, len(steps))
    start = f'[{run + 1}/2] [bold]alpha=2 {steps[step]}/4, loss 0.5, density'
    assert line.startswith(start)


def test_on_a_terminal_there_are_bars_of_all_runs_and_of_one():
  text = show(True, 0.0, num_runs=3)
  plain = re.sub(r'\x1b\[[?\d;]*[A-Za-z]', '', text)
  assert '4/4 [3/3] [bold]alpha=2, loss 0.5, density 0.1' in plain
  assert '2/3 runs' in plain
  assert '━' in plain
  assert not re.search(r'(?:^|[\r\n])\[\d/3\] ', plain)


def test_the_rate_is_that_of_this_command():
  file, now = io.StringIO(), 0.0
  console = rich.console.Console(file=file, get_time=lambda: now, width=20)
  with progress_lib.Progress(1, every_s=0, console=console) as shown:
    shown.start(0, '', 1000)
    for step in (800, 802):  # resumed before 800
      now += 10.0
      shown.update(step, {'loss': float('nan')})
  assert file.getvalue().splitlines() == [
    '800/1000, loss nan', '802/1000, loss nan, 0.2 steps/s, 0:16:30 left',
  ]  # fmt: skip
