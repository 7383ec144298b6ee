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

SHAPES = {'a': (9, 7), 'b': (11, 5)}
ACTIVE = {'a': 25, 'b': 22}  # at density 0.4
OPTIMIZERS = {
  'nesterov': lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
  'MultiSteps': lambda: optax.MultiSteps(optax.adam(0.1), 2),
  'inject_hyperparams': lambda: optax.inject_hyperparams(optax.adam)(0.1),
}


def normal(seed):
  random = np.random.default_rng(seed)
  return {
    layer: {
      'w': jnp.asarray(random.standard_normal(shape), jnp.float32),
      'b': jnp.asarray(random.standard_normal(shape[1:]), jnp.float32),
    }
    for layer, shape in SHAPES.items()
  }


def run(num_updates, inner=None, **options):
  """Returns (params, state) before and after each update."""
  tx = sparsity.rigl(
    optax.sgd(0.1) if inner is None else inner,
    **({'density': 0.4, 'refresh_every': 1, 'stop_refresh_at': 99} | options),
  )
  gradients = (normal(i + 1) for i in range(num_updates))
  return oracles.train(tx, normal(0), gradients)


@functools.cache
def found_with(optimizer, anneal='cosine'):
  return run(
    14,
    OPTIMIZERS[optimizer](),
    refresh_every=3,
    stop_refresh_at=12,
    anneal=anneal,
  )


def masks_of(found, layer):
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
def test_small_weights_are_dropped_and_large_gradients_grown(anneal):
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
        expected = slow_rewired(
          before,
          params[layer]['w'],
          normal(t)[layer]['w'],
          fraction_at(t, anneal, 12),
        )
      np.testing.assert_array_equal(after, expected)
      np.testing.assert_array_equal(sets.backward[layer]['w'], expected)
      assert after.sum() == ACTIVE[layer]
      changes += (before & ~after).sum()
  assert changes > 15


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_an_update_that_refreshes_is_no_step(optimizer):
  found = found_with(optimizer)
  for t in (3, 6, 9):
    (params, state), (new_params, new_state) = found[t - 1], found[t]
    for layer in SHAPES:
      np.testing.assert_array_equal(new_params[layer]['b'], params[layer]['b'])
      before, after = masks_of(found[t - 1 : t + 1], layer)
      grown = after & ~before
      assert grown.any()
      old, new = params[layer]['w'], new_params[layer]['w']
      np.testing.assert_array_equal(new[~grown], old[~grown])
      np.testing.assert_array_equal(new[grown], 0.0)
      for x, y in zip(
        jax.tree.leaves(state.inner),
        jax.tree.leaves(new_state.inner),
        strict=True,
      ):
        if np.shape(x) == SHAPES[layer]:
          stays = before & after
          np.testing.assert_array_equal(y[stays], x[stays])
          np.testing.assert_array_equal(y[~stays], 0.0)  # as initialized
        elif np.shape(x) not in SHAPES.values():
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
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      (new_params, new_state.inner),
      (optax.apply_updates(params, updates), inner_state),
    )


def test_schedules_inside_count_steps_and_the_wrapper_counts_updates():
  _, state = found_with('inject_hyperparams')[-1]
  assert state.count == 14
  assert state.inner.count == 11


def test_a_weight_dropped_and_grown_at_once_never_left():
  tx = sparsity.rigl(
    optax.trace(0.5),
    density=0.5,
    refresh_every=2,
    stop_refresh_at=9,
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


def test_state_made_from_parameters_starts_from_their_grown_values():
  copy = optax.GradientTransformation(lambda params: params, lambda *xs: xs[:2])
  found = run(1, copy, grow_at=0.5)
  for layer in SHAPES:
    before, after = masks_of(found, layer)
    grown = after & ~before
    assert grown.any()
    params, state = found[1]
    np.testing.assert_allclose(
      state.inner[layer]['w'][grown], params[layer]['w'][grown], rtol=1e-5
    )


def test_with_powerprop_the_gradient_of_theta_decides():
  found = run(
    2,
    powerprop.powerprop(optax.sgd(0.1), 2.0),
    refresh_every=2,
    stop_refresh_at=8,
    grow_at=0.3,
  )
  (params, _), (new_params, _) = found[1:]
  for layer in SHAPES:
    before, after = masks_of(found[1:], layer)
    gradient = np.asarray(normal(2)[layer]['w'])
    expected = slow_rewired(
      before, params[layer]['w'], gradient, fraction_at(2, 'cosine', 8)
    )
    np.testing.assert_array_equal(after, expected)
    grown = after & ~before
    np.testing.assert_allclose(
      new_params[layer]['w'][grown],
      -0.3 * np.sign(gradient[grown]),
      rtol=1e-5,
    )


@pytest.mark.parametrize(
  'method', ['rigl', pytest.param('set_', marks=pytest.mark.nightly)]
)
def test_grown_weights_learn_with_powerprop_only_from_grow_at(method):
  target = jnp.zeros((6, 6)).at[0].set(1.0)

  def last_loss(grow_at):
    tx = getattr(sparsity, method)(
      powerprop.powerprop(optax.sgd(0.1), 2.0),
      density=1 / 3,
      refresh_every=10,
      stop_refresh_at=1000,
      grow_at=grow_at,
    )
    phi = {'linear': {'w': jnp.full((6, 6), 0.2)}}
    state = tx.init(phi)

    def loss(weights):
      return jnp.sum((weights['linear']['w'] - target) ** 2)

    def weights(phi, state):
      return sparsity.forward_weights(powerprop.to_weights(phi, 2.0), state)

    def step(carry, _):
      phi, state = carry
      gradients = jax.grad(loss)(weights(phi, state))
      updates, state = tx.update(gradients, state, phi)
      return (optax.apply_updates(phi, updates), state), None

    carry, _ = jax.lax.scan(step, (phi, state), length=400)
    return float(loss(weights(*carry)))

  # Target weights outside the first set cannot be learned from zero.
  assert last_loss(0.0) > 0.9
  assert last_loss(0.1) < 0.05


def test_n_of_m_holds_at_every_update():
  tx = sparsity.rigl(
    optax.sgd(0.1),
    density=0.5,
    refresh_every=1,
    stop_refresh_at=99,
    anneal='constant',
    pattern=patterns.n_of_m(2, 4),
  )
  params, *gradients = ({'a': {'w': normal(i)['a']['w'][:8]}} for i in range(6))
  masks = masks_of(oracles.train(tx, params, gradients), 'a')
  for mask in masks:
    np.testing.assert_array_equal(mask.reshape(2, 4, 7).sum(1), 2)
  assert (masks[0] != masks[-1]).any()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'refresh_every': 0}, 'interval >= 1, got 0'),
    ({'stop_refresh_at': 0}, 'stop_refresh_at >= 1, got 0'),
    ({'stop_refresh_at': None}, "anneal='cosine', got None"),
    ({'drop_fraction': 0.0}, r'drop_fraction in \(0, 1\], got 0'),
    ({'anneal': 'linear'}, "anneal out of .* got 'linear'"),
    ({'grow_at': -1.0}, r'grow_at >= 0, got -1'),
    ({'density': 2.0}, r'\(0, 1\], got 2'),
  ],
)
def test_a_bad_option_is_an_error(options, message):
  valid = {'density': 0.5, 'refresh_every': 2, 'stop_refresh_at': 9}
  with pytest.raises(ValueError, match=message):
    sparsity.rigl(optax.sgd(0.1), **(valid | options))
