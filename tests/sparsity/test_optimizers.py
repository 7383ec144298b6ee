"""Optimizers inside and around a sparse method: exact, or one clear error."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from tests import oracles
from tests.sparsity import optimizers
import topkast

DENSITIES = {'forward_density': 0.25, 'backward_density': 0.5}
TOPKAST = functools.partial(topkast.topkast, **DENSITIES, refresh_every=2)
PAGE = optimizers.PAGE.read_text()
# A refresh of RigL makes no step.
RIGL = functools.partial(
  sparsity.rigl, density=0.5, refresh_every=2, stop_refresh_at=9
)
SHAPES = {'a': {'w': (12, 8), 'b': (8,)}, 'c': {'w': (8, 6)}}
PARAMS = oracles.normal(SHAPES, 0)
TARGET = oracles.normal(SHAPES, 1)


@pytest.mark.parametrize('name', optimizers.makers())
def test_every_transformation_of_optax_does_as_recorded(name):
  rows = [x for x in PAGE.splitlines() if x.startswith('| `')][1:]
  hint = 'run python -m tests.sparsity.optimizers'
  assert optimizers.row(name) in rows, hint
  assert len(rows) == len(optimizers.makers()), hint


@pytest.mark.nightly
@pytest.mark.parametrize('name', optimizers.makers())
def test_transformations_do_so_around_and_inside_rigl(name):
  [recorded] = [x for x in PAGE.splitlines() if x.startswith(f'| `{name}` |')]
  found = optimizers.row(name, RIGL)
  assert found.count('| works') == recorded.count('| works')


def train(tx, num_steps=4, jit=True, params=PARAMS):
  step = oracles.make_step(tx, TARGET)
  step = jax.jit(step) if jit else step
  state = tx.init(params)
  for _ in range(num_steps):
    params, state = step(params, state)
  return params, state


# With the number of the update that finds it.
STALE = {
  'decay': (optax.add_decayed_weights(1e-4), 2),
  'decay by one ulp': (optax.add_decayed_weights(1e-7), 3),
  'learning rate': (optax.scale(0.9), 2),
}


@pytest.mark.parametrize('name', STALE)
def test_a_link_after_the_method_is_an_error_at_the_next_update(name):
  inner = optax.sgd(0.1)
  link, last = STALE[name]
  tx = optax.chain(optimizers.make_method(inner), link)
  train(tx, last - 1, jit=False)
  with pytest.raises(ValueError, match=r'sets are stale.*sparsity\.chain'):
    train(tx, last, jit=False)
  # A traced update is NaN, and the concrete state says why.
  params, state = train(tx, last)
  assert np.isnan(params['a']['w']).any()
  with pytest.raises(ValueError, match='sets are stale'):
    sparsity.active_sets(state)
  train(sparsity.chain(optimizers.make_method(inner), link), jit=False)


AROUND = {
  'accumulated': lambda: optax.MultiSteps(
    TOPKAST(optax.adam(0.1)), 2
  ).gradient_transformation(),
  'if finite': lambda: optax.apply_if_finite(TOPKAST(optax.sgd(0.1)), 3),
  'injected': lambda: optax.inject_hyperparams(
    topkast.topkast,
    static_args=(*DENSITIES, 'refresh_every', 'stop_refresh_at', 'select'),
  )(powerprop.powerprop(optax.sgd(0.05), 2.0), **DENSITIES, refresh_every=2),
}


@pytest.mark.parametrize(
  ('name', 'jit'),
  [('accumulated', True), ('if finite', True), ('injected', True)],
)
def test_ordinary_training_in_bfloat16_is_not_stale(name, jit, monkeypatch):
  params, target = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16), (PARAMS, TARGET)
  )
  monkeypatch.setitem(globals(), 'TARGET', target)
  found, state = train(AROUND[name](), 5, jit, params)
  assert int(sparsity.active_sets(state).forward['a']['w'].sum()) == 24
  assert np.isfinite(found['a']['w']).all()
  assert not np.array_equal(found['a']['w'], params['a']['w'])


def test_injected_densities_are_refused():
  injected = optax.inject_hyperparams(topkast.topkast, static_args='select')
  with pytest.raises(ValueError, match='name it in static_args'):
    injected(optax.sgd(0.1), **DENSITIES).init(PARAMS)


def test_links_of_chain_are_those_of_the_inner_optimizer():
  links = optax.add_decayed_weights(0.1), optax.scale(-0.05)
  inside = TOPKAST(optax.chain(optax.scale_by_adam(), *links))
  chained = sparsity.chain(TOPKAST(optax.scale_by_adam()), *links)
  found, expected = train(chained), train(inside)
  oracles.assert_same(found[0], expected[0])
  oracles.assert_same(found[1].sets, expected[1].sets)
  with pytest.raises(ValueError, match='expected a sparse method'):
    sparsity.chain(optax.adam(0.1), *links)


def label(params):
  return {'a': {'w': 'a', 'b': 'rest'}, 'c': {'w': 'c'}}


@pytest.mark.parametrize('labels', [label, label(PARAMS)], ids=['fn', 'tree'])
def test_sets_of_a_partition_are_joined_leaf_by_leaf(labels):
  tx = optax.partition(
    {
      'a': TOPKAST(optax.adam(0.05)),
      'c': sparsity.static(optax.adam(0.05), density=0.5, seed=3),
      'rest': optax.sgd(0.1),
    },
    labels,
  )
  params, state = train(tx)
  forward = sparsity.active_sets(state).forward
  assert [int(forward[x]['w'].sum()) for x in 'ac'] == [24, 24]
  assert bool(forward['a']['b'])
  weights = topkast.weights(params, state)
  for layer in 'ac':
    np.testing.assert_array_equal(
      weights[layer]['w'], params[layer]['w'] * forward[layer]['w']
    )
  np.testing.assert_array_equal(weights['a']['b'], params['a']['b'])
  prefix = optax.masked(TOPKAST(optax.sgd(0.1)), {'a': True, 'c': False})
  weights = topkast.weights(PARAMS, prefix.init(PARAMS))
  np.testing.assert_array_equal(weights['c']['w'], PARAMS['c']['w'])


def test_members_of_a_vmap_have_masks_of_their_own_seed():
  def make(seed):
    return sparsity.set_(
      optax.sgd(0.1), density=0.5, refresh_every=1, seed=seed
    )

  def sets(seed):
    state = make(seed).init(PARAMS)
    return state.sets, oracles.make_step(make(seed), TARGET)(PARAMS, state)[
      1
    ].sets

  members = jax.jit(jax.vmap(sets))(jnp.arange(3))
  first, second = jax.tree.map(lambda x: x[2], members)
  oracles.assert_same(first, make(2).init(PARAMS).sets)
  oracles.assert_same(second, train(make(2), 1)[1].sets)
  assert not np.array_equal(*members[1].forward['a']['w'][:2])


def test_scan_with_donated_arrays_and_a_pickled_state_go_on_the_same():
  tx = TOPKAST(optax.adam(0.05))

  @functools.partial(jax.jit, donate_argnums=0)
  def run(carry):
    step = oracles.make_step(tx, TARGET)
    return jax.lax.scan(lambda c, _: (step(*c), None), carry, length=2)[0]

  half = run((jax.tree.map(jnp.copy, PARAMS), tx.init(PARAMS)))
  half = pickle.loads(pickle.dumps(jax.device_get(half)))
  oracles.assert_close(run(half), train(tx))
