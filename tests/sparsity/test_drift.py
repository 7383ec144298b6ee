"""Links and wrappers around a sparse method: exact, or one clear error."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from tests import oracles
import topkast

SHAPES = {'a': {'w': (12, 8), 'b': (8,)}, 'c': {'w': (8, 6)}}
PARAMS = oracles.normal(SHAPES, 0)
TARGET = oracles.normal(SHAPES, 1)


def make_tx(inner=None, **options):
  options = {
    'forward_density': 0.25, 'backward_density': 0.5, 'refresh_every': 3,
  } | options  # fmt: skip
  return topkast.topkast(inner or optax.adam(0.05), **options)


def train(tx, num_steps=8, jit=True, params=PARAMS):
  state = tx.init(params)

  def step(params, state):
    weights = topkast.weights(params, state)
    gradients = jax.tree.map(jnp.subtract, weights, TARGET)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  step = jax.jit(step) if jit else step
  for _ in range(num_steps):
    params, state = step(params, state)
  return params, state


STALE = {
  'decay': lambda tx: optax.chain(tx, optax.add_decayed_weights(0.01)),
  'learning rate': lambda tx: optax.chain(tx, optax.scale(0.1)),
  'momentum': lambda tx: optax.chain(tx, optax.trace(0.9)),
  'schedule_free': lambda tx: optax.contrib.schedule_free(tx, 0.1),
}


@pytest.mark.parametrize('name', STALE)
def test_updates_changed_after_the_method_are_an_error(name):
  tx = STALE[name](make_tx())
  with pytest.raises(ValueError, match=r'sets are stale.*sparsity\.chain'):
    train(tx, jit=False)
  # A traced update is NaN, and the concrete state says why.
  with pytest.raises(ValueError, match='sets are stale'):
    sparsity.active_sets(train(tx)[1])


def test_a_stale_state_makes_updates_nan_under_jit():
  tx = make_tx()
  state = tx.init(PARAMS)
  update = jax.jit(tx.update)
  for _ in range(3):  # parameters never follow
    updates, state = update(PARAMS, state, PARAMS)
  assert np.isnan(updates['a']['w']).any()


LEGITIMATE = {
  'itself': lambda: make_tx(),
  'MultiSteps around': lambda: optax.MultiSteps(
    make_tx(), 2
  ).gradient_transformation(),
  'MultiSteps inside': lambda: make_tx(
    optax.MultiSteps(optax.adam(0.05), 2).gradient_transformation()
  ),
  'apply_if_finite': lambda: optax.apply_if_finite(make_tx(), 3),
  'chain before': lambda: optax.chain(optax.clip(1.0), make_tx()),
  'powerprop': lambda: make_tx(powerprop.powerprop(optax.sgd(0.01), 2.0)),
  'gradual': lambda: sparsity.gradual(
    optax.adam(0.05), density=0.3, start=0, end=6, prune_every=2
  ),
  'rigl': lambda: sparsity.rigl(
    optax.adam(0.05), density=0.3, refresh_every=3, stop_refresh_at=9
  ),
  'set': lambda: sparsity.set_(optax.adam(0.05), density=0.3, refresh_every=1),
  'injected': lambda: optax.inject_hyperparams(
    lambda learning_rate: make_tx(optax.adam(learning_rate))
  )(learning_rate=optax.linear_schedule(0.05, 0.0, 9)),
}


@pytest.mark.parametrize('name', LEGITIMATE)
@pytest.mark.parametrize('jit', [True, False])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_ordinary_training_is_not_stale(name, jit, dtype):
  params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
  found, state = train(LEGITIMATE[name](), 9, jit, params)
  assert sparsity.active_sets(state)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_links_of_chain_are_those_of_the_inner_optimizer():
  links = optax.add_decayed_weights(0.1), optax.scale(-0.05)
  inside = make_tx(optax.chain(optax.scale_by_adam(), *links))
  chained = sparsity.chain(make_tx(optax.scale_by_adam()), *links)
  found, expected = train(chained), train(inside)
  oracles.assert_same(found[0], expected[0])
  oracles.assert_same(found[1].sets, expected[1].sets)
  with pytest.raises(ValueError, match='expected a sparse method'):
    sparsity.chain(optax.adam(0.1), *links)


def test_sets_of_a_partition_are_joined_leaf_by_leaf():
  labels = {'a': {'w': 'a', 'b': 'rest'}, 'c': {'w': 'c'}}
  tx = optax.partition(
    {
      'a': make_tx(),
      'c': sparsity.static(optax.adam(0.05), density=0.5, seed=3),
      'rest': optax.sgd(0.1),
    },
    labels,
  )
  params, state = train(tx)
  forward = sparsity.active_sets(state).forward
  assert int(forward['a']['w'].sum()) == 24
  assert int(forward['c']['w'].sum()) == 24
  assert bool(forward['a']['b'])
  weights = topkast.weights(params, state)
  for layer in ('a', 'c'):
    np.testing.assert_array_equal(
      weights[layer]['w'], params[layer]['w'] * forward[layer]['w']
    )
  np.testing.assert_array_equal(weights['a']['b'], params['a']['b'])
  prefix = optax.masked(make_tx(), {'a': True, 'c': False})
  sets = sparsity.active_sets(prefix.init(PARAMS))
  assert bool(sets.forward['c'])
  weights = topkast.weights(PARAMS, prefix.init(PARAMS))
  np.testing.assert_array_equal(weights['c']['w'], PARAMS['c']['w'])


def test_members_of_a_vmap_have_masks_of_their_own_seed():
  def init(seed):
    tx = sparsity.static(optax.adam(0.1), density=0.5, seed=seed)
    return tx.init(PARAMS).sets

  sets = jax.vmap(init)(jnp.arange(3))
  for seed in (0, 2):
    member = jax.tree.map(lambda x, seed=seed: x[seed], sets)
    oracles.assert_same(member, init(seed))
  assert not np.array_equal(*sets.forward['a']['w'][:2])


def test_scan_with_donated_arrays_and_a_pickled_state_go_on_the_same():
  tx = make_tx()

  def step(carry, _):
    params, state = carry
    gradients = jax.tree.map(
      jnp.subtract, topkast.weights(params, state), TARGET
    )
    updates, state = tx.update(gradients, state, params)
    return (optax.apply_updates(params, updates), state), None

  def run(carry, num):
    return jax.jit(
      lambda carry: jax.lax.scan(step, carry, length=num)[0], donate_argnums=0
    )(carry)

  start = jax.tree.map(jnp.copy, PARAMS)
  half = run((start, tx.init(PARAMS)), 4)
  half = pickle.loads(pickle.dumps(jax.device_get(half)))
  oracles.assert_close(run(half, 4)[0], train(tx)[0])
