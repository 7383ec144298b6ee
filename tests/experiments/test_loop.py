"""The loop, on a unit small enough to follow by hand."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib

SCHEDULE = loop.make_schedule(log_every=2, eval_every=4, checkpoint_every=4)
NUM_STEPS = 7


def make_unit(seed, calls=None, diverges_at=None, killed_at=None):
  """Counts its steps; the loss is the sum of the steps made, plus the seed."""

  def train(state, first_step, num_steps):
    if calls is not None:
      calls.append((seed, first_step, num_steps))
    if killed_at == first_step:
      os.kill(os.getpid(), signal.SIGTERM)
    total = state['sum'] + sum(range(first_step, first_step + num_steps))
    is_bad = diverges_at is not None and first_step >= diverges_at
    loss = np.array([np.nan]) if is_bad else total + seed
    return {'sum': total}, {'loss': loss}

  return loop.Unit(
    ({'alpha': 1.0, 'seed': seed},),
    NUM_STEPS,
    lambda _: {'sum': jnp.zeros(1)},
    train,
    lambda state: {'accuracy': state['sum'] / 100},
    lambda state: [[{'split': 'test', 'sum': float(state['sum'][0])}]],
  )


def run(units, workdir, keep=2):
  directory = run_lib.open_run(workdir, {'a': 1})
  return loop.run(units, SCHEDULE, directory, keep=keep)


def checkpoints(workdir):
  folders = (workdir / 'checkpoints').iterdir()
  return sorted(int(x.name) for x in folders if x.name.isdigit())


def test_every_step_is_made_once_in_order(tmp_path):
  calls = []
  outcome = run([make_unit(0, calls), make_unit(1, calls)], tmp_path / 'run')
  chunks = [(0, 2), (2, 2), (4, 2), (6, 1)]
  assert calls == [(seed, *chunk) for seed in (0, 1) for chunk in chunks]
  assert (outcome.status, outcome.global_step) == ('done', 14)


def test_rows_say_member_step_and_split(tmp_path):
  run([make_unit(5)], tmp_path / 'run')
  rows = metrics.read(tmp_path / 'run')
  assert [(row['step'], row['split']) for row in rows] == [
    (2, 'train'), (4, 'train'), (4, 'validation'), (6, 'train'), (7, 'train'),
    (7, 'validation'), (7, 'test'),
  ]  # fmt: skip
  assert all((row['alpha'], row['seed']) == (1.0, 5) for row in rows)
  assert rows[0]['loss'] == 1 + 5
  assert rows[-1]['sum'] == sum(range(7))


def test_last_states_are_kept_and_others_rotate(tmp_path):
  run([make_unit(i) for i in range(3)], tmp_path / 'run', keep=1)
  assert checkpoints(tmp_path / 'run') == [7, 14, 18, 21]


@pytest.mark.parametrize('killed_at', [0, 2, 6])
@pytest.mark.parametrize('in_unit', [0, 1])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, killed_at, in_unit):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  run([make_unit(0), make_unit(1)], whole)
  units = [make_unit(0), make_unit(1)]
  units[in_unit] = make_unit(in_unit, killed_at=killed_at)
  first = run(units, parts)
  if (in_unit, killed_at) == (1, 6):  # nothing was left to interrupt
    assert first.status == 'done'
  else:
    assert (first.status, first.signal) == ('interrupted', signal.SIGTERM)
    calls = []
    assert (
      run([make_unit(0, calls), make_unit(1, calls)], parts).status == 'done'
    )
    assert calls[0][1] == first.global_step % 7
  for name in ('metrics.jsonl',):
    assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_finished_run_trains_nothing_more(tmp_path):
  run([make_unit(0)], tmp_path / 'run')
  calls = []
  outcome = run([make_unit(0, calls)], tmp_path / 'run')
  assert outcome.status == 'done'
  assert not calls


def test_loss_that_is_not_finite_stops_with_the_last_checkpoint(tmp_path):
  unit = make_unit(0, diverges_at=4)
  outcome = run([unit], tmp_path / 'run')
  assert outcome.status == 'diverged'
  assert 'nan by step 6 (alpha 1, seed 0)' in outcome.message
  assert checkpoints(tmp_path / 'run') == [4]
  assert outcome.global_step == 4


def test_seconds_of_earlier_sessions_count(tmp_path):
  first = run([make_unit(0, killed_at=2), make_unit(1)], tmp_path / 'run')
  second = run([make_unit(0), make_unit(1)], tmp_path / 'run')
  assert second.seconds > first.seconds > 0


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'eval_every': 3}, 'eval_every as a multiple of log_every=2, got 3'),
    ({'checkpoint_every': 5}, 'checkpoint_every as a multiple'),
    ({'log_every': -1}, 'log_every >= 1, got -1'),
  ],
)
def test_bad_schedule_is_refused(change, message):
  good = {'log_every': 2, 'eval_every': 4}
  good['checkpoint_every'] = 4
  with pytest.raises(ValueError, match=message):
    loop.make_schedule(**{**good, **change})


def test_states_stay_on_device(tmp_path):
  seen = []
  unit = make_unit(0)
  watching = unit._replace(
    evaluate=lambda state: seen.append(state['sum']) or {'loss': np.zeros(1)}
  )
  run([watching], tmp_path / 'run')
  assert all(isinstance(x, jax.Array) for x in seen)


def continuing(calls=None, killed_at=None):
  """A unit that goes on from the sum that the one before it ended with."""
  unit = make_unit(1, calls, killed_at=killed_at)
  return unit._replace(
    num_steps=4,
    init=lambda last: {'sum': jnp.zeros(1) if last is None else last['sum']},
    finish=lambda state: (
      {'sum': state['sum'] + 100},
      [[{'split': 'finished'}]],
    ),
  )


def test_a_unit_may_go_on_from_the_one_before_and_finish_with_another_state(
  tmp_path,
):
  run([continuing(), continuing()], tmp_path / 'run')
  rows = metrics.read(tmp_path / 'run')
  sums = [row['sum'] for row in rows if row['split'] == 'test']
  assert sums == [6 + 100, 106 + 6 + 100]
  splits = [row['split'] for row in rows]
  assert splits.index('finished') == splits.index('test') - 1
  assert checkpoints(tmp_path / 'run') == [4, 8]


@pytest.mark.parametrize('killed_at', [0, 2])
def test_a_continuing_unit_is_resumed_as_if_not_interrupted(
  tmp_path, killed_at
):
  run([continuing(), continuing()], tmp_path / 'whole')
  first = run(
    [continuing(), continuing(killed_at=killed_at)], tmp_path / 'parts'
  )
  if killed_at == 2:
    assert first.status == 'done'
  else:
    assert first.status == 'interrupted'
  run([continuing(), continuing()], tmp_path / 'parts')
  files = [tmp_path / name / 'metrics.jsonl' for name in ('whole', 'parts')]
  assert files[0].read_bytes() == files[1].read_bytes()


def test_evaluation_reports_on_last_states_and_the_newest(tmp_path):
  units = [make_unit(0), make_unit(1, killed_at=2)]
  run(units, tmp_path / 'run')
  before = (tmp_path / 'run' / 'metrics.jsonl').read_bytes()
  directory = run_lib.open_run(tmp_path / 'run', {'a': 1})
  found = loop.evaluate([make_unit(0), make_unit(1)], directory)
  assert [(at, member['seed'], row['step']) for at, member, row in found] == [
    (7, 0, 7),
    (11, 1, 4),
  ]
  assert [row['sum'] for *_, row in found] == [21, 6]
  assert (tmp_path / 'run' / 'metrics.jsonl').read_bytes() == before


def test_evaluation_of_nothing_is_refused(tmp_path):
  directory = run_lib.open_run(tmp_path / 'run', {'a': 1})
  with pytest.raises(ValueError, match='got none: train first'):
    loop.evaluate([make_unit(0)], directory)


def test_a_unit_that_cannot_begin_ends_the_run_with_its_reason(tmp_path):
  def init(previous):
    if previous is not None:
      raise loop.StopError('no room for another')
    return {'sum': jnp.zeros(1)}

  units = [make_unit(0)._replace(init=init), make_unit(1)._replace(init=init)]
  outcome = run(units, tmp_path / 'run')
  assert (outcome.status, outcome.global_step) == ('failed', 7)
  assert outcome.message == 'no room for another'
  assert checkpoints(tmp_path / 'run') == [4, 7]
