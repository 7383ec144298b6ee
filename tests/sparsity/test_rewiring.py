"""SET and RigL against slow references."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from sparsity import patterns
from tests import oracles

SHAPES = {'a': {'w': (9, 7), 'b': (7,)}, 'b': {'w': (11, 5), 'b': (5,)}}
ACTIVE = {'a': 25, 'b': 22}  # at density 0.4
OPTIMIZERS = {
  'nesterov': lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
  'MultiSteps': lambda: optax.MultiSteps(optax.adam(0.1), 2),
  'inject_hyperparams': lambda: optax.inject_hyperparams(optax.adam)(0.1),
}
RIGL = functools.partial(
  sparsity.rigl, density=0.4, refresh_every=1, stop_refresh_at=99
)
SET = functools.partial(sparsity.set_, density=0.4, refresh_every=3)
normal = functools.partial(oracles.normal, SHAPES)


def run(tx, num_updates):
  """Returns (params, state) before and after each update."""
  return oracles.train(tx, normal(0), map(normal, range(1, num_updates + 1)))


@functools.cache
def found_with(optimizer, anneal='cosine'):
  inner = OPTIMIZERS[optimizer]()
  tx = RIGL(inner, refresh_every=3, stop_refresh_at=12, anneal=anneal)
  return run(tx, 14)


def masks_of(found, layer='a'):
  return [state.sets.forward[layer]['w'] for _, state in found]


def slow_rewired(mask, weight, gradient, fraction):
  k = int(mask.sum())
  num_dropped = round(fraction * k)
  kept = oracles.largest(weight, k - num_dropped, among=mask)
  return kept | oracles.largest(gradient, num_dropped, among=~kept)


def fraction_at(t, anneal, stop):
  if anneal == 'constant':
    return 0.3
  return 0.15 * (1 + math.cos(math.pi * t / stop))


@pytest.mark.parametrize('anneal', ['cosine', 'constant'])
def test_rigl_drops_small_weights_and_grows_large_gradients(anneal):
  found = found_with('nesterov', anneal)
  changes = 0
  for t in range(1, 15):
    params, state = found[t - 1]
    sets = found[t][1].sets
    is_last = t == 12 and anneal == 'constant'
    for layer in SHAPES:
      before, after = (s.forward[layer]['w'] for s in (state.sets, sets))
      expected = before
      if t % 3 == 0 and (t < 12 or is_last):
        weight, gradient = params[layer]['w'], normal(t)[layer]['w']
        fraction = fraction_at(t, anneal, 12)
        expected = slow_rewired(before, weight, gradient, fraction)
      np.testing.assert_array_equal(after, expected)
      np.testing.assert_array_equal(sets.backward[layer]['w'], expected)
      assert after.sum() == ACTIVE[layer]
      changes += (before & ~after).sum()
  assert changes > 15


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_an_update_of_rigl_that_refreshes_is_no_step(optimizer):
  found = found_with(optimizer)
  weight_shapes = [shapes['w'] for shapes in SHAPES.values()]
  if optimizer == 'inject_hyperparams':  # counts steps, not refreshes
    assert (found[-1][1].count, found[-1][1].inner.count) == (14, 11)
  for t, layer in [(t, layer) for t in (3, 6, 9) for layer in SHAPES]:
    (params, state), (new_params, new_state) = found[t - 1], found[t]
    np.testing.assert_array_equal(new_params[layer]['b'], params[layer]['b'])
    before, after = masks_of(found[t - 1 : t + 1], layer)
    grown, stays = after & ~before, before & after
    assert grown.any()
    old, new = params[layer]['w'], new_params[layer]['w']
    np.testing.assert_array_equal(new, np.where(grown, 0.0, old))
    inner = (state.inner, new_state.inner)
    for x, y in zip(*map(jax.tree.leaves, inner), strict=True):
      if np.shape(x) == SHAPES[layer]['w']:  # elsewhere as initialized
        np.testing.assert_array_equal(y, np.where(stays, x, 0.0))
      elif np.shape(x) not in weight_shapes:
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_other_updates_are_steps_of_the_optimizer_on_the_set(optimizer):
  found = found_with(optimizer)
  update = jax.jit(OPTIMIZERS[optimizer]().update)
  for t in (1, 2, 4, 5, 7, 13, 14):
    (params, state), (new_params, new_state) = found[t - 1], found[t]
    gradients = jax.tree.map(jnp.multiply, state.sets.forward, normal(t))
    updates, inner_state = update(gradients, state.inner, params)
    updates = jax.tree.map(jnp.multiply, state.sets.forward, updates)
    oracles.assert_close(
      (new_params, new_state.inner),
      (optax.apply_updates(params, updates), inner_state),
      rtol=1e-4,
      atol=1e-6,
    )


def test_a_weight_dropped_and_grown_at_once_never_left():
  tx = RIGL(
    optax.trace(0.5),
    density=0.5,
    refresh_every=2,
    anneal='constant',
    drop_fraction=1.0,
  )
  params = {'a': {'w': jnp.arange(1.0, 9.0).reshape(2, 4)}}
  active = jax.jit(tx.init)(params).sets.forward['a']['w']
  gradients = [{'a': {'w': active + 0.5}}] * 2
  (before, _), (after, state) = oracles.train(tx, params, gradients)[1:]
  np.testing.assert_array_equal(state.sets.forward['a']['w'], active)
  np.testing.assert_array_equal(after['a']['w'], before['a']['w'])
  np.testing.assert_array_equal(state.inner.trace['a']['w'], 1.5 * active)


def test_with_powerprop_the_gradient_of_theta_decides():
  inner = powerprop.powerprop(optax.sgd(0.1), 2.0)
  found = run(RIGL(inner, refresh_every=2, stop_refresh_at=8, grow_at=0.3), 2)
  (params, _), (new_params, _) = found[1:]
  for layer in SHAPES:
    before, after = masks_of(found[1:], layer)
    gradient = np.asarray(normal(2)[layer]['w'])
    fraction = fraction_at(2, 'cosine', 8)
    expected = slow_rewired(before, params[layer]['w'], gradient, fraction)
    np.testing.assert_array_equal(after, expected)
    grown = after & ~before
    found_values = new_params[layer]['w'][grown]
    expected = -0.3 * np.sign(gradient[grown])
    np.testing.assert_allclose(found_values, expected, rtol=1e-5)


def test_n_of_m_holds_at_every_update():
  pattern = patterns.n_of_m(2, 4)
  tx = RIGL(optax.sgd(0.1), density=0.5, anneal='constant', pattern=pattern)
  params, *gradients = ({'a': {'w': normal(i)['a']['w'][:8]}} for i in range(6))
  masks = masks_of(oracles.train(tx, params, gradients))
  for mask in masks:
    np.testing.assert_array_equal(mask.reshape(2, 4, 7).sum(1), 2)
  assert (masks[0] != masks[-1]).any()


def stepped(found, t):
  """Returns the weights after step t of SGD at rate 0.3, before growing."""
  gradient = np.where(masks_of(found)[t - 1], normal(t)['a']['w'], 0)
  return found[t - 1][0]['a']['w'] - 0.3 * gradient


def num_gone(found, t, num_dropped):
  """Checks that only the smallest went, and returns their number."""
  before, after = masks_of(found)[t - 1 : t + 1]
  assert before.sum() == after.sum() == ACTIVE['a']
  weight = np.where(before, np.abs(stepped(found, t)), np.inf)
  may_go = oracles.largest(-weight, num_dropped, magnitude=False)
  gone = before & ~after
  assert not (gone & ~may_go).any()
  return gone.sum()


def test_set_drops_the_smallest_after_the_step():
  found = run(SET(optax.sgd(0.3)), 9)
  masks = masks_of(found)
  total = 0
  for t in range(1, 10):
    params, bias = found[t][0]['a'], found[t - 1][0]['a']['b']
    bias = bias - 0.3 * normal(t)['a']['b']
    np.testing.assert_allclose(params['b'], bias, rtol=1e-5, atol=1e-6)
    if t % 3:
      np.testing.assert_array_equal(masks[t], masks[t - 1])
      continue
    total += num_gone(found, t, round(0.3 * 25))
    grown = masks[t] & ~masks[t - 1]
    expected = np.where(grown, 0, stepped(found, t))
    np.testing.assert_allclose(params['w'], expected, rtol=1e-5)
    assert not params['w'][grown].any()
  # A few of the 24 dropped are drawn again at once: 8 of 46 on average.
  assert 14 <= total < 24


def test_every_entry_that_set_does_not_keep_is_equally_likely_to_be_grown():
  weight = jnp.arange(1.0, 17.0).reshape(4, 4)

  def grown(seed):
    options = {'density': 0.5, 'refresh_every': 1, 'drop_fraction': 0.5}
    tx = SET(optax.sgd(0.0), **options, seed=seed)
    state = tx.init({'w': weight})
    _, new = tx.update({'w': weight}, state, {'w': weight})
    before, after = state.sets.forward['w'], new.sets.forward['w']
    ranks = jnp.argsort(jnp.argsort(jnp.where(before, -weight, 0), axis=None))
    kept = ranks.reshape(4, 4) < 4
    return ~kept, after & ~kept

  free, chosen = jax.lax.map(jax.jit(grown), jnp.arange(2000))
  np.testing.assert_array_equal(chosen.sum((1, 2)), 4)
  # Four of twelve free places, just dropped or not.
  shares = chosen.sum(0) / free.sum(0)
  np.testing.assert_allclose(shares, 1 / 3, atol=0.06)


def test_weights_grown_by_set_start_at_grow_at_with_their_old_sign():
  found = run(SET(optax.sgd(0.3), grow_at=0.25), 3)
  before, after = masks_of(found)[2:]
  grown = after & ~before
  assert grown.any()
  old, new = (found[t][0]['a']['w'][grown] for t in (2, 3))
  np.testing.assert_allclose(new, 0.25 * np.sign(old), rtol=1e-5)
