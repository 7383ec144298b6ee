"""The cut at the k-th largest score, found by counting instead of sorting.

The bits of a float, read as an integer, are ordered like the float. The k-th
largest score is found by interpolation search over these integer keys: count
the scores at or above a few keys, keep the interval that holds the answer,
repeat. Nothing is written to memory, and with sharded scores only counts cross
devices. Ties are cut by the same search over flat indices.

Shapes:
  N: number of cuts found together.
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
_LIKELY = 2.0 ** np.array([-12, -8, -6, -4, -2, 0])

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
  lowest, infinity = _range(scores.dtype, magnitude)
  keys = _raw_order(scores, magnitude, offset)
  size = keys if magnitude else jnp.abs(keys)
  return jnp.where(size > infinity, lowest, keys)


@functools.partial(jax.jit, static_argnames='magnitude')
def find(
  leaves: Sequence[Scores], ks: jax.Array, magnitude: bool = False
) -> list[Cut]:
  """Returns for each k the cut that keeps exactly k scores over all leaves.

  The leaves are ranked as if flattened and concatenated; ks [N] are clipped.
  The cuts share every pass over the scores.
  """
  leaves = jax.tree.map(lax.stop_gradient, leaves)
  total = _total_size(leaves)
  ks = jnp.clip(ks, 0, total)
  bracket = _find_keys(leaves, ks, magnitude)
  keys = bracket.low

  def rank(leaf, offset, n):
    order_of_ties = -_indices(leaf.values.shape, offset)
    leaf = order(leaf, magnitude, offset)
    others = jnp.where(leaf > keys[n], 1, -search.LAST)
    return jnp.where(leaf == keys[n], order_of_ties, others)

  # Without ties at the cut the count is k already, and no pass is made.
  bracket = bracket._replace(
    low=jnp.full_like(ks, -total), high=jnp.full_like(ks, 1)
  )
  lowest_ranks = search.search(rank, leaves, ks, bracket).low
  return [Cut(keys[n], -lowest_ranks[n]) for n in range(len(ks))]


def keep(
  scores: Scores, cut: Cut, offset: int = 0, magnitude: bool = False
) -> jax.Array:
  """Returns the mask of the scores above a cut; for `search.offsets`."""
  is_last = _indices(scores.values.shape, offset) > cut.last
  least = jnp.where(is_last, cut.key + 1, cut.key)
  return order(scores, magnitude, offset) >= least


def _find_keys(leaves, ks, magnitude) -> search.Bracket:
  """Returns brackets whose `low` has k scores or, with ties, the least more."""
  dtype = leaves[0].dtype
  lowest, infinity = _range(dtype, magnitude)

  def rank(leaf, offset, _):
    return _raw_order(leaf, magnitude, offset)

  # All scores are at or above the lowest key, none above the key of infinity.
  integer = np.int64 if _BITS[dtype] == np.int64 else np.int32
  bracket = search.Bracket(
    jnp.full_like(ks, lowest, integer),
    jnp.full_like(ks, infinity + 2, integer),
    jnp.full_like(ks, _total_size(leaves)),
    jnp.zeros_like(ks),
  )
  trials = [1, *(_bits(x, dtype) for x in _LIKELY), infinity + 1]
  likely = jnp.array([trials], integer)
  counts = search.count(rank, leaves, likely)
  num_nan = counts[0, -1]
  bracket = search.narrow(bracket, ks, likely, counts - num_nan)
  return search.search(rank, leaves, ks, bracket, num_nan)


def _raw_order(scores: Scores, magnitude: bool, offset) -> jax.Array:
  """Returns `order`, but with NaN beyond the infinity of its sign."""
  integer = _BITS[scores.dtype]
  if scores.key is None:
    bits = lax.bitcast_convert_type(scores.values, integer)
  else:
    bits = _hash(_indices(scores.values.shape, offset), scores.key)
  if scores.exclude is not None:
    bits = jnp.where(scores.exclude, np.iinfo(integer).max, bits)  # NaN
  bits = bits if integer == np.int64 else bits.astype(jnp.int32)
  size = bits & np.iinfo(integer).max
  return size if magnitude else jnp.where(bits < 0, -size, size)


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
  for axis, size in enumerate(shape):
    along = math.prod(shape[axis + 1 :]) * jnp.arange(size, dtype=jnp.int32)
    index += lax.broadcast_in_dim(along, shape, (axis,))
  return index


def _range(dtype: Any, magnitude: bool) -> tuple[int, int]:
  """Returns the lowest key (NaN) and the highest (infinity)."""
  if dtype not in _BITS:
    raise TypeError(
      'expected scores of float64, float32, bfloat16 or float16, got '
      f'{dtype}: cast them'
    )
  infinity = _bits(np.inf, dtype)
  return (-1 if magnitude else -infinity - 1), infinity


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
