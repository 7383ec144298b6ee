"""AC/DC against a slow simulation."""

import functools
import math

import numpy as np
import optax
import pytest

import powerprop
import sparsity
from sparsity import flops
from tests import oracles

ACDC = functools.partial(
  sparsity.acdc, density=0.2, start=3, end=18, phase_steps=3
)
COUNTS = {'a': 13, 'b': 11}
RATE = 0.3


def normal(seed):
  return oracles.normal({'a': {'w': (9, 7)}, 'b': {'w': (11, 5)}}, seed)


def run(tx, num_updates):
  """Returns (params, state) before and after each update."""
  return oracles.train(tx, normal(0), map(normal, range(1, num_updates + 1)))


def slow_phases(start, end, phase_steps, num_updates):
  """Returns for each update whether its sets are dense."""
  phases = [True] * start
  while len(phases) + 2 * phase_steps <= end:
    phases += [False] * phase_steps + [True] * phase_steps
  phases += [True] * (end - len(phases))
  return (phases + [False] * num_updates)[:num_updates]


def slow_masks(weights, scope):
  """Returns the masks at density 0.2."""
  if scope == 'global':
    return oracles.largest_over(weights, 24)
  return list(map(oracles.largest, weights, COUNTS.values()))


@pytest.mark.parametrize('scope', ['layer', 'global'])
@pytest.mark.parametrize('grow_at', [0.0, 0.25])
def test_sets_weights_and_momentum_are_those_of_a_slow_simulation(
  scope, grow_at
):
  num_updates = 24
  tx = ACDC(optax.sgd(RATE, momentum=0.5), scope=scope, grow_at=grow_at)
  found = run(tx, num_updates)
  phases = slow_phases(3, 18, 3, num_updates + 1)
  weights = [np.asarray(normal(0)[x]['w'], np.float64) for x in COUNTS]
  traces = [np.zeros(w.shape) for w in weights]
  masks = [np.ones(w.shape, bool) for w in weights]
  for t in range(1, num_updates + 1):
    for i, layer in enumerate(COUNTS):
      gradient = masks[i] * np.asarray(normal(t)[layer]['w'])
      traces[i] = masks[i] * (0.5 * traces[i] + gradient)
      weights[i] = weights[i] - RATE * traces[i]
    if phases[t - 1] and not phases[t]:
      masks = slow_masks(weights, scope)
      traces = [x * mask for x, mask in zip(traces, masks, strict=True)]
    if phases[t] and not phases[t - 1]:
      weights = [
        np.where(mask, w, np.copysign(grow_at, w))
        for w, mask in zip(weights, masks, strict=True)
      ]
      masks = [np.ones(w.shape, bool) for w in weights]
    params, state = found[t]
    oracles.assert_same(*state.sets)
    for i, layer in enumerate(COUNTS):
      np.testing.assert_array_equal(state.sets.forward[layer]['w'], masks[i])
      np.testing.assert_allclose(
        params[layer]['w'], weights[i], rtol=1e-4, atol=1e-5
      )
      np.testing.assert_allclose(
        state.inner[0].trace[layer]['w'], traces[i], rtol=1e-4, atol=1e-5
      )
  assert sum(int(mask.sum()) for mask in masks) == 24


@pytest.mark.parametrize(
  ('start', 'end', 'phase_steps'), [(1, 3, 1), (2, 15, 3), (10, 85, 5)]
)
def test_phases_alternate_and_cost_their_share(start, end, phase_steps):
  is_dense = sparsity.alternating(end, phase_steps, start=start)
  num_steps = end + 7
  expected = slow_phases(start, end, phase_steps, num_steps)
  np.testing.assert_array_equal(is_dense(np.arange(num_steps)), expected)
  unpruned = flops.unpruned_acdc(
    num_steps=num_steps, start=start, end=end, phase_steps=phase_steps
  )
  assert math.isclose(unpruned, sum(expected) / num_steps)


def test_the_released_schedule_of_imagenet_has_seven_phases_and_a_long_one():
  # Epochs at which the authors' configs prune and restore weights.
  is_dense = np.asarray(sparsity.alternating(85, 5, start=10)(np.arange(100)))
  changes = np.flatnonzero(np.diff(is_dense)) + 1
  prunes, restores = (*range(10, 71, 10), 85), (*range(15, 66, 10), 75)
  np.testing.assert_array_equal(changes, sorted((*prunes, *restores)))


def test_with_powerprop_weights_return_at_grow_at_and_move():
  inner = powerprop.powerprop(optax.sgd(0.1), 2.0)
  found = run(ACDC(inner, grow_at=0.1), 8)
  (old, state), (entered, _), (moved, _) = found[5:8]
  out = ~state.sets.forward['a']['w']
  values, starts = old['a']['w'][out], entered['a']['w'][out]
  np.testing.assert_allclose(starts, 0.1 * np.sign(values), rtol=1e-5)
  assert (moved['a']['w'][out] != starts).all()


def test_compact_storage_refuses_changing_numbers():
  with pytest.raises(ValueError, match='number of active entries never'):
    sparsity.compact.compact(ACDC(optax.sgd(0.1)))


def test_n_of_m_holds_in_sparse_phases():
  pattern = sparsity.patterns.n_of_m(1, 4)
  tx = ACDC(optax.sgd(0.1), density=0.25, pattern=pattern)
  params, *gradients = (oracles.normal({'w': (8, 5)}, i) for i in range(8))
  for t, (_, state) in enumerate(oracles.train(tx, params, gradients)):
    groups = state.sets.forward['w'].reshape(2, 4, 5).sum(1)
    dense = slow_phases(3, 18, 3, 20)[t]
    np.testing.assert_array_equal(groups, 4 if dense else 1)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'start': 0}, 'start >= 1, got 0'),
    ({'phase_steps': 0}, 'phase_steps >= 1, got 0'),
    ({'end': 8}, r'start \+ 2 \* phase_steps.* got start=3, end=8, phase_st'),
    ({'grow_at': -1.0}, 'grow_at >= 0, got -1'),
    ({'density': 1.5}, r'in \(0, 1\], got 1.5'),
  ],
)
def test_phases_that_do_not_fit_are_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    ACDC(optax.sgd(0.1), **options)


def test_fewer_steps_than_phases_have_no_cost():
  with pytest.raises(ValueError, match='num_steps >= end=18, got 17'):
    flops.unpruned_acdc(num_steps=17, start=3, end=18, phase_steps=3)
