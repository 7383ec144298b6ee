import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from tests import oracles

METHODS = {
  'magnitude': functools.partial(sparsity.magnitude, at=3, density=0.2),
  'gradual': functools.partial(
    sparsity.gradual, start=0, end=3, prune_every=4, density=0.2
  ),
}


def normal(seed):
  return oracles.normal({'a': {'w': (9, 7)}, 'b': {'w': (11, 5)}}, seed)


def run(tx, num_updates):
  """Returns (params, state) before and after each update."""
  return oracles.train(tx, normal(0), map(normal, range(1, num_updates + 1)))


def masks_of(state):
  oracles.assert_same(*state.sets)
  return [state.sets.forward[layer]['w'] for layer in ('a', 'b')]


def weights_of(params):
  return [np.asarray(params[layer]['w']) for layer in ('a', 'b')]


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
  masks = [np.ones(shape, bool) for shape in ((9, 7), (11, 5))]
  for t, (params, state) in enumerate(run(tx, 16)):
    if start < t <= end and ((t - start) % interval == 0 or t == end):
      left = ((end - t) / (end - start)) ** 3
      weights = weights_of(params)
      if scope == 'layer':
        ks = [13 + round((63 - 13) * left), 11 + round((55 - 11) * left)]
        masks = list(map(oracles.largest, weights, ks))
      else:
        masks = oracles.largest_over(weights, 24 + round((118 - 24) * left))
    oracles.assert_same(masks_of(state), masks)
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


POWERPROP = powerprop.powerprop(optax.sgd(0.1), 2.0)


@pytest.mark.parametrize(
  ('method', 'inner', 'options', 'score'),
  [
    # With Powerpropagation the smallest theta are pruned.
    ('magnitude', POWERPROP, {}, lambda w, g: w * abs(w)),
    # The next parameters and the gradient of this update.
    ('magnitude', optax.sgd(0.1), {'score': 'saliency'}, lambda w, g: w * g),
    (
      'gradual',
      optax.sgd(0.1),
      {'score': 'saliency', 'scope': 'global'},
      lambda w, g: w * g,
    ),
  ],
)
def test_the_entries_of_largest_score_are_kept(method, inner, options, score):
  *_, (_, before), (params, state), (_, after) = run(
    METHODS[method](inner, **options), 4
  )
  assert all(mask.all() for mask in masks_of(before))
  oracles.assert_same(after.sets, state.sets)
  scores = list(map(score, weights_of(params), weights_of(normal(3))))
  expected = slow_masks(scores, options.get('scope', 'layer'))
  oracles.assert_same(masks_of(state), expected)
