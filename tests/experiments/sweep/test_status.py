"""States of runs, from their folders to a table."""

import io
import json
import signal

import pytest
import rich.console

from experiments import rundir
from experiments.sweep import status
import launch

State = status.State


def make_folder(folder, name, rows=(), tail='', **fields):
  folder.mkdir(exist_ok=True)
  rundir.write_status(folder, name, **fields)
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(lines + tail)
  return folder


TRAIN = {'step': 20, 'split': 'train', 'loss': 0.5}
VALIDATION = {'step': 10, 'split': 'validation', 'accuracy': 0.25}


def test_a_state_has_the_last_step_and_the_last_evaluation(tmp_path):
  assert status.read(tmp_path / 'none') == State('waiting')
  folder = make_folder(
    tmp_path, 'failed', [VALIDATION, TRAIN], total_steps=80, message='why'
  )
  assert status.read(folder) == State('failed', 20, 80, 'accuracy 0.25', 'why')
  make_folder(tmp_path, 'interrupted', [TRAIN])
  assert status.read(folder).metric == 'loss 0.5'
  # Whole lines near the end are read.
  rows = [{**TRAIN, 'step': i, 'x': 'y' * 1000} for i in range(100)]
  folder = make_folder(tmp_path, 'done', rows, '{"step": 300, "split": "tra')
  assert status.read(folder).step == 99


def show(every_s, steps, **options):
  file, now = io.StringIO(), 0.0
  console = rich.console.Console(file=file, get_time=lambda: now, **options)
  with status.Progress(2, every_s=every_s, console=console) as shown:
    shown.update({'old': State('done')})
    for step in steps:
      now += 10.0
      running = State('running', step, 1000, 'loss nan')
      shown.update({'[alpha]': running, 'old': State('done')})
  return file.getvalue()


def test_on_a_terminal_there_are_bars_of_the_runs_that_run():
  text = show(0, (500, 600), width=100, force_terminal=True)
  for word in (
    '600/1000', '[alpha], loss nan', '[1/2] old done', '━',
  ):  # fmt: skip
    assert word in text
  assert '600/1000, loss nan' not in text  # a line


@pytest.mark.parametrize('every_s', [0, 1e9])
def test_without_a_terminal_there_are_lines_with_the_rate_of_this_command(
  every_s,
):
  lines = show(every_s, (800, 802), width=20).splitlines()
  assert lines == [
    '[1/2] old done', '[1/2] [alpha] running 800/1000, loss nan',
    '[1/2] [alpha] running 802/1000, loss nan, 0.2 steps/s, 0:16:30 left',
  ][: 2 if every_s else 3]  # fmt: skip


def test_watching_ends_with_the_runs_or_at_ctrl_c(
  config, tmp_path, capsys, monkeypatch, request
):
  # Background processes of a shell begin with SIGINT ignored.
  handler = signal.signal(signal.SIGINT, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
  workdir = tmp_path / 'runs'
  command = [f'--config={config}', '--sweep=seeds', f'--workdir={workdir}']
  assert launch.main([*command, '--watch']) == launch.USER_ERROR
  assert 'expected the folder of a sweep' in capsys.readouterr().err
  assert launch.main([*command, '--index=0']) == 0
  make_folder(workdir / 'seeds=1', 'failed', message='why')
  assert launch.main([*command, '--watch']) == 1
  assert 'failed: seeds=1: why' in capsys.readouterr().out
  make_folder(workdir / 'seeds=1', 'interrupted')
  monkeypatch.setattr(
    status.time, 'sleep', lambda _: signal.raise_signal(signal.SIGINT)
  )
  assert launch.main([*command, '--watch']) == 130
  assert 'The runs go on' in capsys.readouterr().out
