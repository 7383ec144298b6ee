import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import patterns
from tests import oracles

SHAPES = [(6, 5), (2, 3, 4, 5), (8, 1)]


def normal(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.cache
def jit_topk(make, *args):
  """Returns the compiled choice of a pattern, shared by all cases."""
  pattern = make(*args)

  @jax.jit
  def topk(scores, k, given):
    given = None if given is None else {'w': given}
    return patterns.topk_masks(pattern, {'w': scores}, {'w': k}, given=given)

  return topk


def topk(pattern, scores, k, given=None):
  """Returns the mask chosen by a pattern, given as (factory, arguments)."""
  masks = jit_topk(*pattern)(jnp.asarray(scores, jnp.float32), k, given)
  return np.asarray(masks['w'])


def units(name, shape):
  """Returns the flat indices of each unit."""
  index = np.arange(np.prod(shape)).reshape(shape)
  if name == 'channels':
    return [index[..., o].ravel() for o in range(shape[-1])]
  rows, columns = name
  return [
    index[(*place, slice(i, i + rows), slice(o, o + columns))].ravel()
    for place in np.ndindex(*shape[:-2])
    for i in range(0, shape[-2], rows)
    for o in range(0, shape[-1], columns)
  ]


def make(name):
  if name == 'channels':
    return (patterns.channels,)
  return patterns.block, *name


def slow_topk(name, scores, k, given=None):
  mask = np.zeros(scores.size, bool)
  flat = np.abs(scores).ravel().astype(np.float64)
  given = np.zeros(scores.shape, bool) if given is None else given
  found = [u for u in units(name, scores.shape) if not given.flat[u].any()]
  for unit in sorted(found, key=lambda unit: -flat[unit].mean())[:k]:
    mask[unit] = True
  return mask.reshape(scores.shape)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', ['channels', (1, 1), (4, 3), (3, 2)])
def test_the_best_units_are_kept(name, shape):
  pattern, scores = make(name), normal(shape)
  num_units = len(units(name, shape))
  assert pattern[0](*pattern[1:]).num_units(shape) == num_units
  for k in {0, 1, num_units // 2, num_units}:
    np.testing.assert_array_equal(
      topk(pattern, scores, k), slow_topk(name, scores, k)
    )


@pytest.mark.parametrize('name', ['channels', (2, 2)])
def test_given_units_are_not_chosen_again(name):
  scores, other = normal((6, 5)), normal((6, 5), seed=1)
  given = topk(make(name), other, 2)
  mask = topk(make(name), scores, 2, given)
  np.testing.assert_array_equal(mask, slow_topk(name, scores, 2, given))
  assert not (mask & given).any()


def test_ties_keep_exactly_k_units():
  for k in range(5):
    assert topk(make('channels'), np.zeros((3, 4)), k).sum() == 3 * k
    assert topk(make((2, 2)), np.zeros((4, 4)), k).sum() == 4 * k
  mask = topk((patterns.n_of_m, 2, 4), np.zeros((8, 3)), 12)
  np.testing.assert_array_equal(groups(mask, 4).sum(1), 2)


def groups(x, m):
  """Returns [groups, m]."""
  return np.moveaxis(x, -2, -1).reshape(-1, m)


def slow_n_of_m(scores, n, m):
  scores = groups(np.abs(scores), m)
  order = np.argsort(-scores, axis=1, kind='stable')
  mask = np.zeros(scores.shape, bool)
  np.put_along_axis(mask, order[:, :n], True, axis=1)
  return mask


def n_of_m(n, m=4):
  return patterns.n_of_m, n, m


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(
  st.integers(0, 48), st.integers(0, 2**32 - 1), st.sampled_from([1, 2])
)
def test_n_of_m_keeps_exactly_k_and_the_pattern_as_far_as_it_can(k, seed, n):
  scores = normal((8, 6), seed)
  mask = topk(n_of_m(n), scores, k)
  assert mask.sum() == k
  best = slow_n_of_m(scores, n, 4)
  if k <= best.sum():
    assert not (groups(mask, 4) & ~best).any()
    kept = groups(np.abs(scores), 4)[groups(mask, 4)]
    left = groups(np.abs(scores), 4)[best & ~groups(mask, 4)]
  else:
    assert (groups(mask, 4) | ~best).all()
    kept = groups(np.abs(scores), 4)[groups(mask, 4) & ~best]
    left = groups(np.abs(scores), 4)[~groups(mask, 4)]
  assert not len(kept) or not len(left) or kept.min() >= left.max()


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(st.integers(0, 24), st.integers(0, 2**32 - 1))
def test_n_of_m_together_with_what_is_given(k, seed):
  given = topk(n_of_m(2), normal((8, 6), seed), k)
  scores = normal((8, 6), seed + 1)
  mask = topk(n_of_m(2), scores, 24 - k, given)
  assert not (mask & given).any()
  np.testing.assert_array_equal(groups(mask | given, 4).sum(1), 2)
  # Within a group, the best entries not given are chosen.
  for group, ours, theirs in zip(
    groups(np.abs(scores), 4), groups(mask, 4), groups(given, 4), strict=True
  ):
    free = np.sort(group[~theirs])[::-1]
    np.testing.assert_array_equal(
      np.sort(group[ours])[::-1], free[: ours.sum()]
    )


def test_random_masks_keep_exactly_k_and_differ_by_key():
  like = {'w': jnp.zeros((8, 6))}
  for pattern, k in [(n_of_m(2), 10), (make((3, 3)), 3)]:
    draw = jax.jit(
      functools.partial(
        patterns.random_masks, pattern[0](*pattern[1:]), like=like, k={'w': k}
      )
    )
    masks = [np.asarray(draw(jax.random.key(i))['w']) for i in range(3)]
    for mask in masks:
      np.testing.assert_array_equal(mask, topk(pattern, mask * 1.0, k))
    assert any((mask != masks[0]).any() for mask in masks[1:])


PARAMS = {
  'odd': {'w': jnp.asarray(normal((5, 4)))},
  'even': {'w': jnp.asarray(normal((8, 4)))},
}


def prune(pattern, **options):
  tx = sparsity.magnitude(
    optax.sgd(0.0), at=1, pattern=pattern, **({'density': 0.5} | options)
  )
  state = tx.init(PARAMS)
  _, state = tx.update(PARAMS, state, PARAMS)
  return {layer: np.asarray(state.sets.forward[layer]['w']) for layer in PARAMS}


def test_a_dense_layer_need_not_fit():
  masks = prune(patterns.n_of_m(2, 4), density=36 / 52, dense=('odd',))
  assert masks['odd'].all()
  np.testing.assert_array_equal(groups(masks['even'], 4).sum(1), 2)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: patterns.n_of_m(0, 4), 'got n=0, m=4'),
    (lambda: patterns.block(0, 4), 'got rows=0, columns=4'),
    (
      lambda: prune(patterns.channels(), scope='global'),
      "'global' with output channels",
    ),
    (lambda: prune(patterns.n_of_m(2, 4)), r'4, got odd/w \(5, 4\): exclude'),
    (
      lambda: prune(
        patterns.n_of_m(1, 2), density=0.7, select=sparsity.matching('even')
      ),
      r'up to 0\.5 .* got 0\.6875 for even/w',
    ),
  ],
)
def test_a_bad_option_is_an_error(make, message):
  with pytest.raises(ValueError, match=message):
    make()


@pytest.mark.parametrize('shape', SHAPES)
def test_each_output_keeps_as_many_of_its_largest_inputs(shape):
  pattern, scores = (patterns.fan_in,), normal(shape)
  other = topk(pattern, normal(shape, seed=1), 2)
  columns = scores.reshape(-1, shape[-1]).T
  taken = other.reshape(-1, shape[-1]).T
  for given in (None, other):
    expected = [
      oracles.largest(x, 3, among=None if given is None else ~y)
      for x, y in zip(columns, taken, strict=True)
    ]
    found = topk(pattern, scores, 3, given)
    np.testing.assert_array_equal(found, np.stack(expected, -1).reshape(shape))
  assert patterns.fan_in().num_units(shape) == columns.shape[1]
