import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from sparsity import patterns

SHAPES = {'a': (9, 7), 'b': (11, 5)}
SIZES = {'a': 63, 'b': 55}


def normal(seed):
  random = np.random.default_rng(seed)
  return {
    layer: {'w': jnp.asarray(random.standard_normal(shape), jnp.float32)}
    for layer, shape in SHAPES.items()
  }


def run(tx, num_updates, params=None):
  """Returns by update the parameters and the state after it."""
  params = normal(0) if params is None else params
  state = tx.init(params)
  found = [(params, state)]

  @jax.jit
  def step(params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  for i in range(num_updates):
    found.append(step(*found[-1], normal(i + 1)))
  return jax.device_get(found)


def slow_largest(scores, k):
  flat = np.abs(np.concatenate([x.ravel() for x in scores.values()]))
  mask = np.zeros(flat.size, bool)
  mask[np.argsort(-flat, kind='stable')[:k]] = True
  ends = np.cumsum([x.size for x in scores.values()])[:-1]
  return {
    layer: part.reshape(scores[layer].shape)
    for layer, part in zip(scores, np.split(mask, ends), strict=True)
  }


def masks_of(state):
  jax.tree.map(np.testing.assert_array_equal, *state.sets)
  return {layer: state.sets.forward[layer]['w'] for layer in SHAPES}


def weights_of(params):
  return {layer: params[layer]['w'] for layer in SHAPES}


@pytest.mark.parametrize('scope', ['layer', 'global'])
@pytest.mark.parametrize('interval', [1, 3, 4, 7, 100])
def test_gradual_follows_the_cubic_and_ends_on_its_density(scope, interval):
  start, end = 2, 12
  tx = sparsity.gradual(
    optax.sgd(0.3, momentum=0.5),
    density=0.2,
    start=start,
    end=end,
    prune_every=interval,
    scope=scope,
  )
  masks = {layer: np.ones(shape, bool) for layer, shape in SHAPES.items()}
  for t, (params, state) in enumerate(run(tx, 16)):
    if start < t <= end and ((t - start) % interval == 0 or t == end):
      left = ((end - t) / (end - start)) ** 3
      if scope == 'layer':
        for layer, x in weights_of(params).items():
          k = round(0.2 * SIZES[layer])
          k += round((SIZES[layer] - k) * left)
          masks |= slow_largest({layer: x}, k)
      else:
        masks = slow_largest(weights_of(params), 24 + round((118 - 24) * left))
    jax.tree.map(np.testing.assert_array_equal, masks_of(state), masks)
  assert sum(mask.sum() for mask in masks.values()) == 13 + 11


def test_gradual_with_erk_follows_the_cubic_in_each_layer():
  tx = sparsity.gradual(
    optax.sgd(0.3),
    density=0.3,
    start=0,
    end=7,
    prune_every=2,
    distribution='erdos_renyi_kernel',
  )
  densities = sparsity.erdos_renyi_kernel(
    {f'{layer}/w': shape for layer, shape in SHAPES.items()}, 0.3
  )
  assert densities['a/w'] != densities['b/w']
  for t, (_, state) in enumerate(run(tx, 8)):
    last = 7 if t >= 7 else t // 2 * 2
    for layer, mask in masks_of(state).items():
      k = round(densities[f'{layer}/w'] * SIZES[layer])
      assert mask.sum() == k + round((SIZES[layer] - k) * (1 - last / 7) ** 3)


def test_a_pruned_entry_keeps_its_value_and_may_come_back():
  tx = sparsity.gradual(
    optax.sgd(1.0), density=0.5, start=0, end=4, prune_every=2
  )
  params = {'a': {'w': jnp.array([[5.0, 4.0, 3.0, 2.0]])}}
  state = tx.init(params)
  gradients = {'a': {'w': jnp.array([[1.5, 1.0, 0.0, 0.0]])}}
  seen = []
  for _ in range(4):
    updates, state = tx.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    seen.append(state.sets.forward['a']['w'].astype(int).tolist()[0])
  # After two updates 2.25 entries stay, the weights being 2, 2, 3, 2.
  assert seen == [[1, 1, 1, 1]] * 1 + [[1, 0, 1, 0]] * 2 + [[0, 1, 1, 0]]
  np.testing.assert_array_equal(params['a']['w'], [[-1.0, 2.0, 3.0, 2.0]])


@pytest.mark.parametrize('method', ['magnitude', 'gradual'])
@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_saliency_is_of_the_next_parameters_and_this_gradient(method, scope):
  make = {
    'magnitude': functools.partial(sparsity.magnitude, at=3),
    'gradual': functools.partial(
      sparsity.gradual, start=0, end=3, prune_every=4
    ),
  }[method]
  tx = make(optax.sgd(0.1), density=0.2, score='saliency', scope=scope)
  params, state = run(tx, 3)[-1]
  scores = jax.tree.map(
    lambda x, g: x * np.asarray(g), weights_of(params), weights_of(normal(3))
  )
  if scope == 'layer':
    expected = slow_largest({'a': scores['a']}, 13)
    expected |= slow_largest({'b': scores['b']}, 11)
  else:
    expected = slow_largest(scores, 24)
  jax.tree.map(np.testing.assert_array_equal, masks_of(state), expected)


def test_the_saliency_of_powerpropagation_by_a_function():
  tx = sparsity.magnitude(
    powerprop.powerprop(optax.sgd(0.1), 3.0),
    density=0.2,
    at=1,
    scope='global',
    score=lambda phi, g: powerprop.to_weights(phi, 3.0) * g,
  )
  params, state = run(tx, 1)[-1]
  scores = jax.tree.map(
    lambda x, g: x**3 * np.asarray(g), weights_of(params), weights_of(normal(1))
  )
  jax.tree.map(
    np.testing.assert_array_equal, masks_of(state), slow_largest(scores, 24)
  )


@pytest.mark.parametrize('method', ['magnitude', 'gradual'])
def test_powerpropagation_prunes_the_smallest_theta(method):
  make = {
    'magnitude': functools.partial(sparsity.magnitude, at=3),
    'gradual': functools.partial(
      sparsity.gradual, start=0, end=3, prune_every=4
    ),
  }[method]
  tx = make(powerprop.powerprop(optax.adam(0.1), 2.0), density=0.2)
  params, state = run(tx, 3)[-1]
  theta = weights_of(jax.device_get(powerprop.to_weights(params, 2.0)))
  expected = slow_largest({'a': theta['a']}, 13)
  expected |= slow_largest({'b': theta['b']}, 11)
  jax.tree.map(np.testing.assert_array_equal, masks_of(state), expected)


def test_a_gradual_pattern_is_complete_at_the_end():
  tx = sparsity.gradual(
    optax.sgd(0.1),
    density=0.5,
    start=0,
    end=5,
    prune_every=2,
    pattern=patterns.n_of_m(2, 4),
  )
  params = {'a': {'w': jnp.asarray(normal(0)['a']['w'][:8])}}
  state = tx.init(params)
  counts = []
  for _ in range(5):
    _, state = tx.update(params, state, params)
    counts.append(int(state.sets.forward['a']['w'].sum()))
  assert counts == [56, 34, 34, 28, 28]  # 28 + 28 (3 / 5)^3, 28 + 28 / 125
  kept = np.asarray(state.sets.forward['a']['w']).reshape(2, 4, 7).sum(1)
  np.testing.assert_array_equal(kept, 2)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'prune_every': 0}, 'interval >= 1, got 0'),
    ({'start': -1}, 'start >= 0, got -1'),
    ({'end': 2}, 'end >= 3, got 2'),
    ({'density': 0.0}, r'\(0, 1\], got 0'),
    ({'score': 'size'}, "score out of .* got 'size'"),
  ],
)
def test_a_bad_option_is_an_error(options, message):
  valid = {'density': 0.5, 'start': 2, 'end': 9, 'prune_every': 2}
  with pytest.raises(ValueError, match=message):
    sparsity.gradual(optax.sgd(0.1), **(valid | options))
