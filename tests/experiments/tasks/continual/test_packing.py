"""PackNet and EfficientPackNet: nothing forgotten, on a small network."""

import jax
import numpy as np
import pytest

from experiments.tasks.continual import stages
from tests.experiments.tasks.continual import small


@pytest.mark.parametrize('name', ['adam', 'efficient', 'packnet'])
def test_nothing_is_forgotten_bit_for_bit(name):
  task, stages = small.finished(name)
  ends = {stage.labels['task'] - 1: state for stage, state, _ in stages}
  assert len(ends) == small.NUM_TASKS
  for number, state in ends.items():
    learned, accuracy = small.logits_of(task, state, number)
    assert accuracy > 0.6 or name == 'adam'
    for later in range(number + 1, small.NUM_TASKS):
      logits, _ = small.logits_of(task, ends[later], number)
      np.testing.assert_array_equal(logits, learned)


@pytest.mark.parametrize(
  ('name', 'is_shared'), [('efficient', True), ('packnet', False)]
)
def test_batch_statistics_are_of_the_first_task_or_of_each(name, is_shared):
  task, stages = small.finished(name)
  ends = [state for stage, state, rows in stages if rows]
  statistics = [jax.tree.leaves(s.net_state.statistics) for s in ends]
  assert statistics[0]
  for later in statistics[1:]:
    assert all(map(np.array_equal, statistics[0], later)) == is_shared
  for export, state, own in zip(task.exports, ends, statistics, strict=True):
    *_, exported = export.extract(state)
    assert all(map(np.array_equal, jax.tree.leaves(exported), own))
  assert task.stages[-1].is_training != is_shared


def test_another_seed_compiles_nothing(caplog):
  task, _ = small.finished('packnet')
  with jax.log_compiles():
    list(small.run(task, seed=1))
    assert 'Compiling' not in caplog.text
    jax.jit(lambda x: x + 1)(0)
    assert 'Compiling' in caplog.text


def test_packnet_claims_a_share_and_retrains_it():
  task, stages = small.finished('packnet')
  assert [(e.labels, e.step) for e in task.exports] == [
    ({'task': 1}, 80), ({'task': 2}, 160), ({'task': 3}, 240),
  ]  # fmt: skip
  assert [stage.labels for stage, *_ in stages] == [
    {'task': task, 'phase': phase} for task in (1, 2, 3) for phase in (1, 2)
  ]
  assert [stage.num_steps for stage, *_ in stages] == [60, 20] * 3
  keys = [jax.random.key_data(stage.key(0)) for stage, *_ in stages]
  assert len({np.asarray(key).tobytes() for key in keys}) == 6
  for stage, state, rows in stages:
    owners = state.net_state.memory.pack.owner.values()
    share = np.mean(np.concatenate([x.ravel() > 0 for x in owners]))
    assert share == pytest.approx(stage.labels['task'] / 3, abs=0.01)
    assert bool(small.rows_of(rows, 'learned')) == (stage.labels['phase'] == 2)
  [(_, before, _), (_, after, _)] = stages[2:4]
  owner = after.net_state.memory.pack.owner['second/w']
  moved = before.params['second']['w'] != after.params['second']['w']
  assert moved[owner == 2].any()
  assert not moved[owner != 2].any()


def test_a_packed_run_has_every_row():
  _, stages = small.finished('efficient')
  owned = []
  for number, (_, _, rows) in enumerate(stages, 1):
    tested = [row['tested'] for row in small.rows_of(rows, 'test')]
    assert tested == list(range(1, min(number + 1, 3) + 1))
    [learned] = small.rows_of(rows, 'learned')
    kept = dict(map(tuple, learned['tried'])).get(
      learned['density'], learned['full_accuracy']
    )
    assert learned['accuracy'] == kept
    assert len(small.rows_of(rows, 'untrained')) == (3 if number == 1 else 0)
    usage = {row['layer']: row for row in small.rows_of(rows, 'usage')}
    assert set(usage) == {'first/w', 'second/w', 'all'}
    owned.append(usage['all']['owned'])
    assert owned[-1] + usage['all']['free'] == pytest.approx(1)
  assert owned == sorted(owned)


def test_forgetting_is_an_error_unless_the_check_is_off():
  task, finished_stages = small.finished('efficient')
  _, state, rows = finished_stages[-1]
  owner = state.net_state.memory.pack.owner['first/w']
  first = state.params['first']
  other_bits = np.where(owner == 1, np.nextafter(first['w'], 9), first['w'])
  changed = state._replace(
    params=state.params | {'first': first | {'w': other_bits}}
  )
  with pytest.raises(stages.ForgettingError, match='logits of task 1 bit'):
    task.stages[-1].report(0, changed)
  off = small.make_task(
    **small.CASES['efficient'], test={'check_forgetting': False}
  )
  assert len(off.stages[-1].report(0, changed)) == len(rows) - 1  # no 'learned'


def test_a_full_network_trains_its_new_head_only():
  full = small.EFFICIENT | {'gamma': 0.0, 'densities': (1.0,)}
  task = small.make_task(strategy=full)
  (_, before, _), (_, after, _) = small.run(task, 2)
  for layer in ('first', 'second'):
    np.testing.assert_array_equal(
      before.params[layer]['w'], after.params[layer]['w']
    )
  changed = before.params['out']['w'] != after.params['out']['w']
  assert changed[:, 3:6].all()
  assert not changed[:, :3].any()
