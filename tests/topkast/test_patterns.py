"""Top-KAST in units of a pattern, against a slow choice in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import patterns
from tests import oracles
import topkast

SHAPE = (8, 10)
DENSITIES = 0.25, 0.5


def slow_fan_in(w, density):
  k = round(density * len(w))
  return np.stack([oracles.largest(column, k) for column in w.T], axis=1)


def slow_blocks(w, density):
  blocks = np.abs(w).reshape(4, 2, 2, 5).mean((1, 3))
  kept = oracles.largest(blocks, round(density * 8))
  return np.kron(kept, np.ones((2, 5), bool))


def slow_2_of_4(w, density):
  allowed = np.zeros(w.shape, bool)
  for start in (0, 4):
    for column in range(w.shape[1]):
      group = np.abs(w[start : start + 4, column])
      allowed[start + np.argsort(-group, kind='stable')[:2], column] = True
  return oracles.largest(w, round(density * w.size), among=allowed)


CASES = {
  'fan_in': (patterns.fan_in(), slow_fan_in),
  'blocks': (patterns.block(2, 5), slow_blocks),
  '2 of 4': (patterns.n_of_m(2, 4), slow_2_of_4),
}


def make(pattern, exploration='topk', **options):
  return topkast.topkast(
    optax.sgd(0.1, momentum=0.9),
    **dict(zip(('forward_density', 'backward_density'), DENSITIES, strict=True))
    | options,
    exploration=exploration,
    pattern=pattern,
  )


@pytest.mark.parametrize('name', CASES)
def test_both_sets_are_the_best_units_after_every_refresh(name):
  pattern, slow = CASES[name]
  params = oracles.normal({'linear': {'w': SHAPE, 'b': (10,)}}, seed=1)
  gradients = [oracles.normal(params, seed) for seed in (2, 3, 4)]
  for new, state in oracles.train(make(pattern), params, gradients):
    for mask, density in zip(state.sets, DENSITIES, strict=True):
      expected = slow(new['linear']['w'], density)
      np.testing.assert_array_equal(mask['linear']['w'], expected)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('factor', [1.0, 0.0])  # 0: all weights tie
def test_random_exploration_adds_units_to_the_best(name, factor):
  pattern, slow = CASES[name]
  weights = factor * oracles.normal({'w': SHAPE}, seed=5)['w']
  forward, backward = (
    np.asarray(x['linear']['w'])
    for x in make(pattern, 'random').init({'linear': {'w': weights}}).sets
  )
  np.testing.assert_array_equal(forward, slow(np.asarray(weights), 0.25))
  assert not (forward & ~backward).any()
  best = slow(np.asarray(weights), 0.5)
  assert backward.sum() == best.sum()
  if name == 'fan_in':
    np.testing.assert_array_equal(backward.sum(0), best.sum(0))


def test_a_denser_b_than_n_of_m_has_the_best_of_each_group_and_others():
  weights = oracles.normal({'linear': {'w': SHAPE}}, seed=6)
  tx = make(patterns.n_of_m(2, 4), forward_density=0.5, backward_density=0.75)
  forward, backward = (
    np.asarray(x['linear']['w']) for x in tx.init(weights).sets
  )
  w = np.asarray(weights['linear']['w'])
  np.testing.assert_array_equal(forward, slow_2_of_4(w, 0.5))
  rest = oracles.largest(w, 20, among=~forward)
  np.testing.assert_array_equal(backward, forward | rest)
  with pytest.raises(ValueError, match=r'up to 0\.5 .* got 0\.6 for linear'):
    make(patterns.n_of_m(2, 4), forward_density=0.6, backward_density=1.0).init(
      weights
    )


def test_a_layer_that_does_not_fit_is_named_or_left_dense():
  params = {'even': {'w': jnp.ones((8, 4))}, 'odd': {'w': jnp.ones((5, 4))}}
  with pytest.raises(ValueError, match=r'2 of 4, got odd/w \(5, 4\): .*dense'):
    make(patterns.n_of_m(2, 4)).init(params)
  state = make(patterns.n_of_m(2, 4), otherwise='dense').init(params)
  shapes = jax.tree.map(jnp.shape, state.sets.forward)
  assert shapes == {'even': {'w': (8, 4)}, 'odd': {'w': ()}}
  assert state.sets.forward['even']['w'].sum() == 8
  with pytest.raises(ValueError, match=r"otherwise out of .* got 'sparse'"):
    make(patterns.fan_in(), otherwise='sparse')


def test_compact_training_takes_units_as_single_entries():
  params = oracles.normal({'linear': {'w': SHAPE}}, seed=7)
  gradient = oracles.normal(params, seed=8)
  tx = make(patterns.block(2, 5))
  training = sparsity.compact.compact(tx)
  compact, state, host_params = training.init(params)
  masked, masked_state = params, tx.init(params)
  for _ in range(2):
    entries = state.entries['linear/w']
    at = sparsity.compact.entries.places(entries.structure, SHAPE)
    own = {'linear': {'w': gradient['linear']['w'].reshape(-1)[at][None]}}
    updates, state = training.update(own, state, compact)
    compact = optax.apply_updates(compact, updates)
    compact, state, host_params = training.refresh(compact, state, host_params)
    updates, masked_state = tx.update(gradient, masked_state, masked)
    masked = optax.apply_updates(masked, updates)
  oracles.assert_same(training.unpack(compact, state, host_params)[0], masked)
  sets = sparsity.active_sets(state, compact)
  oracles.assert_same(sets, masked_state.sets)
