"""Strategies other than packing, on a small network; their penalties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.continual import strategies
from tests import oracles
from tests.experiments.tasks.continual import small


@pytest.mark.parametrize('name', ['fine_tuning', 'ewc', 'l2'])
def test_tasks_are_learned_and_may_be_forgotten(name):
  task, stages = small.finished(name)
  learned, accuracy = small.logits_of(task, stages[0][1], 0)
  assert accuracy > 0.8
  for number, (_, state, rows) in enumerate(stages):
    logits, accuracy = small.logits_of(task, state, 0)
    assert np.array_equal(logits, learned) == (number == 0)
    tested = {row['tested']: row for row in small.rows_of(rows, 'test')}
    assert list(tested) == list(range(1, min(number + 2, 3) + 1))
    assert tested[1]['accuracy'] == pytest.approx(accuracy)


@pytest.mark.parametrize('name', ['ewc', 'l2'])
def test_a_penalty_holds_the_weights(name):
  def moved(name):
    weights = [s.params['first']['w'] for _, s, _ in small.finished(name)[1]]
    return np.linalg.norm(weights[-1] - weights[0])

  assert moved(name) < 0.7 * moved('fine_tuning')


def test_joint_training_learns_all_tasks_in_one_stage():
  task, [(stage, state, rows)] = small.finished('joint')
  assert stage.num_steps == 180
  assert stage.labels == {'task': 3}
  accuracies = [small.logits_of(task, state, n)[1] for n in range(3)]
  assert min(accuracies) > 0.8
  tested = [row['accuracy'] for row in small.rows_of(rows, 'test')]
  np.testing.assert_allclose(tested, accuracies, rtol=1e-6)
  assert [(e.labels, e.step) for e in task.exports] == [({'task': 3}, 180)]


def test_each_network_alone_begins_anew():
  task, stages = small.finished('alone')
  drawn = [
    stage.begin(0, stages[last][1]).params
    for stage, last in zip(task.stages, (0, 0, 0), strict=True)
  ]
  again = task.stages[1].begin(0, stages[2][1]).params
  oracles.assert_same(again, drawn[1])
  assert not np.any(drawn[0]['first']['w'] == drawn[1]['first']['w'])
  for number, (_, _, rows) in enumerate(stages, 1):
    assert [r['tested'] for r in small.rows_of(rows, 'test')] == [number]


def test_decay_and_momentum_reach_no_other_head():
  task, stages = small.finished('fine_tuning')
  drawn = np.array(task.stages[0].begin(0, None).params['out']['w'])
  for number, (_, state, _) in enumerate(stages):
    stays = state.params['out']['w'] == drawn
    for head in range(3):
      own = stays[:, 3 * head : 3 * head + 3]
      assert own.all() if head > number else not own.any()


def test_the_anchor_has_the_gradient_of_one_penalty_a_task():
  shapes = {'w': (3, 4), 'b': (4,)}
  now, *drawn = (oracles.normal(shapes, seed) for seed in range(5))
  importances = [jax.tree.map(jax.nn.relu, x) for x in drawn[2:]]
  tasks = list(zip(drawn[:2], importances, strict=True))
  zeros = jax.tree.map(jnp.zeros_like, now)
  anchor = strategies.Anchor(zeros, zeros)
  for weights, importance in tasks:
    anchor = strategies.add_task(anchor, weights, importance)

  def separate(now):
    return sum(
      0.35 * jnp.sum(importance[name] * (now[name] - weights[name]) ** 2)
      for weights, importance in tasks
      for name in now
    )

  found = jax.grad(lambda w: strategies.penalty(anchor, w, 0.7))(now)
  oracles.assert_close(found, jax.grad(separate)(now), rtol=1e-4)
