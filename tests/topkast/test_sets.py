"""The sets A and B of given weights, against a stable sort in NumPy."""

import jax
import numpy as np
import pytest

import sparsity
from tests import oracles
from topkast import transform as sets

KEY = jax.random.key(7)
SHAPES = {'a/w': (9, 7), 'b/w': (4, 5, 3)}


def make_weights(seed=0):
  return oracles.normal(SHAPES, seed)


def make_counts(scope='layer'):
  return sparsity.make_counts(
    forward_density=0.2,
    backward_density=0.5,
    scope=scope,
    select=sparsity.is_any,
  )(make_weights())


@pytest.mark.parametrize('exploration', sets.EXPLORATIONS)
@pytest.mark.parametrize('factor', [1, 0])  # 0: all weights tie
def test_a_is_the_top_of_each_layer_and_b_the_larger_top(exploration, factor):
  weights = jax.tree.map(lambda x: factor * x, make_weights())
  counts = make_counts()
  found = sets.make_rule(exploration).init(weights, counts, KEY)
  for path, w in weights.items():
    forward, backward = (masks[path] for masks in found)
    expected = oracles.largest(w, round(0.2 * w.size))
    np.testing.assert_array_equal(forward, expected)
    assert backward.sum() == counts.backward[path]
    assert not (forward & ~backward).any()
    if exploration == 'topk':
      expected = oracles.largest(w, counts.backward[path])
      np.testing.assert_array_equal(backward, expected)


@pytest.mark.parametrize('exploration', sets.EXPLORATIONS)
def test_over_all_layers_the_total_is_exact(exploration):
  # Ranked together, the larger layer takes nearly all.
  weights = make_weights() | {'b/w': 10 * make_weights()['b/w']}
  found = sets.make_rule(exploration).init(weights, make_counts('global'), KEY)
  forward, backward = (list(tree.values()) for tree in found)
  expected = oracles.largest_over(list(weights.values()), 25)
  oracles.assert_same(forward, expected)
  assert sum(mask.sum() for mask in backward) == 62  # half of 123, to even
  for a, b in zip(forward, backward, strict=True):
    assert not (a & ~b).any()


def test_random_exploration_is_random_among_what_is_left():
  weights, counts = make_weights(), make_counts()
  w = weights['a/w']

  def explored(key):
    found = sets.make_rule('random').init(weights, counts, key)
    return found.backward['a/w'] & ~found.forward['a/w']

  drawn = jax.jit(jax.vmap(explored))(jax.random.split(KEY, 500))
  k = counts.backward['a/w'] - counts.forward['a/w']
  np.testing.assert_array_equal(drawn.sum((1, 2)), k)
  left = ~oracles.largest(w, counts.forward['a/w'])
  # Four standard deviations of a mean of 500.
  share = k / left.sum()
  bound = 4 * np.sqrt(share * (1 - share) / 500)
  np.testing.assert_allclose(drawn.mean(0)[left], share, atol=bound)
  assert not drawn[:, ~left].any()
