"""The wrapper with a rule of its own; all methods are in test_methods."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from tests import oracles
from tests.sparsity import optimizers
import topkast

PARAMS = {
  'linear': {'w': jnp.arange(1.0, 25.0).reshape(4, 6), 'b': jnp.ones(6)}
}
GRADIENTS = jax.tree.map(jnp.ones_like, PARAMS)


def test_the_inner_optimizer_gets_gradients_and_parameters_on_the_set_only():
  seen = {}

  def init(params):
    seen.setdefault('initial', params)
    return optax.EmptyState()

  def update(updates, state, params=None):
    seen.update(updates=updates, params=params)
    return jax.tree.map(jnp.ones_like, updates), state

  tx = optimizers.make_method(optax.GradientTransformation(init, update))
  state = tx.init(PARAMS)
  updates, _ = tx.update(GRADIENTS, state, PARAMS)
  ones = jax.tree.map(jnp.asarray, state.sets.backward)
  ones['linear']['b'] = jnp.ones(6)
  params = jax.tree.map(jnp.multiply, ones, PARAMS)
  jax.tree.map(
    np.testing.assert_array_equal,
    (seen['updates'], updates, seen['params'], seen['initial']),
    (ones, ones, params, params),
  )


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
  tx = optimizers.make_method(inner)
  state, update = tx.init(PARAMS), jax.jit(tx.update)
  for _ in range(2):
    _, state = update(GRADIENTS, state, PARAMS)
  arrays = [x for x in jax.tree.leaves(state.inner) if jnp.shape(x) == (4, 6)]
  assert arrays
  assert not any(x.any() for x in arrays)


def test_statistics_of_rows_and_columns_are_left_alone():
  inner = optax.scale_by_factored_rms(min_dim_size_to_factor=2)
  tx = optimizers.make_method(inner)
  _, state = jax.jit(tx.update)(GRADIENTS, tx.init(PARAMS), PARAMS)
  assert state.inner.v_row['linear']['w'].any()
  assert state.inner.v_col['linear']['w'].any()


def test_a_state_without_sets_or_with_two_is_an_error():
  with pytest.raises(ValueError, match=r'a SparseState, got .* with none'):
    sparsity.active_sets(optax.adam(0.1).init(PARAMS))
  two = optax.chain(*[optimizers.make_method(optax.identity())] * 2)
  with pytest.raises(ValueError, match='with 2'):
    sparsity.sparse_state(two.init(PARAMS))


@pytest.mark.parametrize(
  'make',
  [
    lambda inner: topkast.topkast(
      optax.chain(topkast.exploration_penalty(1e-4), inner),
      forward_density=0.6,
      backward_density=0.7,
      dense=('^first',),
      explore_scale=0.5,
    ),
    lambda inner: sparsity.rigl(
      inner, density=0.6, refresh_every=1, stop_refresh_at=9, dense=('^first',)
    ),
    lambda inner: sparsity.magnitude(
      inner, density=0.6, at=1, dense=('^first',)
    ),
  ],
  ids=['topkast', 'rigl', 'magnitude'],
)
def test_a_dense_leaf_has_a_single_true_and_a_step_has_no_mask_of_it(make):
  tx = make(optax.sgd(0.1, momentum=0.9))
  params = oracles.normal({'first': {'w': (3, 5)}, **PARAMS}, seed=0)
  state = tx.init(params)
  shapes = jax.tree.map(jnp.shape, state.sets.forward)
  assert shapes == {'first': {'w': ()}, 'linear': {'w': (4, 6), 'b': ()}}
  assert sum(x.nbytes for x in jax.tree.leaves(state.sets)) == 2 * (24 + 1 + 1)

  def step(params, state):
    weights = sparsity.forward_weights(params, state)
    updates, state = tx.update(weights, state, params)
    return optax.apply_updates(params, updates), state

  text = jax.jit(step).lower(params, state).as_text()
  assert '4x6xi1' in text
  assert not any(f'tensor<{shape}xi1>' in text for shape in ('3x5', '6'))
  weights = sparsity.forward_weights(params, state)
  oracles.assert_same(weights['first'], params['first'])
  total = 15 + int(state.sets.forward['linear']['w'].sum())
  selected = {'first': 0, 'linear': 0}
  found = sparsity.density(
    *({name: tree[name]['w'] for name in selected}
      for tree in (state.sets.forward, params))
  )  # fmt: skip
  assert found == pytest.approx(total / 39)
  with pytest.raises(ValueError, match='expected params with a single'):
    sparsity.density(state.sets.forward)
