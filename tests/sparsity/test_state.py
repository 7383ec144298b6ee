"""The wrapper with a rule of its own; all methods are in test_methods."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import schedules

W = jnp.arange(1.0, 13.0).reshape(3, 4)
PARAMS = {'linear': {'w': W, 'b': jnp.arange(4.0)}}
GRADIENTS = jax.tree.map(jnp.ones_like, PARAMS)
LAYER = 'linear/w'


def row(i):
  return {LAYER: jnp.zeros((3, 4), bool).at[i].set(True)}


def walk(now, counts):
  """Rule of these tests: after update n the set is row n % 3."""
  assert counts.forward == {LAYER: 4}
  return sparsity.ActiveSets(row(now.count % 3), row(now.count % 3))


def make_tx(inner, interval=1, refresh=walk, seed=0):
  return sparsity.sparsify(
    inner,
    sparsity.Rule(
      init=lambda weights, counts, key: sparsity.ActiveSets(row(0), row(0)),
      refresh=refresh,
    ),
    sparsity.make_counts(forward_density=1 / 3),
    is_due=schedules.every(interval),
    seed=seed,
  )


def test_the_inner_optimizer_gets_gradients_and_parameters_on_the_set_only():
  seen = {}

  def init(params):
    seen.setdefault('initial', params)
    return optax.EmptyState()

  def update(updates, state, params=None):
    seen.update(updates=updates, params=params)
    return jax.tree.map(jnp.ones_like, updates), state

  tx = make_tx(optax.GradientTransformation(init, update))
  updates, _ = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
  mask = np.asarray(row(0)[LAYER])
  ones = {'linear': {'w': mask, 'b': np.ones(4)}}
  params = {'linear': {'w': mask * W, 'b': PARAMS['linear']['b']}}
  jax.tree.map(
    np.testing.assert_array_equal,
    (seen['updates'], updates, seen['params'], seen['initial']),
    (ones, ones, params, params),
  )


def test_a_rule_gets_the_next_parameters_and_dense_gradients():
  seen = []

  def refresh(now, counts):
    seen.append(now)
    return walk(now, counts)

  tx = make_tx(optax.sgd(0.5), refresh=refresh, seed=3)
  with jax.disable_jit():
    updates, _ = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
  [now] = seen
  np.testing.assert_array_equal(
    now.weights[LAYER], optax.apply_updates(PARAMS, updates)['linear']['w']
  )
  np.testing.assert_array_equal(now.gradients[LAYER], 1.0)
  np.testing.assert_array_equal(now.sets.backward[LAYER], row(0)[LAYER])
  assert now.count == 1
  assert now.key == jax.random.fold_in(jax.random.key(3), 1)


@pytest.mark.parametrize(
  'inner',
  [
    optax.masked(optax.trace(0.9), {'linear': {'w': True, 'b': False}}),
    optax.apply_if_finite(optax.trace(0.9), 3),
    optax.chain(optax.trace(0.9), optax.add_noise(0.0, 0.5, jax.random.key(1))),
  ],
  ids=['masked', 'apply_if_finite', 'add_noise'],
)
def test_nested_states_are_reset_entry_by_entry(inner):
  tx = make_tx(inner, interval=2)
  state, update = tx.init(PARAMS), jax.jit(tx.update)
  for _ in range(2):
    _, state = update(GRADIENTS, state, PARAMS)
  arrays = [x for x in jax.tree.leaves(state.inner) if jnp.shape(x) == (3, 4)]
  assert arrays
  assert not any(x.any() for x in arrays)


def test_statistics_of_rows_and_columns_are_left_alone():
  params = {'linear': {'w': jnp.ones((3, 4))}}
  tx = make_tx(optax.scale_by_factored_rms(min_dim_size_to_factor=2))
  _, state = jax.jit(tx.update)(params, tx.init(params), params)
  assert state.inner.v_row['linear']['w'].any()
  assert state.inner.v_col['linear']['w'].any()


def test_sets_of_two_states_are_intersected():
  state = make_tx(optax.identity()).init(PARAMS)
  other = state._replace(sets=jax.tree.map(jnp.logical_not, state.sets))
  sets = sparsity.active_sets((state, other))
  assert not any(mask.any() for mask in jax.tree.leaves(sets))


def test_a_state_without_sets_or_with_two_is_an_error():
  with pytest.raises(ValueError, match=r'a SparseState, got .* with none'):
    sparsity.active_sets(optax.adam(0.1).init(PARAMS))
  two = optax.chain(make_tx(optax.identity()), make_tx(optax.identity()))
  with pytest.raises(ValueError, match='with 2'):
    sparsity.sparse_state(two.init(PARAMS))
