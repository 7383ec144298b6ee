"""Interpolation search for the value at which a count falls below k.

Each pass counts the ranks at or above a few trial values and keeps the interval
that holds the answer; the counts at its ends tell where to try next. Random
32-bit numbers take about ten passes, where bisection would take thirty.

Shapes:
  N: searches done together. T: trial values for each in one pass.
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

LAST = np.iinfo(np.int32).max

# On a CPU a full reduction runs on one core. Arrays of at least `_LEAST_SPLIT`
# entries are first reduced in parallel, in parts of at least `_LEAST_PART`.
_LEAST_SPLIT = 2**20
_LEAST_PART = 256

# rank(leaf, offset, n): integers to compare in the n-th search. `offset` is the
# first flat index of the leaf, one or several arrays of one shape.
Rank = Callable[[Any, jax.Array, int], jax.Array]


class Bracket(NamedTuple):
  """The interval [low, high) of the largest value with at least k scores."""

  low: jax.Array  # [N], int32, or int64 like the ranks
  high: jax.Array  # [N], likewise
  # Number of scores at or above `low`; hides a method of tuples.
  count: jax.Array  # type: ignore[assignment]  # [N], int32
  above: jax.Array  # [N], int32: number of scores at or above `high`


def search(
  rank: Rank,
  leaves: Sequence[Any],
  ks: jax.Array,
  bracket: Bracket,
  excess: int | jax.Array = 0,
) -> Bracket:
  """Narrows the bracket until the count at `low` is k, or to one value.

  A pass that narrows it too little is followed by one with even steps, which
  bounds the number of passes. `excess` is subtracted from every count.
  """
  # More parts make fewer passes with more comparisons; measured.
  num_parts = 4 if len(ks) == 1 else 3

  def is_open(carry):
    bracket, _ = carry
    is_wide = _distance(bracket.low, bracket.high) > 1
    return jnp.any(is_wide & (bracket.count != ks))

  def make_pass(carry):
    bracket, is_even = carry
    width = _distance(bracket.low, bracket.high)
    steps = jnp.where(
      is_even[:, None],
      _likely_steps(bracket, ks, num_parts),
      _equal_steps(width, num_parts),
    )
    values = bracket.low[:, None] + steps.astype(bracket.low.dtype)
    counts = count(rank, leaves, values) - excess
    bracket = narrow(bracket, ks, values, counts)
    now = _distance(bracket.low, bracket.high)
    return bracket, ~is_even | (now <= width // num_parts + 1)

  start = bracket, jnp.ones(ks.shape, bool)
  return lax.while_loop(is_open, make_pass, start)[0]


def narrow(
  bracket: Bracket, ks: jax.Array, values: jax.Array, counts: jax.Array
) -> Bracket:
  """Returns the bracket narrowed by the counts of values [N, T] (or [1, T])."""
  is_low = counts >= ks[:, None]
  last = np.iinfo(values.dtype).max
  return Bracket(
    jnp.maximum(bracket.low, jnp.where(is_low, values, -last).max(1)),
    jnp.minimum(bracket.high, jnp.where(is_low, last, values).min(1)),
    jnp.minimum(bracket.count, jnp.where(is_low, counts, LAST).min(1)),
    jnp.maximum(bracket.above, jnp.where(is_low, 0, counts).max(1)),
  )


def count(rank: Rank, leaves: Sequence[Any], values: jax.Array) -> jax.Array:
  """Returns [N, T]: the number of n-th ranks that are >= values[n, t]."""

  def add(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))

  # Keeps XLA from hoisting the loop-invariant keys and indices out of the loop,
  # which would materialize arrays as large as the scores.
  starts = [jnp.int32(offset) for offset in offsets(leaves)]
  leaves, starts, values = lax.optimization_barrier((leaves, starts, values))

  # One reduction with many results reads its operands only once.
  counts = zeros = (np.int32(0),) * values.size
  for leaf, offset in zip(leaves, starts, strict=True):
    is_above = tuple(
      (rank(leaf, offset, n) >= value).astype(jnp.int32)
      for n, row in enumerate(values)
      for value in row
    )
    partial = lax.reduce(is_above, zeros, add, _inner_axes(is_above[0].shape))
    axes = tuple(range(partial[0].ndim))
    counts = add(counts, lax.reduce(partial, zeros, add, axes))
  return jnp.stack(counts).reshape(values.shape)


def offsets(leaves: Sequence[Any]) -> list[int]:
  """Returns for each leaf the total size of the leaves before it."""
  sizes = (jax.tree.leaves(leaf)[0].size for leaf in leaves[:-1])
  return [0, *itertools.accumulate(sizes)]


def _inner_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the axes to reduce first: all, or the last few of a large array."""
  axes = tuple(range(len(shape)))
  if math.prod(shape) < _LEAST_SPLIT:
    return axes
  num_inner = 1
  while math.prod(shape[-num_inner:]) < _LEAST_PART:
    num_inner += 1
  return axes[-num_inner:]


def _equal_steps(width, num_parts) -> jax.Array:
  """Returns [N, T] evenly spaced steps from `low`."""
  parts = jnp.arange(1, num_parts, dtype=width.dtype)[None]
  width = width[:, None]
  return width // num_parts * parts + jnp.minimum(width % num_parts, parts)


def _likely_steps(bracket, ks, num_parts) -> jax.Array:
  """Returns [N, T] steps from `low` around the value whose count is likely k.

  Interpolates the logarithm of the count, which is linear for evenly spread
  scores and nearly so in the tails of a distribution. The steps span two
  standard deviations of the count.
  """
  width = _distance(bracket.low, bracket.high)[:, None]
  at_low, above, k = (
    x.astype(jnp.float32)[:, None] for x in (bracket.count, bracket.above, ks)
  )
  k = jnp.clip(k + 0.5, above, at_low + 1)
  deviation = jnp.sqrt((at_low + 1 - k) * (k - above) / (at_low + 1 - above))
  sign = jnp.linspace(1, -1, num_parts - 1, dtype=jnp.float32)[None]
  expected = jnp.clip(k + sign * deviation, above, at_low + 1)
  share = jnp.log((at_low + 1.5) / (expected + 0.5)) / jnp.log(
    (at_low + 1.5) / (above + 0.5)
  )
  share = jnp.minimum(share, np.float32(0.999))
  # A different offset for each keeps the steps distinct.
  steps = (share * width.astype(jnp.float32)).astype(width.dtype)
  steps += jnp.arange(num_parts - 1, dtype=width.dtype)[None]
  return jnp.clip(steps, 1, jnp.maximum(width, 2) - 1)


def _distance(low: jax.Array, high: jax.Array) -> jax.Array:
  """Returns high - low unsigned, since it may exceed the signed range."""
  unsigned = np.dtype(f'uint{8 * low.dtype.itemsize}')
  return lax.bitcast_convert_type(high - low, unsigned)
