"""Masks against a stable sort in NumPy."""

import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import topk
from tests import oracles

SHAPE = (6, 7)
SIZE = 42
KS = [0, 1, 5, 20, 41, 42]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64]
INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}

both = jax.jit(lambda x, *ks: topk.nested_topk_masks(x, ks))
both_magnitude = jax.jit(
  lambda x, *ks: topk.nested_topk_masks(x, ks, magnitude=True)
)
oracle = functools.partial(oracles.largest, magnitude=False)


def numpy_cases():
  random = np.random.default_rng(0)
  normal = random.standard_normal(SHAPE)
  mixed = random.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0], SHAPE)
  return {
    'normal': normal,
    'few values': random.integers(-2, 3, SHAPE).astype(float),
    'all equal': np.full(SHAPE, 0.3),
    'both zeros': np.where(normal > 0, 0.0, -0.0),
    'equal as float32': 1 + random.integers(0, 5, SHAPE) * 2.0**-50,
    'mixed': mixed,
    'all NaN': np.full(SHAPE, np.nan),
    'some NaN': np.where(normal > 0.5, np.nan, normal),
    'all infinite': np.full(SHAPE, np.inf),
  }


def from_bits(bits, dtype):
  return np.array(bits, INTEGERS[jnp.dtype(dtype).itemsize]).view(dtype)


def is_equal(mask, expected):
  return np.array_equal(np.asarray(mask), expected)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('case', numpy_cases())
def test_mask_is_that_of_a_stable_sort(case, dtype):
  scores = numpy_cases()[case].astype(dtype)
  with jax.enable_x64(dtype == jnp.float64):
    for ks in zip(KS, KS[1:] + KS[:1], strict=True):
      for mask, k in zip(both(scores, *ks), ks, strict=True):
        assert is_equal(mask, oracle(scores, k))
      for mask, k in zip(both_magnitude(scores, *ks), ks, strict=True):
        assert is_equal(mask, oracles.largest(scores, k))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_bits_are_ranked_like_a_stable_sort(data):
  dtype = data.draw(st.sampled_from(DTYPES))
  bound = 2 ** (8 * jnp.dtype(dtype).itemsize - 1)
  # Few different bit patterns, so that many are equal, or neighbours.
  some = st.lists(st.integers(-bound, bound - 1), min_size=1, max_size=SIZE)
  bit = st.sampled_from(data.draw(some))
  bits = data.draw(st.lists(bit, min_size=SIZE, max_size=SIZE))
  scores = from_bits(bits, dtype).reshape(SHAPE)
  ks = data.draw(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)))
  with jax.enable_x64(dtype == jnp.float64):
    for mask, k in zip(both(scores, *ks), ks, strict=True):
      assert is_equal(mask, oracle(scores, k))


def test_under_vmap_a_traced_k_is_clipped():
  batch = np.stack(list(numpy_cases().values())).astype(np.float32)
  ks = np.arange(len(batch)) * 3
  mapped = jax.vmap(topk.topk_mask)(batch, np.where(ks, ks, -1))
  for mask, scores, k in zip(mapped, batch, ks, strict=True):
    assert is_equal(mask, oracle(scores, k))


def test_another_k_does_not_recompile():
  scores = jnp.asarray(numpy_cases()['normal'], jnp.float32)
  topk.topk_mask(scores, 3)
  before = topk._jit_topk._cache_size()
  topk.topk_mask(scores, 4)
  topk.topk_mask(scores + 1, jnp.int32(5))
  assert topk._jit_topk._cache_size() == before


def test_nothing_as_large_as_the_scores_is_written_but_the_masks():
  scores = jax.ShapeDtypeStruct((128, 512), jnp.float32)
  pick = jax.jit(lambda x: topk.nested_topk_masks(x, [9, 30], magnitude=True))
  memory = pick.lower(scores).compile().memory_analysis()
  assert memory.temp_size_in_bytes < scores.size / 2


def test_the_gradient_treats_masks_as_constant():
  def loss(x):
    return jnp.sum(x * topk.topk_mask(x, 2, magnitude=True))

  gradient = jax.grad(loss)(jnp.array([1.0, -3.0, 2.0]))
  assert is_equal(gradient, [0.0, 1.0, 1.0])


def tree():
  values, normal = (
    numpy_cases()[name].astype(np.float32) for name in ('few values', 'normal')
  )
  empty = np.zeros((0, 2), np.float32)
  return {
    'b': values,
    'a': {'w': normal, 'v': np.ones(5, np.float32), 'empty': empty},
  }


def test_each_layer_by_itself():
  scores = tree()
  ks = {'b': 7, 'a': {'w': 40, 'v': 0, 'empty': 0}}
  found = topk.topk_masks(scores, ks)
  expected = jax.tree.map(oracle, scores, ks)
  assert jax.tree.all(jax.tree.map(is_equal, found, expected))
  assert topk.topk_masks({}, {}) == {}


def test_layers_of_one_shape_have_their_own_ties():
  random = np.random.default_rng(0)
  scores = {
    str(i): random.integers(0, 4, (6, 5 + i % 2)).astype(np.float32)
    for i in range(6)
  }
  scores['2'] = random.normal(size=(6, 5)).astype(np.float32)  # no ties
  ks = {name: 3 + 4 * int(name) for name in scores}
  found = topk.topk_masks(scores, ks)
  expected = jax.tree.map(oracle, scores, ks)
  assert jax.tree.all(jax.tree.map(is_equal, found, expected))


@pytest.mark.parametrize('k', [0, 12, 40])
def test_all_layers_together_are_ranked_as_if_concatenated(k):
  scores = tree()
  leaves, structure = jax.tree.flatten(scores)
  expected = oracles.largest_over(leaves, k, magnitude=False)
  found, every = topk.nested_topk_masks(scores, [k, 89], scope='global')
  assert jax.tree.structure(found) == structure
  assert all(map(is_equal, jax.tree.leaves(found), expected))
  assert all(x.all() for x in jax.tree.leaves(every))
  assert topk.topk_masks({}, 0, scope='global') == {}


def some(like):
  """Returns masks of two entries out of three."""
  return jax.tree.map(
    lambda x: np.arange(x.size).reshape(x.shape) % 3 > 0, like
  )


def test_excluded_scores_of_each_layer_come_last():
  scores = tree()
  exclude = some(scores)
  ks = {'b': 7, 'a': {'w': 40, 'v': 2, 'empty': 0}}
  found = topk.topk_masks(scores, ks, exclude=exclude)
  expected = jax.tree.map(
    lambda x, k, taken: oracle(np.where(taken, np.nan, x), k),
    *(scores, ks, exclude),
  )
  assert jax.tree.all(jax.tree.map(is_equal, found, expected))


TWO_DTYPES = [jnp.ones(2, jnp.float32), jnp.ones(2, jnp.bfloat16)]


@pytest.mark.parametrize(
  ('scores', 'k', 'scope', 'error', 'message'),
  [
    (tree()['b'], 43, 'layer', ValueError, 'between 0 and .* 42, got 43'),
    (tree()['b'], 2.5, 'layer', TypeError, r'integer k, got 2\.5'),
    (tree(), 3, 'layer', ValueError, 'k like the tree of scores'),
    (tree(), 3, 'model', ValueError, "'layer' or 'global', got 'model'"),
    (np.zeros(3, np.int32), 1, 'layer', TypeError, 'got int32: cast'),
    (TWO_DTYPES, 1, 'global', ValueError, "'bfloat16', 'float32'"),
  ],
)
def test_bad_scores_or_k_are_an_error(scores, k, scope, error, message):
  with pytest.raises(error, match=message):
    topk.topk_masks(scores, k, scope)


def test_more_scores_than_can_be_counted_are_an_error():
  layer = jax.ShapeDtypeStruct((2**30,), jnp.float32)
  pick = functools.partial(topk.topk_masks, k=1, scope='global')
  jax.eval_shape(pick, [layer])
  with pytest.raises(ValueError, match='fewer than 2\\^31'):
    jax.eval_shape(pick, [layer, layer])


def test_random_mask_has_exactly_k_and_is_uniform():
  for k in (0, 1, 42):
    assert topk.random_mask(jax.random.key(3), SHAPE, k).sum() == k
  keys = jax.random.split(jax.random.key(4), 2000)
  drawn = jax.vmap(lambda key: topk.random_mask(key, (10,), 3))(keys)
  # 0.3 +- four standard deviations of a mean of 2000, for each entry.
  np.testing.assert_allclose(drawn.mean(axis=0), 0.3, atol=0.041)
  assert len(np.unique(np.asarray(drawn), axis=0)) == 120  # 10 choose 3


def test_num_kept_rounds_and_keeps_at_least_one():
  assert topk.num_kept(0.25, 10) == 2  # to even, as Python rounds
  assert topk.num_kept(0.001, 10) == 1
  assert topk.num_kept(1.0, 7) == 7
  with pytest.raises(ValueError, match='at least one entry'):
    topk.num_kept(0.5, 0)
  for density in (0.0, float('nan')):
    with pytest.raises(ValueError, match=rf'in \(0, 1\], got {density}'):
      topk.num_kept(density, 10)


def test_random_masks_are_those_of_each_layer_by_itself():
  like = tree()
  ks = {'b': 7, 'a': {'w': 40, 'v': 2, 'empty': 0}}
  keys = jax.tree.map(lambda x: jax.random.key(x.size), like)
  exclude = some(like)
  found = topk.random_masks(keys, like, ks, exclude=exclude)
  expected = jax.tree.map(
    lambda key, x, k, taken: topk.random_mask(key, x.shape, k, exclude=taken),
    *(keys, like, ks, exclude),
  )
  assert jax.tree.all(jax.tree.map(is_equal, found, expected))
  assert not (found['b'] & exclude['b']).any()
