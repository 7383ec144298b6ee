"""Schedules and optimizers against formulas; mistakes in their sections."""

import functools
import math

import jax
import numpy as np
import optax
import pytest

from experiments import build
from experiments import optimizers
from tests import oracles
from tests.experiments import small

make = functools.partial(
  build.build,
  optimizers.OPTIMIZERS,
  sets_move=False,
  penalty=optax.identity(),
)
SCHEDULES = {
  'constant': (
    {'warmup_steps': 4},
    lambda step: min(1, (step + 1) / 4),
  ),
  'cosine': (
    {'warmup_steps': 2, 'num_steps': 10, 'final': 0.1},
    lambda step: min(1, (step + 1) / 2) * (
      0.1 + 0.9 * (1 + math.cos(math.pi * min(1, max(0, step - 2) / 8))) / 2
    ),
  ),
  'piecewise': (
    {'warmup_steps': 0, 'boundaries': (3, 7), 'factor': 0.5},
    lambda step: 0.5 ** ((step >= 3) + (step >= 7)),
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', SCHEDULES)
def test_a_schedule_has_its_factors(name):
  section, expected = SCHEDULES[name]
  schedule = build.build(optimizers.SCHEDULES, {'name': name, **section})
  for step in range(12):
    assert float(schedule(step)) == pytest.approx(expected(step), rel=1e-6)


@pytest.mark.parametrize('name', ['sgd', 'adam'])
@pytest.mark.parametrize(('a', 'b'), [(30.0, 0.5), (0.0, 2.0)])
def test_ham_follows_the_step_of_the_optimizer(name, a, b):
  own = {'sgd': small.image(), 'adam': small.language('')}[name]['optimizer']
  schedule = {'name': 'piecewise', **SCHEDULES['piecewise'][0]}
  schedule['boundaries'] = (1,)
  section = own | {
    'learning_rate': 0.1, 'schedule': schedule, 'weight_decay': 0.2,
    'clip_norm': 1.0,
  }  # fmt: skip
  plain, tx = (
    make(section | {'ham_a': x, 'ham_b': y}) for x, y in ((0.0, 0.0), (a, b))
  )
  params = oracles.normal({'l': {'w': (5, 4), 'b': (4,)}}, 0)
  plain_state, state = plain.init(params), tx.init(params)
  for step in range(3):
    gradients = oracles.normal(params, step + 1)
    expected, plain_state = plain.update(gradients, plain_state, params)
    expected = optax.apply_updates(params, expected)
    w = np.float64(expected['l']['w'])
    gradient = gradients['l']['w'] / optax.tree.norm(gradients)
    rate = 0.1 if step < 1 else 0.05
    w = w * np.exp(-rate * (a * np.sign(w) * gradient + b))
    updates, state = tx.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    expected['l']['w'] = w
    oracles.assert_close(params, expected)


@pytest.mark.parametrize('key', ['ham_a', 'ham_b'])
def test_a_negative_strength_of_ham_is_refused(key):
  section = small.image()['optimizer'] | {key: -1.0}
  with pytest.raises(ValueError, match=rf'{key} in \[0, inf\), got -1'):
    make(section)


@pytest.mark.parametrize(
  ('section', 'expected'),
  [
    (small.image()['optimizer'] | {'momentum': 0.0, 'clip_norm': 0.1}, 0.1),
    (small.language('')['optimizer'] | {'clip_norm': 0.1}, 1.5),
  ],
)
def test_a_penalty_is_clipped_with_the_gradient_but_decoupled_from_adam(
  section, expected
):
  section = section | {'learning_rate': 1.0, 'weight_decay': 0.0}
  params = {'l': {'w': np.full((1, 1), 3.0, np.float32)}}
  tx = make(section, penalty=optax.add_decayed_weights(0.5))
  none = jax.tree.map(np.zeros_like, params)
  updates, _ = tx.update(none, tx.init(params), params)
  np.testing.assert_allclose(updates['l']['w'], -expected, rtol=1e-6)


def test_adam_counts_by_entry_only_if_the_sets_move():
  section = small.language('')['optimizer']
  params = oracles.normal({'l': {'w': (5, 4)}}, 0)
  plain, counted = (
    make(section, sets_move=sets_move).init(params)
    for sets_move in (False, True)
  )
  sizes = [sum(x.size for x in jax.tree.leaves(x)) for x in (plain, counted)]
  assert sizes[1] - sizes[0] == 20
