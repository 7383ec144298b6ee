"""The trainer: on a task that can be followed by hand, and on a real one."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint
from experiments import metrics
from experiments import rundir
from experiments import step as step_lib
from experiments import storage as storage_lib
from experiments import trainer
from experiments.tasks import base
from experiments.tasks import table
from tests import oracles
from tests.experiments import small

NUM_STEPS = 7


def make_task(stages):
  """A task whose steps add their number to a sum, its loss."""
  config = small.image('dense', prune={'output_layer': None})
  plain = table.make_task(config)

  def advance(state, seed, key, inputs, first, last, is_training):
    del seed, key, is_training
    loss = jnp.sum(inputs[first:last])
    params = {'sum': state.params['sum'] + loss}
    step = state.step + last - first
    return state._replace(step=step, params=params), {'loss': loss}

  return plain._replace(
    stages=tuple(stages),
    training=dataclasses.replace(
      plain.training,
      log_every=2,
      eval_every=4,
      checkpoint_every=4,
      keep_checkpoints=1,
    ),
    state=jax.eval_shape(lambda: first_state(None)),
    steps=step_lib.Steps(
      advance=advance,
      measure=None,
      summarize=lambda state, means, before: means,
      masks=lambda state: None,
    ),
  )


def first_state(last):
  total = 0.0 if last is None else last.params['sum']
  params = {'sum': jnp.float32(total)}
  return storage_lib.TrainState(jnp.int32(0), params, {}, ())


def make_stage(calls=None, killed_at=None, num_steps=NUM_STEPS):
  """Returns a stage that records its chunks in `calls`."""

  def batches(seed, first_step, num):
    if calls is not None:
      calls.append((seed, first_step, num))
    if killed_at == first_step:
      os.kill(os.getpid(), signal.SIGTERM)
    yield np.arange(first_step, first_step + num, dtype=np.float32), num

  return base.Stage(
    num_steps=num_steps,
    labels={},
    begin=lambda seed, last: first_state(None),
    batches=batches,
    evaluate=lambda state: {'sum': state.params['sum']},
    report=lambda seed, state: [
      {'split': 'test', 'sum': float(state.params['sum']) + seed}
    ],
  )


def run(task, workdir, on_progress=lambda step, metrics: None):
  rundir.create(workdir, {'a': 1})
  return trainer.train(task, 5, workdir, on_progress)


def steps_in(workdir):
  return checkpoint.Checkpoints(workdir / 'checkpoints', None).steps()


def test_every_step_is_made_once_and_rows_hold_means_of_chunks(tmp_path):
  calls, shown = [], []
  second = make_stage(calls)._replace(labels={'task': 2})
  task = make_task([make_stage(calls), second])
  outcome = run(task, tmp_path, lambda step, metrics: shown.append(step))
  assert (outcome.status, outcome.step, outcome.signal) == ('done', 14, None)
  assert calls == [(5, 0, 2), (5, 2, 2), (5, 4, 2), (5, 6, 1)] * 2
  assert shown == [2, 4, 6, 7, 9, 11, 13, 14]
  assert steps_in(tmp_path) == [7, 14]  # last of each stage; others rotate
  rows = metrics.read(tmp_path)
  assert rows[:7] == [
    {'step': 2, 'split': 'train', 'loss': 0.5},
    {'step': 4, 'split': 'train', 'loss': 2.5},
    {'step': 4, 'split': 'validation', 'sum': 6.0},
    {'step': 6, 'split': 'train', 'loss': 4.5},
    {'step': 7, 'split': 'train', 'loss': 6.0},
    {'step': 7, 'split': 'validation', 'sum': 21.0},
    {'step': 7, 'split': 'test', 'sum': 26.0},
  ]
  assert [row['task'] for row in rows[7:]] == [2] * 7
  assert rows[-1]['step'] == 14


def continuing(killed_at=None):
  """A stage that continues from the last sum, and finishes by adding 100."""
  return make_stage(killed_at=killed_at, num_steps=4)._replace(
    begin=lambda seed, last: first_state(last),
    finish=lambda seed, state: (
      state._replace(params={'sum': state.params['sum'] + 100}),
      [{'split': 'finished'}],
    ),
  )


def test_a_stage_continues_from_the_finished_state_of_the_one_before(tmp_path):
  run(make_task([continuing(), continuing()]), tmp_path)
  rows = metrics.read(tmp_path)
  sums = [row['sum'] - 5 for row in rows if row['split'] == 'test']
  assert sums == [6 + 100, 106 + 6 + 100]
  splits = [row['split'] for row in rows]
  assert splits.index('finished') == splits.index('test') - 1


@pytest.mark.parametrize('make', [make_stage, continuing])
@pytest.mark.parametrize(('stage', 'killed_at'), [(0, 0), (0, 2), (1, 0)])
def test_stopped_and_resumed_equals_uninterrupted(
  tmp_path, make, stage, killed_at
):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  task = make_task([make(), make()])
  run(task, whole)
  stages = [make(), make()]
  stages[stage] = make(killed_at=killed_at)
  first = run(make_task(stages), parts)
  at = stage * stages[0].num_steps + killed_at + 2
  assert (first.status, first.step) == ('interrupted', at)
  assert first.signal == signal.SIGTERM
  assert steps_in(parts)[-1] == rundir.read_status(parts)['step'] == at
  checkpoints = checkpoint.Checkpoints(parts / 'checkpoints', None)
  _, metadata = checkpoints.restore(task.state)
  again = run(task, parts)
  assert (again.status, again.step) == ('done', task.num_steps)
  assert again.seconds > metadata['seconds'] > 0  # of earlier sessions too
  found = (parts / metrics.FILE).read_bytes()
  assert found == (whole / metrics.FILE).read_bytes()


def test_a_run_finished_in_spite_of_a_signal_trains_nothing_more(tmp_path):
  outcome = run(make_task([make_stage(killed_at=6)]), tmp_path)
  assert (outcome.status, outcome.step) == ('done', NUM_STEPS)
  calls = []
  outcome = run(make_task([make_stage(calls)]), tmp_path)
  assert (outcome.status, calls) == ('done', [])


def test_evaluation_reports_on_trained_stages_and_the_newest_state(tmp_path):
  run(make_task([make_stage(), make_stage(killed_at=2)]), tmp_path)
  before = (tmp_path / metrics.FILE).read_bytes()
  task = make_task([make_stage(), make_stage()])
  assert trainer.evaluate(task, 5, tmp_path) == [
    {'step': 7, 'split': 'test', 'sum': 21.0 + 5},
    {'step': 11, 'split': 'test', 'sum': 6.0 + 5},
  ]
  assert (tmp_path / metrics.FILE).read_bytes() == before


@pytest.fixture(
  scope='module', params=[('topkast', 'masked'), ('rigl', 'compact')]
)
def whole(request, tmp_path_factory):
  """A config, and a run of it without interruption.

  Adam and the warm-up count the updates of each entry.
  """
  config = small.image(
    *request.param,
    method={'warmup_entering': 3},
    train={'num_micro': 2, 'on_not_finite': 'skip'},
  )
  config['optimizer'] = small.language('')['optimizer']
  return config, small.train(config, tmp_path_factory.mktemp('whole'))


def test_a_resumed_network_equals_an_uninterrupted_one_bit_for_bit(
  whole, tmp_path
):
  config, expected = whole

  def stop(step, metrics):
    if step < 20:
      os.kill(os.getpid(), signal.SIGINT)

  for at in (5, 10, 15):
    assert small.train(config, tmp_path, stop).outcome.step == at
  found = small.train(config, tmp_path)
  assert found.outcome.status == 'done'
  oracles.assert_same(found.state, expected.state)
  leaves = jax.tree.leaves(found.state)
  ages = [x for x in leaves if x.dtype == np.uint8 and x.ndim == 2]
  assert len(ages) == 4
  assert all(len(np.unique(x)) > 2 for x in ages[::2])
  for x in jax.tree.leaves(found.state.host_params):
    assert isinstance(x, np.ndarray)
  assert found.rows == expected.rows


def test_the_length_of_chunks_changes_no_bit(whole, tmp_path):
  config, expected = whole
  found = small.train(config, tmp_path, log_every=3, checkpoint_every=6)
  oracles.assert_same(found.state, expected.state)
  assert found.rows[-3:] == expected.rows[-3:]


def test_a_layer_that_pruning_empties_is_named(tmp_path):
  pruned = {'scope': 'global', 'density': 0.002, 'at': 5}
  with pytest.warns(UserWarning, match='no active entry in linear_0/w'):
    small.train(small.image('magnitude', method=pruned), tmp_path)


def test_the_generator_of_random_numbers_is_of_the_config_and_checkpoint(
  tmp_path,
):
  config = small.image('dense', train={'prng': 'rbg', 'num_steps': 10})
  config['prune']['output_layer'] = None
  task = table.make_task(config)
  assert str(jax.random.key_impl(task.stages[0].key(3))) == 'rbg'
  small.train(config, tmp_path)
  other = small.update(config, {'train': {'prng': 'threefry2x32'}})
  with pytest.raises(rundir.FolderError, match=r"prng: expected 'rbg', with"):
    trainer.train(table.make_task(other), 3, tmp_path, lambda *_: None)
