"""The number of passes of the search, and its counts of large arrays."""

import functools
import math
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import search
from sparsity import threshold
from sparsity import topk
from tests import oracles

SIZE = 3000
# Over 32 bits, then over the index among ties: of two passes, one keeps at most
# a third.
MOST_KEY_PASSES = 1 + 2 * math.ceil(32 * math.log(2, 3))
MOST_TIE_PASSES = 2 * math.ceil(math.log(2 * SIZE, 3))


def adversarial_cases():
  random = np.random.default_rng(0)
  uniform = random.uniform(1, 1.001, SIZE)
  is_first = random.random(SIZE) < 0.5
  ladder = np.arange(SIZE)
  return {
    'all equal': np.full(SIZE, 0.3),
    'all NaN': np.full(SIZE, np.nan),
    'two values': np.where(is_first, 1.0, 1.0 + 2.0**-23),
    'two clusters far apart': np.where(is_first, 1e-30, 1e30) * uniform,
    'few in the tail': np.where(ladder < 300, 1e30, 1e-3) * uniform,
    'each octave half': 2.0 ** -np.minimum(ladder, 148),
    'doubly exponential': np.exp(-np.exp(ladder % 6.0)),
    'mostly zero': np.where(is_first, 0, uniform),
    'neighbors in clusters': np.int32(
      2**29 + ladder % 50 + 2**20 * (ladder // 50)
    ).view(np.float32),
    'subnormal': np.int32(ladder).view(np.float32),
  }


@pytest.fixture(name='passes')
def counted_passes(monkeypatch):
  """Returns a function from scores and ks to the cuts and number of passes."""
  made = []
  count = search.count_group

  def counted(*args):
    jax.debug.callback(lambda: made.append(None))
    return count(*args)

  monkeypatch.setattr(search, 'count_group', counted)
  find = jax.jit(functools.partial(threshold.find.__wrapped__, magnitude=True))

  def passes(scores, ks):
    made.clear()
    groups = [[threshold.Scores(scores)]]
    [cuts] = jax.block_until_ready(find(groups, jnp.asarray([ks])))
    jax.effects_barrier()
    return cuts, len(made)

  return passes


def test_no_scores_need_many_passes_and_each_cut_is_exact(passes):
  for name, case in adversarial_cases().items():
    scores = case.astype(np.float32)
    ranked = np.lexsort((np.arange(SIZE), -np.nan_to_num(scores, nan=-1)))
    for ks in ((300, 600), (1, SIZE - 1), (0, SIZE)):
      cuts, num_passes = passes(scores, ks)
      assert num_passes <= MOST_KEY_PASSES + MOST_TIE_PASSES, (name, ks)
      for cut, k in zip(cuts, ks, strict=True):
        leaf = threshold.Scores(jnp.asarray(scores))
        kept = threshold.keep(leaf, cut, magnitude=True)
        expected = np.isin(np.arange(SIZE), ranked[:k])
        assert np.array_equal(kept, expected), (name, k)


def test_random_scores_need_few_passes(passes):
  random = np.random.default_rng(1)
  made = []
  for scale in (0.01, 0.04, 0.3, 2.0):
    for draw in (random.standard_normal, random.standard_cauchy):
      scores = scale * draw(100_000)
      made.append(passes(scores.astype(np.float32), (10_000, 20_000))[1])
  assert np.mean(made) < 12  # equal parts alone: 16
  assert max(made) < 20


# Other widths, so that programs of other settings are not reused.
@pytest.mark.parametrize(('width', 'is_split'), [(128, False), (256, True)])
def test_sharded_scores_are_counted_where_they_are(
  width, is_split, monkeypatch
):
  if is_split:
    monkeypatch.setattr(search, '_LEAST_SPLIT', 1)
    monkeypatch.setattr(search, '_LEAST_PART', 100)
  mesh = jax.make_mesh(
    (2, 2), ('x', 'y'), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )
  sharding = jax.sharding.NamedSharding(mesh, jax.P('x', 'y'))
  x = np.random.default_rng(3).integers(-9, 9, (8, width)).astype(np.float32)
  placed = jax.device_put(x, sharding)
  pick = jax.jit(
    lambda x: topk.nested_topk_masks(x, [100, 300]), out_shardings=sharding
  )
  for mask, k in zip(pick(placed), (100, 300), strict=True):
    expected = oracles.largest(x, k, magnitude=False)
    np.testing.assert_array_equal(mask, expected)
  text = pick.lower(placed).compile().as_text()
  sent = re.findall(r'= (.*) (?:all-|collective-|reduce-scatter).*\(', text)
  sizes = [
    math.prod(map(int, filter(None, shape.split(','))))
    for shape in re.findall(r'\w+\[([\d,]*)\]', ' '.join(sent))
  ]
  # Counts: one from each device, or one of each row on both that share it.
  assert sizes
  assert max(sizes) <= (8 * 2 if is_split else 4)


OFTEN = {'refresh_every': 1, 'stop_refresh_at': 9}


def num_loops(jaxpr):
  """Returns the number of loops in a program, those within others too."""
  inner = jax.extend.core.jaxprs_in_params
  return sum(
    (eqn.primitive.name == 'while') + sum(map(num_loops, inner(eqn.params)))
    for eqn in jaxpr.eqns
  )


@pytest.mark.parametrize(
  ('method', 'num_masks'),
  [
    (sparsity.magnitude(optax.sgd(0.1), density=0.1, at=1), 1),
    (sparsity.rigl(optax.sgd(0.1), density=0.1, **OFTEN), 2),
    (sparsity.set_(optax.sgd(0.1), density=0.1, **OFTEN), 2),
  ],
  ids=['magnitude', 'rigl', 'set'],
)
def test_layers_are_searched_together(method, num_masks):
  def count(num_layers):
    params = {f'linear_{i}': {'w': jnp.ones((8, 4))} for i in range(num_layers)}
    state = jax.eval_shape(method.init, params)
    return num_loops(jax.make_jaxpr(method.update)(params, state, params).jaxpr)

  # A layer adds the loop that reads its keys for each mask; layers of one shape
  # share that of their ties.
  assert count(8) - count(4) == 4 * num_masks
