"""The cut at the k-th largest score, found by counting instead of sorting.

The bits of a float, read as an integer, are ordered like the float. The k-th
largest score is found by interpolation search over these integer keys: count
the scores at or above a few keys, keep the interval that holds the answer,
repeat. Nothing is written to memory, and with sharded scores only counts cross
devices. Ties are cut by the same search over flat indices.

Shapes:
  G: groups of arrays ranked together. N: cuts of each.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from sparsity import search

# Typical cuts: a first pass over these saves two or three later ones.
_LIKELY = 2.0 ** np.array([-8, -6, -4, -2])

_BITS: dict[Any, Any] = {
  jnp.dtype(jnp.float64): np.int64,
  jnp.dtype(jnp.float32): np.int32,
  jnp.dtype(jnp.bfloat16): np.int16,
  jnp.dtype(jnp.float16): np.int16,
}


class Cut(NamedTuple):
  """Keeps the scores above `key`, and the ties at `key` up to index `last`."""

  key: jax.Array  # [], a key of `order`
  last: jax.Array  # [], int32: flat index; negative keeps none of the ties


class Scores(NamedTuple):
  """Scores to rank; those in the mask `exclude` rank as NaN does.

  With a key they are random, and `values` only has their shape.
  """

  values: jax.Array
  exclude: jax.Array | None = None
  key: jax.Array | None = None  # uint32 [2]

  @property
  def dtype(self) -> Any:
    """The dtype of the scores."""
    return self.values.dtype if self.key is None else jnp.dtype(jnp.float32)


def order(
  scores: Scores, magnitude: bool = False, offset: int | jax.Array = 0
) -> jax.Array:
  """Returns int32 keys (int64 for float64) in the order of the scores.

  -0.0 equals 0.0, NaN is below every number, and subnormals are distinct even
  where float comparisons flush them to zero.
  """
  keys = _raw_order(scores, magnitude, offset)
  return jnp.maximum(keys, _range(scores.dtype, magnitude)[1])


@functools.partial(jax.jit, static_argnames='magnitude')
def find(
  groups: Sequence[Sequence[Scores]], ks: jax.Array, magnitude: bool = False
) -> list[list[Cut]]:
  """Returns for each group and k the cut that keeps exactly k of its scores.

  The leaves of a group are ranked as if flattened and concatenated; ks [G, N]
  are clipped. All cuts come from one search, and those of a group share every
  pass over its scores.
  """
  groups = jax.tree.map(lax.stop_gradient, groups)
  totals = jnp.array([[_total_size(leaves)] for leaves in groups], jnp.int32)
  ks = jnp.clip(ks, 0, totals)
  bracket, keys = _find_keys(groups, ks, totals, magnitude)

  def rank(leaf, offset, key):
    order_of_ties = -_indices(leaf.values.shape, offset)
    leaf = order(leaf, magnitude, offset)
    key = key.astype(leaf.dtype) + 1
    others = jnp.where(leaf > key, 1, -search.LAST)
    return jnp.where(leaf == key, order_of_ties, others)

  # Without ties at the cut the count is k already, and no pass is made.
  _, lowest_ranks = search.search(
    rank,
    groups,
    ks,
    bracket._replace(
      low=jnp.broadcast_to(-totals - 1, ks.shape), high=jnp.full_like(ks, 1)
    ),
    origins=bracket.low,
    is_rare=True,
  )
  return [
    [Cut(key + 1, -low - 1) for key, low in zip(*pair, strict=True)]
    for pair in zip(keys, lowest_ranks, strict=True)
  ]


def keep(
  scores: Scores, cut: Cut, offset: int = 0, magnitude: bool = False
) -> jax.Array:
  """Returns the mask of the scores above a cut; for `search.offsets`."""
  is_last = _indices(scores.values.shape, offset) > cut.last
  keys = order(scores, magnitude, offset)
  key = cut.key.astype(keys.dtype)
  return keys > jnp.where(is_last, key, key - 1)


def _find_keys(groups, ks, totals, magnitude):
  """Returns the search of keys with k scores or, with ties, the least more.

  Its `low` is one less than the key.
  """

  def rank(leaf, offset, _):
    return _raw_order(leaf, magnitude, offset)

  num_trials = search.num_trials(ks.shape[1])
  trials = _LIKELY[: num_trials * ks.shape[1]]
  dtypes = [leaves[0].dtype for leaves in groups]
  ranges = [_range(dtype, magnitude) for dtype in dtypes]
  integer = np.result_type(*(highest for highest, _ in ranges))
  likely = [
    [highest - (_bits(np.inf, dtype) - _bits(x, dtype)) for x in trials]
    for dtype, (highest, _) in zip(dtypes, ranges, strict=True)
  ]
  high, low = np.array(ranges, integer).T
  bracket = search.Bracket(
    jnp.broadcast_to(low[:, None] - 1, ks.shape),
    jnp.broadcast_to(high[:, None], ks.shape),
    jnp.broadcast_to(totals, ks.shape),
    jnp.zeros_like(ks),
  )
  first = jnp.array(likely, integer).reshape(*ks.shape, num_trials)
  return search.search(rank, groups, ks, bracket, first=first)


def _raw_order(scores: Scores, magnitude: bool, offset) -> jax.Array:
  """Returns `order`, but with NaN at or below the lowest key.

  Keys end at the largest integer, so that those of NaN overflow to the least.
  """
  integer = _BITS[scores.dtype]
  if scores.key is None:
    bits = lax.bitcast_convert_type(scores.values, integer)
  else:
    bits = _hash(_indices(scores.values.shape, offset), scores.key)
  if scores.exclude is not None:
    bits = jnp.where(scores.exclude, np.iinfo(integer).max, bits)  # NaN
  highest, _ = _range(scores.dtype, magnitude)
  bits = bits.astype(highest.dtype)
  size = bits & np.iinfo(integer).max
  keys = size if magnitude else jnp.where(bits < 0, -size, size)
  return keys + (highest - _bits(np.inf, scores.dtype))


def _hash(index: jax.Array, key: jax.Array) -> jax.Array:
  """Returns random bits of finite floats, of which 2^31 are distinct.

  Two rounds of the 32-bit finalizer of MurmurHash3, a bijection for each key:
  enough to draw lots, and computed anew in each pass instead of stored.
  """
  x = index.astype(jnp.uint32)
  for word in key:
    x = x * np.uint32(0x9E3779B9) + word
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    x = x ^ (x >> 16)
  # Clearing the lowest bit of the exponent excludes infinity and NaN.
  return lax.bitcast_convert_type(x & np.uint32(0xFF7FFFFF), jnp.int32)


def _indices(shape: tuple[int, ...], offset: int | jax.Array) -> jax.Array:
  """Returns flat indices, starting from `offset` so that XLA fuses them."""
  index = jnp.full(shape, offset, jnp.int32)
  for axis in range(len(shape)):
    along = lax.broadcasted_iota(jnp.int32, shape, axis)
    index += math.prod(shape[axis + 1 :]) * along
  return index


def _range(dtype: Any, magnitude: bool) -> tuple[Any, Any]:
  """Returns the highest key (infinity) and the lowest (NaN)."""
  if dtype not in _BITS:
    raise TypeError(
      'expected scores of float64, float32, bfloat16 or float16, got '
      f'{dtype}: cast them'
    )
  integer = np.int64 if _BITS[dtype] == np.int64 else np.int32
  highest, infinity = integer(np.iinfo(integer).max), _bits(np.inf, dtype)
  zero = highest - integer(infinity)
  return highest, zero - integer(1 if magnitude else infinity + 1)


def _bits(value, dtype) -> int:
  return int(np.array(value, dtype).view(_BITS[dtype]))


def _total_size(leaves: Sequence[Scores]) -> int:
  dtypes = sorted({str(leaf.dtype) for leaf in leaves})
  if len(dtypes) != 1:
    raise ValueError(
      f'expected scores of one dtype to rank together, got {dtypes}: cast them'
    )
  total = sum(leaf.values.size for leaf in leaves)
  if total > search.LAST:
    raise ValueError(
      f'expected fewer than 2^31 scores to rank together, got {total}: counts '
      'are int32, so rank them layer by layer'
    )
  return total
