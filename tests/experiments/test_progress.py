import io
import itertools
import re
import types

import pytest
import rich.console

from experiments.common import progress as progress_lib


def run(is_terminal: bool, every_s: float, steps=(1, 2, 3, 4)) -> str:
  file = io.StringIO()
  console = rich.console.Console(
    file=file, force_terminal=is_terminal, width=120
  )
  with progress_lib.Progress(4, every_s=every_s, console=console) as progress:
    for step in steps:
      values = {'loss': 0.5, 'density': 0.1}
      progress.update(step, values, '[bold]alpha=2')
  return file.getvalue()


@pytest.mark.parametrize(
  ('every_s', 'steps'), [(0.0, ['1', '2', '3', '4']), (1e9, ['1', '4'])]
)
def test_without_a_terminal_there_are_plain_lines(every_s, steps):
  lines = run(False, every_s).splitlines()
  assert [line.split('/')[0] for line in lines] == steps
  for line in lines:
    _, _, rest = line.partition('/')
    parts = rest.split(', ')
    assert parts[:3] == ['4 [bold]alpha=2', 'loss 0.5', 'density 0.1']
    assert parts[3].endswith(' steps/s')
    assert parts[4].endswith(' left')


def test_lines_are_flushed():
  class File(io.StringIO):
    flushed = ''

    def flush(self):
      self.flushed = self.getvalue()

  console = rich.console.Console(file=File())
  with progress_lib.Progress(4, console=console) as progress:
    progress.update(1, {})
    assert console.file.flushed.startswith('1/4')


def test_on_a_terminal_there_is_a_bar_of_the_last_step():
  text = run(True, 0.0)
  assert '4/4' in text
  assert '[bold]alpha=2, loss 0.5, density 0.1' in text
  assert '━' in text
  plain = re.sub(r'\x1b\[[?\d;]*[A-Za-z]', '', text)
  assert not re.search(r'(?:^|[\r\n])\d/4 ', plain)


def test_a_line_is_not_wrapped():
  file = io.StringIO()
  console = rich.console.Console(file=file, width=20)
  with progress_lib.Progress(4, console=console) as progress:
    progress.update(1, {'a_rather_long_name': 1.0, 'another_long_name': 2.0})
  assert file.getvalue().count('\n') == 1


def test_the_rate_is_of_this_process_and_recent(capsys, monkeypatch):
  clock = itertools.chain([0.0, 10.0], itertools.count(11.0))
  time = types.SimpleNamespace(monotonic=lambda: next(clock))
  monkeypatch.setattr(progress_lib, 'time', time)
  with progress_lib.Progress(1000, 800, every_s=0) as progress:
    progress.update(802, {})
    for step in range(804, 850, 2):
      progress.update(step, {})
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == '802/1000 0.2 steps/s, 0:16:30 left'
  assert lines[-1] == '848/1000 2 steps/s, 0:01:16 left'


def test_a_step_twice_has_no_rate(capsys):
  with progress_lib.Progress(2, every_s=0) as progress:
    progress.update(0, {'loss': float('nan')})
  assert capsys.readouterr().out == '0/2 loss nan\n'
