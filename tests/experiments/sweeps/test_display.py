"""What one sees of a sweep: from folders to a table."""

import io
import json

import pytest
import rich.console

from experiments.common import run as run_lib
from experiments.sweeps import display
from experiments.sweeps import states

State = states.State


def make_folder(folder, status, rows=(), tail='', **fields):
  folder.mkdir()
  run_lib.Run(folder).write_status(status, **fields)
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(lines + tail)
  return folder


TRAIN = {'global_step': 20, 'split': 'train', 'loss': 0.5}
VALIDATION = {'global_step': 10, 'split': 'validation', 'accuracy': 0.25}


def test_a_run_that_has_no_folder_waits(tmp_path):
  assert states.read(tmp_path / 'none') == State('waiting')


def test_a_state_has_the_last_step_and_the_last_evaluation(tmp_path):
  folder = make_folder(
    tmp_path / 'run', 'running', [VALIDATION, TRAIN], total_steps=80
  )
  assert states.read(folder) == State('running', 20, 80, 'accuracy 0.25')


def test_before_an_evaluation_it_has_the_loss(tmp_path):
  folder = make_folder(tmp_path / 'run', 'running', [TRAIN])
  assert states.read(folder).figure == 'loss 0.5'


def test_a_line_half_written_is_left_out(tmp_path):
  tail = '{"global_step": 30, "split": "tra'
  folder = make_folder(tmp_path / 'run', 'running', [TRAIN], tail)
  assert states.read(folder).step == 20


def test_only_the_end_of_long_metrics_is_read(tmp_path):
  rows = [{**TRAIN, 'global_step': i, 'x': 'y' * 1000} for i in range(100)]
  folder = make_folder(tmp_path / 'run', 'running', rows)
  assert states.read(folder).step == 99


def test_a_run_without_its_summary_is_not_done(tmp_path):
  folder = make_folder(tmp_path / 'run', 'done')
  assert states.read(folder).status == 'interrupted'
  (folder / 'summary.json').write_text('{}')
  assert states.read(folder).status == 'done'


def test_a_run_of_a_pack_has_its_own_figure(tmp_path):
  rows = [
    {**VALIDATION, 'run': i, 'accuracy': accuracy}
    for i, accuracy in enumerate((0.25, 0.75))
  ]
  pack = make_folder(tmp_path / 'pack', 'running', rows)
  folder = tmp_path / 'run'
  folder.mkdir()
  run_lib.Run(folder).write_status('running')
  assert states.read(folder, pack, 0).figure == 'accuracy 0.25'
  assert states.read(folder, pack, 1).figure == 'accuracy 0.75'
  (folder / 'metrics.jsonl').write_text(json.dumps(TRAIN) + '\n')
  assert states.read(folder, pack, 1).figure == 'loss 0.5'


@pytest.mark.parametrize('text', ['{"status": "do', '[]', '{"status": "gone"}'])
def test_a_status_that_cannot_be_read_is_a_failure_that_says_so(tmp_path, text):
  (tmp_path / 'status.json').write_text(text)
  state = states.read(tmp_path)
  assert state.status == 'failed'
  assert state.message


def test_what_a_folder_says_of_a_dead_process_is_not_believed():
  assert display.now_of(State('running'), False).status == 'interrupted'
  assert display.now_of(State('interrupted'), True).status == 'running'
  assert display.now_of(State('failed'), True).status == 'running'
  assert display.now_of(State('done'), True).status == 'done'


def test_the_time_left_is_measured_from_when_the_run_was_seen_first():
  times = iter([100.0, 110.0, 120.0])
  pace = display.Pace(lambda: next(times))
  assert pace.left('a', State('running', 50, 90)) is None  # resumed there
  assert pace.left('a', State('running', 60, 90)) == pytest.approx(30.0)
  assert pace.left('a', State('interrupted', 60, 90)) is None
  assert pace.left('a', State('running', 60, 90)) is None  # begins again


def show(found, left=None, **options):
  file = io.StringIO()
  console = rich.console.Console(file=file, width=100)
  console.print(display.make_table(found, left or {}, **options))
  return file.getvalue()


def test_the_table_has_state_step_metric_and_time_left():
  text = show(
    {'alpha=[1]': State('running', 30, 60, 'accuracy 0.5')},
    {'alpha=[1]': 3_700.0},
  )
  for word in ('alpha=[1]', 'running', '30/60', 'accuracy 0.5', '1:01:40'):
    assert word in text


def test_of_too_many_runs_those_that_run_or_failed_are_shown():
  found = {f'old{i}': State('done') for i in range(9)}
  found |= {'bad': State('failed'), 'now': State('running')}
  text = show(found, max_rows=2)
  assert 'now' in text
  assert 'bad' in text
  assert 'old' not in text
  assert '11 runs: 1 running, 1 failed, 9 done' in text


def test_without_a_terminal_there_is_a_line_for_each_change():
  found = {'a': State('waiting'), 'b': State('waiting')}
  file = io.StringIO()
  console = rich.console.Console(file=file, width=40)
  with display.Display(list(found), found.get, console) as shown:
    shown.update(set(), force=True)
    for state in ('running', 'running', 'done'):
      found['b'] = State(state, figure='loss 0.1')
      shown.update({'b'}, force=True)
  assert file.getvalue().splitlines() == [
    '[0/2] b: running, loss 0.1', '[1/2] b: done, loss 0.1',
  ]  # fmt: skip


def test_on_a_terminal_there_is_a_live_table():
  file = io.StringIO()
  console = rich.console.Console(file=file, width=80, force_terminal=True)
  read = {'a': State('running', 5, 10)}.get
  with display.Display(['a'], read, console) as shown:
    shown.update({'a'}, force=True)
  assert '5/10' in file.getvalue()
