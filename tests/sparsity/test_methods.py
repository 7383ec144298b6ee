"""Invariants that every method keeps, around every optimizer."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from tests import oracles
import topkast

TOPKAST = functools.partial(
  topkast.topkast,
  forward_density=0.25,
  backward_density=0.5,
  refresh_every=2,
  stop_refresh_at=6,
)
METHODS = {
  'magnitude': functools.partial(sparsity.magnitude, density=0.5, at=3),
  'gradual': functools.partial(
    sparsity.gradual, density=0.5, start=1, end=6, prune_every=2
  ),
  'acdc': functools.partial(
    sparsity.acdc, density=0.5, start=2, end=6, phase_steps=2
  ),
  'static': functools.partial(sparsity.static, density=0.5),
  'snip': lambda inner, density=0.5: sparsity.snip(
    inner, scores=make_tree(2), density=density, scope='layer'
  ),
  'set': functools.partial(
    sparsity.set_, density=0.5, refresh_every=2, stop_refresh_at=6
  ),
  'rigl': functools.partial(
    sparsity.rigl, density=0.5, refresh_every=3, stop_refresh_at=8
  ),
  'topkast': TOPKAST,
  'topkast, random exploration': functools.partial(
    TOPKAST, exploration='random'
  ),
}
ALL = {method: {'density': 1.0} for method in METHODS if 'top' not in method}
ALL['topkast'] = {'forward_density': 1.0, 'backward_density': 1.0}


def accumulated(tx):
  return optax.MultiSteps(tx, 2).gradient_transformation()


# Optimizers whose states are looked into; test_optimizers tries all of Optax.
OPTIMIZERS = {
  'nesterov': lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
  'adam': lambda: optax.adam(0.1),
  'adamw': lambda: optax.adamw(0.1, weight_decay=0.1),
  'rmsprop': lambda: optax.rmsprop(0.02, momentum=0.5),
  'accumulated': lambda: accumulated(optax.adam(0.1)),
  'partition': lambda: optax.partition(
    {'w': optax.adam(0.1), 'b': optax.sgd(0.1, 0.9)}, LABELS
  ),
}
# Every method with Adam, Top-KAST with every optimizer, the rest in pairs.
CASES = [
  *((method, 'adam') for method in METHODS),
  *(
    ('topkast', optimizer)
    for optimizer in [*OPTIMIZERS, 'accumulated outside']
    if optimizer != 'adam'
  ),
  ('magnitude', 'accumulated'),
  ('gradual', 'rmsprop'),
  ('acdc', 'partition'),
  ('static', 'adamw'),
  ('set', 'nesterov'),
  ('rigl', 'accumulated outside'),
]
each_case = pytest.mark.parametrize(('method', 'optimizer'), CASES)
GROWS = ('acdc', 'set', 'rigl')  # entries that enter start at zero
# All shapes differ, so that they identify arrays of the optimizer state.
SHAPES = {
  'net/linear': {'w': (12, 8), 'b': (8,)},
  'net/linear_1': {'w': (8, 4), 'b': (4,)},
}
LABELS = {module: {'w': 'w', 'b': 'b'} for module in SHAPES}
DTYPES = {'net/linear': jnp.float32, 'net/linear_1': jnp.bfloat16}
LAYERS = tuple(SHAPES)
NUM_RECORDED = 8


def make_tree(seed):
  return {
    module: oracles.normal(shapes, seed, DTYPES[module])
    for module, shapes in SHAPES.items()
  }


def slope(weights):
  """Returns the gradient of half the squared distance to a target."""
  return jax.tree.map(jnp.subtract, weights, make_tree(1))


def make_inner(optimizer):
  name = 'adam' if optimizer == 'accumulated outside' else optimizer
  return OPTIMIZERS[name]()


def make_tx(method, optimizer, **changed):
  tx = METHODS[method](make_inner(optimizer), **changed)
  return accumulated(tx) if optimizer == 'accumulated outside' else tx


def make_step(tx):
  def step(params, state):
    gradients = slope(sparsity.forward_weights(params, state))
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, updates

  return step


class Run(NamedTuple):
  params: list  # by step, initial ones first
  states: list
  updates: list
  num_compiled: int
  last: tuple  # params and sparse state after many steps


@functools.cache
def run(method, optimizer):
  """Trains with donated arrays, halfway from a state rebuilt leaf by leaf."""
  tx = make_tx(method, optimizer)
  step = jax.jit(make_step(tx), donate_argnums=(0, 1))
  params = make_tree(0)
  state = tx.init(params)
  first = jax.device_get((params, sparsity.sparse_state(state)))
  result = Run([first[0]], [first[1]], [], 0, ())
  for i in range(100):
    if i == NUM_RECORDED // 2:
      leaves, structure = jax.tree.flatten((params, state))
      leaves = [jnp.asarray(np.array(leaf)) for leaf in leaves]
      params, state = jax.tree.unflatten(structure, leaves)
    params, state, updates = step(params, state)
    if i < NUM_RECORDED:
      new = jax.device_get((params, sparsity.sparse_state(state), updates))
      for history, x in zip(result, new, strict=False):
        history.append(x)
  last = jax.device_get((params, sparsity.sparse_state(state)))
  return result._replace(num_compiled=step._cache_size(), last=last)


def of_layer(inner_state, layer):
  """Returns the arrays of an optimizer state that belong to a weight."""
  shape = SHAPES[layer]['w']
  return [x for x in jax.tree.leaves(inner_state) if np.shape(x) == shape]


@each_case
def test_entries_outside_b_are_bitwise_unmoved_and_those_inside_move(
  method, optimizer
):
  found = run(method, optimizer)
  for layer, i in itertools.product(LAYERS, range(NUM_RECORDED)):
    was_in, is_in = (
      found.states[j].sets.backward[layer]['w'] for j in (i, i + 1)
    )
    outside = ~(was_in | is_in) if method in GROWS else ~was_in
    if method in GROWS:
      assert not found.params[i + 1][layer]['w'][is_in & ~was_in].any()
    before, after = (found.params[j][layer]['w'][outside] for j in (i, i + 1))
    assert before.tobytes() == after.tobytes()
    assert not found.updates[i][layer]['w'][outside].any()
  inside = found.states[0].sets.backward['net/linear']['w']
  before, after = (found.params[i]['net/linear']['w'] for i in (0, 2))
  assert (before != after)[inside].all()


@each_case
def test_state_outside_b_and_of_entries_that_enter_is_fresh(method, optimizer):
  found = run(method, optimizer)
  inner = make_inner(optimizer)
  changed = 0
  for i in range(NUM_RECORDED):
    before, state = found.states[i], found.states[i + 1]
    fresh = inner.init(found.params[i + 1])
    for layer in LAYERS:
      was_in, is_in = (s.sets.backward[layer]['w'] for s in (before, state))
      changed += np.sum(was_in != is_in)
      must_be_fresh = ~(was_in & is_in)
      for actual, expected in zip(
        of_layer(state.inner, layer), of_layer(fresh, layer), strict=True
      ):
        np.testing.assert_array_equal(
          actual[must_be_fresh], np.asarray(expected)[must_be_fresh]
        )
  if method not in ('static', 'snip') and optimizer != 'accumulated outside':
    assert changed


@each_case
def test_weights_converge_without_another_compilation(method, optimizer):
  found = run(method, optimizer)
  assert found.num_compiled == 1
  params, state = found.last
  for layer in LAYERS:
    forward = state.sets.forward[layer]['w']
    target, start = (make_tree(seed)[layer]['w'] for seed in (1, 0))
    left = np.abs(params[layer]['w'] - target)[forward].mean()
    assert left < 0.2 * np.abs(start - target)[forward].mean()


@functools.cache
def dense_params(optimizer):
  """Returns the parameters after 4 steps of dense training."""
  tx = make_inner(optimizer)

  @jax.jit
  def step(params, state):
    updates, state = tx.update(slope(params), state, params)
    return optax.apply_updates(params, updates), state

  params = make_tree(0)
  state = tx.init(params)
  for _ in range(4):
    params, state = step(params, state)
  return params


@pytest.mark.parametrize(
  ('method', 'optimizer'),
  [
    *(('topkast', name) for name in ('adamw', 'accumulated', 'partition')),
    *((method, 'nesterov') for method in ALL),
  ],
)
def test_density_one_is_dense_training_bit_for_bit(method, optimizer):
  tx = make_tx(method, optimizer, **ALL[method])
  step = jax.jit(make_step(tx))
  params = make_tree(0)
  state = tx.init(params)
  for _ in range(4):
    params, state, _ = step(params, state)
  oracles.assert_same(params, dense_params(optimizer))


def test_updates_without_parameters_are_an_error():
  tx = make_tx('topkast', 'adam')
  params = make_tree(0)
  state = jax.eval_shape(tx.init, params)
  with pytest.raises(ValueError, match=r'call update\(gradients, state, par'):
    tx.update(params, state)


def test_static_sets_are_random_and_stay():
  found = run('static', 'adam')
  first = found.states[0].sets
  oracles.assert_same(first, found.last[1].sets)
  oracles.assert_same(first.forward, first.backward)
  assert first.forward['net/linear']['w'].sum() == 48
  assert first.forward['net/linear_1']['w'].sum() == 16
  assert first.forward['net/linear']['b'].all()
  other = METHODS['static'](optax.sgd(0.1), seed=1).init(make_tree(0)).sets
  assert not np.array_equal(
    *(x.forward['net/linear']['w'] for x in (first, other))
  )
  params = jax.tree.map(lambda x: x.astype(jnp.float32), make_tree(0))
  tx = sparsity.static(optax.sgd(0.1), density=0.25, scope='global')
  forward = tx.init(params).sets.forward
  assert sum(int(forward[layer]['w'].sum()) for layer in LAYERS) == 32


@pytest.mark.parametrize(
  ('method', 'options', 'message'),
  [
    ('static', {'density': 0.0}, r'in \(0, 1\], got 0\.0'),
    ('magnitude', {'at': 0}, 'at >= 1, got 0'),
    ('magnitude', {'score': 'size'}, "score out of .* got 'size'"),
    ('set', {'drop_fraction': 1.5}, r'drop_fraction in \(0, 1\], got 1.5'),
    ('set', {'grow_at': float('nan')}, 'grow_at >= 0, got nan'),
    ('rigl', {'stop_refresh_at': 0}, 'stop_refresh_at >= 1, got 0'),
    ('rigl', {'stop_refresh_at': None}, "anneal='cosine', got None"),
    ('rigl', {'anneal': 'linear'}, "anneal out of .* got 'linear'"),
    ('topkast', {'forward_density': 0.6}, '=0.6, backward_density=0.5'),
    ('topkast', {'exploration': 'rigl'}, "exploration out of .*'rigl'"),
  ],
)
def test_a_bad_option_is_an_error(method, options, message):
  with pytest.raises(ValueError, match=message):
    METHODS[method](optax.sgd(0.1), **options)
