"""Where to cut: the k-th largest score without a sort, by counting.

The bits of a float, read as an integer, are ordered as the float is. So the
k-th largest score is found as a word is in a dictionary: count the scores at or
above a few keys, keep the interval that must hold the answer, and again. That
writes nothing, and where the scores are sharded over devices sends only counts.
Equal scores are cut the same way, by a search over their index.

Shapes:
  N: number of cuts found together. T: values tried for each in one pass.
"""

from collections.abc import Sequence
import functools
import itertools
import math
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_LAST = np.iinfo(np.int32).max

# Most cuts are here: a first pass that tries these saves two or three others.
_LIKELY = 2.0 ** np.array([-12, -8, -6, -4, -2, 0])

_BITS = {
  jnp.dtype(jnp.float32): np.int32,
  jnp.dtype(jnp.bfloat16): np.int16,
  jnp.dtype(jnp.float16): np.int16,
}


class Cut(NamedTuple):
  """What is kept: scores above `key`, and those at it up to index `last`."""

  key: jax.Array  # [], int32: a key of `order`
  last: jax.Array  # [], int32: a flat index, negative to keep none at `key`


def kth_magnitude(x: jax.Array, k: int | jax.Array) -> jax.Array:
  """Returns the k-th largest |x|.

  NaN is less than every number. There is no derivative.

  Example:
    >>> kth_magnitude(jnp.array([3.0, -5.0, 0.0, 4.0]), 2)
    Array(4., dtype=float32)

  Shapes:
    x: any but an empty one; the result is a scalar of the same dtype.

  Args:
    x: float32, bfloat16 or float16.
    k: From 1 to the size of `x`. If it is an array it cannot be checked, and
      one outside gives NaN.

  Raises:
    ValueError: If `k` is an integer outside [1, size].
    TypeError: If `k` is not an integer, or `x` of another dtype.
  """
  x = jnp.asarray(x)
  check_k(k, x.size, least=1)
  return _kth_magnitude(x, jnp.asarray(k, jnp.int32))


def order(scores: jax.Array, magnitude: bool = False) -> jax.Array:
  """Returns int32 keys that are ordered as the scores are.

  -0.0 is equal to 0.0, NaN is less than every number, and subnormals are told
  apart even where float comparisons take them for zero.

  Example:
    >>> order(jnp.array([-2e-45, -0.0, 0.0, 3e-45]))
    Array([-1,  0,  0,  2], dtype=int32)

  Shapes:
    scores: any; the result has the same shape.

  Args:
    scores: float32, bfloat16 or float16.
    magnitude: Whether to order |scores|.

  Raises:
    TypeError: If the scores are of another dtype.
  """
  lowest, infinity = _range(scores.dtype, magnitude)
  integer = _BITS[scores.dtype]
  bits = lax.bitcast_convert_type(scores, integer).astype(jnp.int32)
  size = bits & np.iinfo(integer).max
  keys = size if magnitude else jnp.where(bits < 0, -size, size)
  return jnp.where(size > infinity, lowest, keys)


@functools.partial(jax.jit, static_argnames='magnitude')
def find(
  leaves: Sequence[jax.Array], ks: jax.Array, magnitude: bool = False
) -> list[Cut]:
  """Returns for each k the cut that keeps exactly k scores of all leaves.

  The cuts share each pass, so that two cost little more than one.

  Example:
    >>> scores = jnp.array([5.0, 7.0, 5.0, 5.0])
    >>> [cut] = find([scores], jnp.array([3]))
    >>> keep(scores, cut)
    Array([ True,  True,  True, False], dtype=bool)

  Shapes:
    leaves: any; they are ranked together, as if flattened and concatenated.
    ks: [N]; those outside [0, total size] are clipped.

  Raises:
    ValueError: If there are 2^31 scores or more, or of several dtypes.
    TypeError: If they are not float32, bfloat16 or float16.
  """
  leaves = [lax.stop_gradient(leaf) for leaf in leaves]
  total = _total_size(leaves)
  ks = jnp.clip(ks, 0, total)
  keys, _, count = _find_keys(leaves, ks, magnitude)

  def rank(leaf, offset, n):
    order_of_ties = -_indices(leaf.shape, offset)
    leaf = order(leaf, magnitude)
    others = jnp.where(leaf > keys[n], 1, -_LAST)
    return jnp.where(leaf == keys[n], order_of_ties, others)

  # Where no ties are to be cut, the count is k already, and no pass is made.
  bracket = _Bracket(jnp.full_like(ks, -total), jnp.full_like(ks, 1), count)
  lowest_ranks = _search(rank, leaves, ks, bracket).low
  return [Cut(keys[n], -lowest_ranks[n]) for n in range(len(ks))]


def keep(
  scores: jax.Array, cut: Cut, offset: int = 0, magnitude: bool = False
) -> jax.Array:
  """Returns the boolean mask of the scores that a cut keeps.

  Args:
    scores: One of the leaves given to `find`.
    cut: One of its results.
    offset: The one of `offsets` for this leaf.
    magnitude: As given to `find`.
  """
  keys = order(scores, magnitude)
  is_first = _indices(scores.shape, offset) <= cut.last
  return (keys > cut.key) | ((keys == cut.key) & is_first)


def offsets(leaves: Sequence[jax.Array]) -> list[int]:
  """Returns for each leaf the number of entries in the leaves before it."""
  return [0, *itertools.accumulate(leaf.size for leaf in leaves[:-1])]


def check_k(k: int | jax.Array, size: int, least: int = 0) -> None:
  """Raises unless `k` is an integer and, if it is known, in [least, size]."""
  if not jnp.issubdtype(jnp.result_type(k), jnp.integer):
    raise TypeError(f'expected an integer k, got {k!r}')
  if isinstance(k, (int, np.integer)) and not least <= k <= size:
    raise ValueError(
      f'expected k between {least} and the number of scores, {size}, got {k}'
    )


class _Bracket(NamedTuple):
  """The greatest value with at least k scores is in [low, high)."""

  low: jax.Array  # [N], int32
  high: jax.Array  # [N], int32
  count: jax.Array  # [N], int32: how many scores are at or above `low`


def _find_keys(leaves, ks, magnitude, to_the_end=False) -> _Bracket:
  """Returns in `low` keys with k scores or, of ties, the least more."""
  dtype = leaves[0].dtype
  lowest, infinity = _range(dtype, magnitude)

  def rank(leaf, *_):
    return order(leaf, magnitude)

  # All scores are at or above the lowest key, none at the one after infinity.
  start = (lowest, infinity + 2, _total_size(leaves))
  bracket = _Bracket(*(jnp.full_like(ks, value) for value in start))
  likely = jnp.array([[_bits(x, dtype) for x in _LIKELY]], jnp.int32)
  bracket = _narrow(bracket, ks, likely, _count(rank, leaves, likely))
  return _search(rank, leaves, ks, bracket, to_the_end)


def _search(rank, leaves, ks, bracket, to_the_end=False) -> _Bracket:
  """Narrows the bracket until the count at `low` is k, or to one value.

  `rank(leaf, offset, n)` gives the integers to compare for the n-th k.
  """
  # More parts would be fewer passes, but of more comparisons; measured.
  num_parts = 4 if len(ks) == 1 else 3

  def is_open(bracket):
    is_wide = _distance(bracket.low, bracket.high) > 1
    return jnp.any(is_wide & (to_the_end | (bracket.count != ks)))

  def narrow(bracket):
    width = _distance(bracket.low, bracket.high)[:, None]
    parts = jnp.arange(1, num_parts, dtype=jnp.uint32)[None]
    steps = width // num_parts * parts + jnp.minimum(width % num_parts, parts)
    values = bracket.low[:, None] + steps.astype(jnp.int32)
    return _narrow(bracket, ks, values, _count(rank, leaves, values))

  return lax.while_loop(is_open, narrow, bracket)


def _narrow(bracket, ks, values, counts) -> _Bracket:
  """Returns the bracket, knowing the counts of values [N, T] (or [1, T])."""
  is_low = counts >= ks[:, None]
  return _Bracket(
    jnp.maximum(bracket.low, jnp.where(is_low, values, -_LAST).max(1)),
    jnp.minimum(bracket.high, jnp.where(is_low, _LAST, values).min(1)),
    jnp.minimum(bracket.count, jnp.where(is_low, counts, _LAST).min(1)),
  )


def _count(rank, leaves, values) -> jax.Array:
  """Returns [N, T]: how many n-th ranks of all leaves are >= values[n, t].

  One reduction with many results reads its operands once, and the compiler
  makes vector code of it; as many reductions would each read them again.
  """

  def add(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))

  # Else the compiler would compute what is the same in each pass, the keys and
  # the indices, before the loop: arrays as large as the scores.
  starts = [jnp.int32(offset) for offset in offsets(leaves)]
  leaves, starts, values = lax.optimization_barrier((leaves, starts, values))

  counts = zeros = (np.int32(0),) * values.size
  for leaf, offset in zip(leaves, starts, strict=True):
    is_above = tuple(
      (rank(leaf, offset, n) >= value).astype(jnp.int32)
      for n, row in enumerate(values)
      for value in row
    )
    axes = tuple(range(leaf.ndim))
    counts = add(counts, lax.reduce(is_above, zeros, add, axes))
  return jnp.stack(counts).reshape(values.shape)


def _indices(shape: tuple[int, ...], offset: int | jax.Array) -> jax.Array:
  """Returns flat indices, with no array of them before `offset` is added."""
  index = jnp.full(shape, offset, jnp.int32)
  for axis, size in enumerate(shape):
    along = math.prod(shape[axis + 1 :]) * jnp.arange(size, dtype=jnp.int32)
    index += lax.broadcast_in_dim(along, shape, (axis,))
  return index


def _distance(low: jax.Array, high: jax.Array) -> jax.Array:
  """Returns high - low, which may be more than an int32 holds."""
  return lax.bitcast_convert_type(high - low, jnp.uint32)


def _range(dtype: Any, magnitude: bool) -> tuple[int, int]:
  """Returns the lowest key, that of NaN, and the highest, of infinity."""
  if dtype not in _BITS:
    raise TypeError(
      f'expected scores of float32, bfloat16 or float16, got {dtype}: cast them'
    )
  infinity = _bits(np.inf, dtype)
  return (-1 if magnitude else -infinity - 1), infinity


def _bits(value, dtype) -> int:
  return int(np.array(value, dtype).view(_BITS[dtype]))


def _total_size(leaves: Sequence[jax.Array]) -> int:
  dtypes = sorted({str(leaf.dtype) for leaf in leaves})
  if len(dtypes) != 1:
    raise ValueError(
      f'expected scores of one dtype to rank together, got {dtypes}: cast them'
    )
  total = sum(leaf.size for leaf in leaves)
  if total > _LAST:
    raise ValueError(
      f'expected fewer than 2^31 scores to rank together, got {total}: counts '
      'are int32, so rank them layer by layer'
    )
  return total


@jax.jit
def _kth_magnitude(x: jax.Array, k: jax.Array) -> jax.Array:
  x = lax.stop_gradient(x)
  [key] = _find_keys([x], k[None], magnitude=True, to_the_end=True).low
  is_number = (key >= 0) & (k >= 1) & (k <= x.size)
  bits = jnp.where(is_number, key, _bits(np.nan, x.dtype))
  return lax.bitcast_convert_type(bits.astype(_BITS[x.dtype]), x.dtype)
