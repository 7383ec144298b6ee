"""Where to cut: the k-th largest score without a sort, by counting.

The bits of a float, read as an integer, are ordered as the float is. So the
k-th largest score is found as a word is in a dictionary: count the scores at or
above a few keys, keep the interval that must hold the answer, and again. A
count is a sum: it reads the scores once, writes nothing, and on scores that are
sharded over devices communicates only the sums. Equal scores are cut the same
way, by a search over their flat index.

Shapes:
  N: number of cuts found together, sharing each pass over the scores.
  T: number of values tried for each cut in one pass.
"""

from collections.abc import Callable
from collections.abc import Sequence
import itertools
import math
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_LAST = np.iinfo(np.int32).max

# Most scores worth ranking lie here: a first pass that tries these powers of
# two saves two or three others, and is only one pass too many where it fails.
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
  check_dtype(scores)
  lowest, infinity = _range(scores.dtype, magnitude)
  integer = _BITS[scores.dtype]
  bits = lax.bitcast_convert_type(scores, integer).astype(jnp.int32)
  size = bits & np.iinfo(integer).max
  keys = size if magnitude else jnp.where(bits < 0, -size, size)
  return jnp.where(size > infinity, lowest, keys)


def find(
  leaves: Sequence[jax.Array], ks: jax.Array, magnitude: bool = False
) -> list[Cut]:
  """Returns, for each k of `ks`, the cut that keeps exactly k scores.

  The cuts are found together, so that two cost little more than one.

  Example:
    >>> scores = jnp.array([5.0, 7.0, 5.0, 5.0])
    >>> [cut] = find([scores], jnp.array([3]))
    >>> keep(scores, cut)
    Array([ True,  True,  True, False], dtype=bool)

  Shapes:
    leaves: any; they are ranked together, as if flattened and concatenated.
    ks: [N].

  Args:
    leaves: The scores, all of one dtype: float32, bfloat16 or float16.
    ks: How many to keep. Those outside [0, total size] are clipped.
    magnitude: Whether to rank |scores|.

  Raises:
    ValueError: If there are 2^31 scores or more, or two dtypes.
    TypeError: If the scores are of another dtype.
  """
  total = _total(leaves)
  leaves = [lax.stop_gradient(leaf) for leaf in leaves]
  ks = jnp.clip(ks, 0, total)
  keys, _, count = _find_keys(leaves, ks, magnitude)

  def count_first(leaves, negative_indices):
    return sum(
      _count(
        [_rank(leaf, offset, key, magnitude) for key in keys], negative_indices
      )
      for leaf, offset in zip(leaves, offsets(leaves), strict=True)
    )

  # Where no tie is to be cut, `count` is already k, and no pass is made.
  bracket = _Bracket(jnp.full_like(ks, -total), jnp.full_like(ks, 1), count)
  negative_lasts, _, _ = _search(count_first, leaves, ks, bracket)
  return [
    Cut(key, -last) for key, last in zip(keys, negative_lasts, strict=True)
  ]


def keep(
  scores: jax.Array, cut: Cut, offset: int = 0, magnitude: bool = False
) -> jax.Array:
  """Returns the boolean mask of the scores that a cut keeps.

  Shapes:
    scores: any; the result has the same shape.

  Args:
    scores: One of the leaves given to `find`.
    cut: One of its results.
    offset: The number of scores in the leaves before this one.
    magnitude: As given to `find`.
  """
  keys = order(scores, magnitude)
  is_first = _indices(scores.shape, offset) <= cut.last
  return (keys > cut.key) | ((keys == cut.key) & is_first)


def offsets(leaves: Sequence[jax.Array]) -> list[int]:
  """Returns for each leaf the number of entries in the leaves before it."""
  return [0, *itertools.accumulate(leaf.size for leaf in leaves[:-1])]


def check_dtype(scores: jax.Array) -> None:
  """Raises TypeError unless scores of this dtype can be ranked."""
  if scores.dtype not in _BITS:
    raise TypeError(
      f'expected scores of float32, bfloat16 or float16, got {scores.dtype}: '
      'cast them'
    )


def check_k(k: int | jax.Array, size: int, least: int = 0) -> None:
  """Raises an error unless `k` is an integer, and in [least, size] if known."""
  if not jnp.issubdtype(jnp.result_type(k), jnp.integer):
    raise TypeError(f'expected an integer k, got {k!r}')
  if isinstance(k, (int, np.integer)) and not least <= k <= size:
    raise ValueError(
      f'expected k between {least} and the number of scores, {size}, got {k}'
    )


class _Bracket(NamedTuple):
  """What is known: the last value with at least k scores is in [low, high)."""

  low: jax.Array  # [N], int32: at least k scores are at or above it
  high: jax.Array  # [N], int32: fewer are
  count: jax.Array  # [N], int32: how many are at or above `low`


def _find_keys(
  leaves: Sequence[jax.Array], ks: jax.Array, magnitude: bool
) -> _Bracket:
  """Returns as `low` keys that so many scores reach; fewer reach more."""
  dtype = leaves[0].dtype
  lowest, infinity = _range(dtype, magnitude)

  def count(leaves, keys):
    return sum(
      _count([order(leaf, magnitude)] * len(keys), keys) for leaf in leaves
    )

  # All scores reach the lowest key, none reaches the one after infinity.
  start = (lowest, infinity + 2, _total(leaves))
  bracket = _Bracket(*(jnp.full_like(ks, value) for value in start))
  likely = jnp.array([[_bits(x, dtype) for x in _LIKELY]], jnp.int32)
  bracket = _narrow(bracket, ks, likely, count(leaves, likely))
  return _search(count, leaves, ks, bracket)


def _search(
  count: Callable[[Any, jax.Array], jax.Array],
  leaves: Sequence[jax.Array],
  ks: jax.Array,
  bracket: _Bracket,
) -> _Bracket:
  """Narrows the bracket to one value, or until the count at `low` is k."""
  # More parts are fewer passes. This many, the comparisons take about as long
  # as the reading does.
  num_parts = 4 if len(ks) == 1 else 3

  def is_open(bracket):
    low, high, at_low = bracket
    return jnp.any((_distance(low, high) > 1) & (at_low != ks))

  def narrow(bracket):
    low, high, _ = bracket
    # The compiler would else compute what does not change, the keys of all
    # scores, before the loop: an array more to write, and to read.
    scores, low, high = lax.optimization_barrier((leaves, low, high))
    width = _distance(low, high)[:, None]
    parts = jnp.arange(1, num_parts, dtype=jnp.uint32)[None]
    steps = width // num_parts * parts + jnp.minimum(width % num_parts, parts)
    values = low[:, None] + steps.astype(jnp.int32)  # [N, T]
    return _narrow(bracket, ks, values, count(scores, values))

  return lax.while_loop(is_open, narrow, bracket)


def _narrow(
  bracket: _Bracket, ks: jax.Array, values: jax.Array, counts: jax.Array
) -> _Bracket:
  """Returns the bracket given how many scores are at or above values [N, T]."""
  low, high, at_low = bracket
  is_low = counts >= ks[:, None]
  return _Bracket(
    jnp.maximum(low, jnp.where(is_low, values, -_LAST).max(axis=1)),
    jnp.minimum(high, jnp.where(is_low, _LAST, values).min(axis=1)),
    jnp.minimum(at_low, jnp.where(is_low, counts, _LAST).min(axis=1)),
  )


def _count(ranks: Sequence[jax.Array], values: jax.Array) -> jax.Array:
  """Returns [N, T]: how many of ranks[n] are at or above values[n, t].

  One reduction with many results reads its operands once, and the compiler
  makes vector code of it; as many reductions would each read them again.
  """
  is_above = tuple(
    (rank >= value).astype(jnp.int32)
    for rank, row in zip(ranks, values, strict=True)
    for value in row
  )
  zeros = (np.int32(0),) * len(is_above)
  axes = tuple(range(is_above[0].ndim))

  def add(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))

  sums = lax.reduce(is_above, zeros, add, axes)
  return jnp.stack(sums).reshape(values.shape)


def _rank(leaf, offset, key, magnitude):
  """Returns 1 above the key, -index at it, the least integer below it."""
  keys = order(leaf, magnitude)
  return jnp.where(
    keys == key,
    -_indices(leaf.shape, offset),
    jnp.where(keys > key, 1, -_LAST),
  )


def _indices(shape: tuple[int, ...], offset: int) -> jax.Array:
  """Returns each entry's flat index plus `offset`, an iota for each axis.

  One iota reshaped would be a whole array on every device.
  """
  index = jnp.full(shape, offset, jnp.int32)
  for axis in range(len(shape)):
    stride = math.prod(shape[axis + 1 :])
    index += stride * lax.broadcasted_iota(jnp.int32, shape, axis)
  return index


def _distance(low: jax.Array, high: jax.Array) -> jax.Array:
  """Returns high - low, which may be more than an int32 holds."""
  return lax.bitcast_convert_type(high - low, jnp.uint32)


def _range(dtype: Any, magnitude: bool) -> tuple[int, int]:
  """Returns the lowest key, that of NaN, and the highest, of infinity."""
  infinity = _bits(np.inf, dtype)
  return (-1 if magnitude else -infinity - 1), infinity


def _bits(value: float, dtype: Any) -> int:
  return int(np.array(value, dtype).view(_BITS[jnp.dtype(dtype)]))


def _total(leaves: Sequence[jax.Array]) -> int:
  dtypes = sorted({str(leaf.dtype) for leaf in leaves})
  if len(dtypes) != 1:
    raise ValueError(
      f'expected scores of one dtype to rank together, got {dtypes}: cast them'
    )
  check_dtype(leaves[0])
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
  [low] = _find_keys([x], k[None], magnitude=True).low
  # The search ends as soon as the count is right, maybe below the score itself.
  keys = order(x, magnitude=True)
  key = jnp.min(jnp.where(keys >= low, keys, _LAST), initial=_LAST)
  is_number = (key >= 0) & (k >= 1) & (k <= x.size)
  bits = jnp.where(is_number, key, _bits(np.nan, x.dtype))
  return lax.bitcast_convert_type(bits.astype(_BITS[x.dtype]), x.dtype)
