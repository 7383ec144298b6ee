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

SHAPES = {'a': (9, 7), 'b': (11, 5)}
ACTIVE = {'a': 25, 'b': 22}  # at density 0.4
OPTIMIZERS = {
  'sgd': lambda: optax.sgd(0.1),
  'nesterov': lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
  'rmsprop': lambda: optax.rmsprop(0.1),
  'lion': lambda: optax.lion(0.1),
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


def run(tx, num_updates):
  """Returns by update the parameters and the state after it."""
  found = [(normal(0), tx.init(normal(0)))]

  @jax.jit
  def step(params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  for i in range(num_updates):
    found.append(step(*found[-1], normal(i + 1)))
  return jax.device_get(found)


def best(scores, k, among):
  """Returns the mask of the k largest of |scores| in the mask `among`."""
  order = np.argsort(-np.abs(scores), axis=None, kind='stable')
  chosen = [i for i in order if among.ravel()[i]][:k]
  mask = np.zeros(scores.size, bool)
  mask[chosen] = True
  return mask.reshape(scores.shape)


def slow_rewired(mask, weight, gradient, share):
  k = int(mask.sum())
  num_dropped = round(share * k)
  kept = best(weight, k - num_dropped, mask)
  return kept | best(gradient, num_dropped, ~kept)


def share_at(t, anneal, stop):
  if anneal == 'constant':
    return 0.3
  return 0.15 * (1 + math.cos(math.pi * t / stop))


@functools.cache
def found_with(optimizer, anneal='cosine', **options):
  tx = sparsity.rigl(
    OPTIMIZERS[optimizer](),
    density=0.4,
    refresh_every=3,
    stop_refresh_at=12,
    anneal=anneal,
    **options,
  )
  return run(tx, 14)


def is_refresh(t, anneal):
  return t % 3 == 0 and (0 < t < 12 or (t == 12 and anneal == 'constant'))


@pytest.mark.parametrize('anneal', ['cosine', 'constant'])
def test_small_weights_go_and_large_gradients_come(anneal):
  found = found_with('nesterov', anneal)
  changes = 0
  for t in range(1, 15):
    params, state = found[t - 1]
    sets = found[t][1].sets
    for layer in SHAPES:
      before, after = (s.forward[layer]['w'] for s in (state.sets, sets))
      expected = before
      if is_refresh(t, anneal):
        expected = slow_rewired(
          before,
          params[layer]['w'],
          np.asarray(normal(t)[layer]['w']),
          share_at(t, anneal, 12),
        )
      np.testing.assert_array_equal(after, expected)
      np.testing.assert_array_equal(sets.backward[layer]['w'], expected)
      assert after.sum() == ACTIVE[layer]
      changes += (before & ~after).sum()
  assert changes > 15


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_an_update_of_the_sets_is_no_step(optimizer):
  found = found_with(optimizer)
  for t in (3, 6, 9):
    (params, state), (new_params, new_state) = found[t - 1], found[t]
    for layer in SHAPES:
      np.testing.assert_array_equal(new_params[layer]['b'], params[layer]['b'])
      before, after = (s.sets.forward[layer]['w'] for s in (state, new_state))
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
          # All of these begin with zeros.
          np.testing.assert_array_equal(y[~stays], 0.0)
        elif np.shape(x) != SHAPES['a'] and np.shape(x) != SHAPES['b']:
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
    expected = optax.apply_updates(params, updates)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      (new_params, new_state.inner),
      (expected, inner_state),
    )


def test_what_is_dropped_and_grown_at_once_never_left():
  tx = sparsity.rigl(
    optax.trace(0.5),
    density=0.5,
    refresh_every=2,
    stop_refresh_at=9,
    anneal='constant',
    drop_fraction=1.0,
  )
  params = {'a': {'w': jnp.arange(1.0, 9.0).reshape(2, 4)}}
  state = tx.init(params)
  active = state.sets.forward['a']['w']
  gradients = {'a': {'w': active + 0.5}}
  _, state = tx.update(gradients, state, params)
  updates, state = tx.update(gradients, state, params)
  np.testing.assert_array_equal(state.sets.forward['a']['w'], active)
  np.testing.assert_array_equal(updates['a']['w'], 0.0)
  np.testing.assert_array_equal(state.inner.trace['a']['w'], 1.5 * active)


@pytest.mark.parametrize('grow_at', [0.0, 0.5])
def test_state_made_from_parameters_is_made_from_where_they_start(grow_at):
  copy = optax.GradientTransformation(lambda params: params, lambda *xs: xs[:2])
  tx = sparsity.rigl(
    copy, density=0.4, refresh_every=1, stop_refresh_at=9, grow_at=grow_at
  )
  (_, before), (params, after) = run(tx, 1)
  for layer in SHAPES:
    sets = [s.sets.forward[layer]['w'] for s in (before, after)]
    grown = sets[1] & ~sets[0]
    assert grown.any()
    np.testing.assert_allclose(
      after.inner[layer]['w'][grown], params[layer]['w'][grown], rtol=1e-5
    )


@pytest.mark.parametrize('alpha', [1.0, 2.0, 3.0])
def test_the_gradient_that_decides_is_the_one_of_theta(alpha):
  tx = sparsity.rigl(
    powerprop.powerprop(optax.sgd(0.1), alpha),
    density=0.4,
    refresh_every=2,
    stop_refresh_at=8,
    grow_at=0.3,
  )
  found = run(tx, 2)
  (params, state), (new_params, new_state) = found[1:]
  for layer in SHAPES:
    before = state.sets.forward[layer]['w']
    after = new_state.sets.forward[layer]['w']
    gradient = np.asarray(normal(2)[layer]['w'])
    expected = slow_rewired(
      before, params[layer]['w'], gradient, share_at(2, 'cosine', 8)
    )
    np.testing.assert_array_equal(after, expected)
    grown = after & ~before
    np.testing.assert_allclose(
      new_params[layer]['w'][grown],
      -0.3 * np.sign(gradient[grown]),
      rtol=1e-5,
    )


@pytest.mark.parametrize('method', ['rigl', 'set_'])
def test_grown_weights_learn_with_powerpropagation_from_grow_at_on(method):
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

    def see(phi, state):
      return sparsity.forward_weights(powerprop.to_weights(phi, 2.0), state)

    def step(carry, _):
      phi, state = carry
      gradients = jax.grad(loss)(see(phi, state))
      updates, state = tx.update(gradients, state, phi)
      return (optax.apply_updates(phi, updates), state), None

    carry, _ = jax.lax.scan(step, (phi, state), length=400)
    return float(loss(see(*carry)))

  # As many weights of the target as are not in the first set cannot be learnt.
  assert last_loss(0.0) > 0.9
  assert last_loss(0.1) < 0.05


def test_blocks_are_dropped_and_grown_as_a_whole():
  tx = sparsity.rigl(
    optax.sgd(0.1),
    density=0.5,
    refresh_every=1,
    stop_refresh_at=99,
    anneal='constant',
    pattern=patterns.block(3, 3),
  )
  found = run(tx, 5)
  for layer, shape in SHAPES.items():
    masks = [state.sets.forward[layer]['w'] for _, state in found]
    edges = [
      np.unique(mask[i : i + 3, j : j + 3])
      for mask in masks
      for i in range(0, shape[0], 3)
      for j in range(0, shape[1], 3)
    ]
    assert all(len(values) == 1 for values in edges)
    num_blocks = [mask[::3, ::3].sum() for mask in masks]
    assert len(set(num_blocks)) == 1
    assert (masks[0] != masks[-1]).any()


def test_n_of_m_is_kept_at_every_update():
  tx = sparsity.rigl(
    optax.sgd(0.1),
    density=0.5,
    refresh_every=1,
    stop_refresh_at=99,
    anneal='constant',
    pattern=patterns.n_of_m(2, 4),
  )
  params = {'a': {'w': normal(0)['a']['w'][:8]}}
  state = tx.init(params)
  update = jax.jit(tx.update)
  masks = []
  for i in range(5):
    masks.append(np.asarray(state.sets.forward['a']['w']))
    gradients = {'a': {'w': normal(i + 1)['a']['w'][:8]}}
    _, state = update(gradients, state, params)
    np.testing.assert_array_equal(masks[-1].reshape(2, 4, 7).sum(1), 2)
  assert (masks[0] != masks[-1]).any()


def test_schedules_inside_count_steps_and_the_wrapper_counts_updates():
  _, state = found_with('inject_hyperparams')[-1]
  assert state.count == 14
  assert state.inner.count == 11


def test_layers_have_the_densities_of_erk_at_all_times():
  tx = sparsity.rigl(
    optax.sgd(0.1),
    density=0.4,
    refresh_every=1,
    stop_refresh_at=9,
    distribution='erdos_renyi_kernel',
  )
  densities = sparsity.erdos_renyi_kernel(
    {f'{layer}/w': shape for layer, shape in SHAPES.items()}, 0.4
  )
  for _, state in run(tx, 3):
    for layer, shape in SHAPES.items():
      k = round(densities[f'{layer}/w'] * math.prod(shape))
      assert state.sets.forward[layer]['w'].sum() == k != ACTIVE[layer]


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
