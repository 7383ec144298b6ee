import functools

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
SIZES = {'a': 63, 'b': 55}
METHODS = {
  'magnitude': functools.partial(sparsity.magnitude, at=3, density=0.2),
  'gradual': functools.partial(
    sparsity.gradual, start=0, end=3, prune_every=4, density=0.2
  ),
}


def normal(seed):
  random = np.random.default_rng(seed)
  return {
    layer: {'w': jnp.asarray(random.standard_normal(shape), jnp.float32)}
    for layer, shape in SHAPES.items()
  }


def run(tx, num_updates):
  """Returns (params, state) before and after each update."""
  gradients = (normal(i + 1) for i in range(num_updates))
  return oracles.train(tx, normal(0), gradients)


def masks_of(state):
  jax.tree.map(np.testing.assert_array_equal, *state.sets)
  return [state.sets.forward[layer]['w'] for layer in SHAPES]


def weights_of(params):
  return [np.asarray(params[layer]['w']) for layer in SHAPES]


def slow_masks(scores, scope):
  """Returns the masks at density 0.2."""
  if scope == 'global':
    return oracles.largest_over(scores, 24)
  return [oracles.largest(x, k) for x, k in zip(scores, (13, 11), strict=True)]


@pytest.mark.parametrize(
  ('scope', 'interval'),
  [('layer', 1), ('layer', 3), ('layer', 4), ('layer', 100), ('global', 4)],
)
def test_gradual_follows_the_cubic_and_ends_at_its_density(scope, interval):
  start, end = 2, 12
  tx = sparsity.gradual(
    optax.sgd(0.3, momentum=0.5),
    density=0.2,
    start=start,
    end=end,
    prune_every=interval,
    scope=scope,
  )
  masks = [np.ones(shape, bool) for shape in SHAPES.values()]
  for t, (params, state) in enumerate(run(tx, 16)):
    if start < t <= end and ((t - start) % interval == 0 or t == end):
      left = ((end - t) / (end - start)) ** 3
      weights = weights_of(params)
      if scope == 'layer':
        ks = [
          k + round((x.size - k) * left)
          for x, k in zip(weights, (13, 11), strict=True)
        ]
        masks = list(map(oracles.largest, weights, ks))
      else:
        k = 24 + round((118 - 24) * left)
        masks = oracles.largest_over(weights, k)
    jax.tree.map(np.testing.assert_array_equal, masks_of(state), masks)
  assert sum(mask.sum() for mask in masks) == 13 + 11


def test_a_pruned_entry_keeps_its_value_and_may_return():
  tx = sparsity.gradual(
    optax.sgd(1.0), density=0.5, start=0, end=4, prune_every=2
  )
  params = {'a': {'w': jnp.array([[5.0, 4.0, 3.0, 2.0]])}}
  gradients = [{'a': {'w': jnp.array([[1.5, 1.0, 0.0, 0.0]])}}] * 4
  found = oracles.train(tx, params, gradients)
  masks = [state.sets.forward['a']['w'].astype(int) for _, state in found[1:]]
  # After two updates 2.25 entries stay; the weights are then 2, 2, 3, 2.
  assert [mask.tolist()[0] for mask in masks] == [
    [1, 1, 1, 1],
    [1, 0, 1, 0],
    [1, 0, 1, 0],
    [0, 1, 1, 0],
  ]
  np.testing.assert_array_equal(found[-1][0]['a']['w'], [[-1.0, 2.0, 3.0, 2.0]])


@pytest.mark.parametrize(
  ('method', 'scope'), [('magnitude', 'layer'), ('gradual', 'global')]
)
def test_saliency_uses_the_next_parameters_and_this_gradient(method, scope):
  tx = METHODS[method](optax.sgd(0.1), score='saliency', scope=scope)
  params, state = run(tx, 3)[-1]
  scores = list(map(np.multiply, weights_of(params), weights_of(normal(3))))
  jax.tree.map(
    np.testing.assert_array_equal, masks_of(state), slow_masks(scores, scope)
  )


def test_the_saliency_of_powerprop_is_a_function():
  tx = sparsity.magnitude(
    powerprop.powerprop(optax.sgd(0.1), 3.0),
    density=0.2,
    at=1,
    scope='global',
    score=lambda phi, g: powerprop.to_weights(phi, 3.0) * g,
  )
  params, state = run(tx, 1)[-1]
  scores = [
    x**3 * g
    for x, g in zip(weights_of(params), weights_of(normal(1)), strict=True)
  ]
  jax.tree.map(
    np.testing.assert_array_equal, masks_of(state), slow_masks(scores, 'global')
  )


@pytest.mark.parametrize('method', METHODS)
def test_powerprop_prunes_the_smallest_theta(method):
  tx = METHODS[method](powerprop.powerprop(optax.adam(0.1), 2.0))
  params, state = run(tx, 3)[-1]
  theta = weights_of(powerprop.to_weights(params, 2.0))
  jax.tree.map(
    np.testing.assert_array_equal, masks_of(state), slow_masks(theta, 'layer')
  )


def test_a_gradual_pattern_is_complete_at_the_end():
  tx = sparsity.gradual(
    optax.sgd(0.1),
    density=0.5,
    start=0,
    end=5,
    prune_every=2,
    pattern=patterns.n_of_m(2, 4),
  )
  params = {'a': {'w': normal(0)['a']['w'][:8]}}
  found = oracles.train(tx, params, [params] * 5)
  masks = [state.sets.forward['a']['w'] for _, state in found[1:]]
  # 28 + 28 (3 / 5)^3, 28 + 28 / 125
  assert [mask.sum() for mask in masks] == [56, 34, 34, 28, 28]
  np.testing.assert_array_equal(masks[-1].reshape(2, 4, 7).sum(1), 2)


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
