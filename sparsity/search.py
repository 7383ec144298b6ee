"""The search for where a count falls below k, by counting pass after pass.

Each pass counts how many ranks are at or above a few values, and keeps the
interval that must hold the answer. The counts at its ends tell where to try
next, as the first letter of a word does in a dictionary: about ten passes over
random numbers of 32 bits, where halves would take thirty.

Shapes:
  N: number of searches done together. T: values tried for each in one pass.
"""

from collections.abc import Callable
from collections.abc import Sequence
import itertools
import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

LAST = np.iinfo(np.int32).max

# On a CPU the reduction to one number runs on one core. Arrays of so many
# entries are first reduced to counts of parts, of at least so many, by all.
_LEAST_SPLIT = 2**20
_LEAST_PART = 256

# rank(leaf, offset, n): the integers to compare in the n-th search, of a leaf
# whose flat index begins at `offset`.
Rank = Callable[[jax.Array, jax.Array, int], jax.Array]


class Bracket(NamedTuple):
  """The greatest value with at least k scores is in [low, high)."""

  low: jax.Array  # [N], int32
  high: jax.Array  # [N], int32
  count: jax.Array  # [N], int32: how many scores are at or above `low`
  above: jax.Array  # [N], int32: how many are at or above `high`


def search(
  rank: Rank,
  leaves: Sequence[jax.Array],
  ks: jax.Array,
  bracket: Bracket,
  excess: int | jax.Array = 0,
) -> Bracket:
  """Narrows the bracket until the count at `low` is k, or to one value.

  Where counts between the ends of a bracket do not grow evenly, its parts in
  the next pass are equal. So no scores need more than twice the passes of a
  search by equal parts alone.

  Args:
    rank: Gives the integers to compare.
    leaves: The arrays whose entries are counted.
    ks: [N].
    bracket: Where to search.
    excess: Scores that each count has too many.
  """
  # More parts would be fewer passes, but of more comparisons; measured.
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
    values = bracket.low[:, None] + steps.astype(jnp.int32)
    counts = count(rank, leaves, values) - excess
    bracket = narrow(bracket, ks, values, counts)
    now = _distance(bracket.low, bracket.high)
    return bracket, ~is_even | (now <= width // num_parts + 1)

  start = bracket, jnp.ones(ks.shape, bool)
  return lax.while_loop(is_open, make_pass, start)[0]


def narrow(
  bracket: Bracket, ks: jax.Array, values: jax.Array, counts: jax.Array
) -> Bracket:
  """Returns the bracket, knowing the counts of values [N, T] (or [1, T])."""
  is_low = counts >= ks[:, None]
  return Bracket(
    jnp.maximum(bracket.low, jnp.where(is_low, values, -LAST).max(1)),
    jnp.minimum(bracket.high, jnp.where(is_low, LAST, values).min(1)),
    jnp.minimum(bracket.count, jnp.where(is_low, counts, LAST).min(1)),
    jnp.maximum(bracket.above, jnp.where(is_low, 0, counts).max(1)),
  )


def count(
  rank: Rank, leaves: Sequence[jax.Array], values: jax.Array
) -> jax.Array:
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
    partial = lax.reduce(is_above, zeros, add, _inner_axes(leaf.shape))
    axes = tuple(range(partial[0].ndim))
    counts = add(counts, lax.reduce(partial, zeros, add, axes))
  return jnp.stack(counts).reshape(values.shape)


def offsets(leaves: Sequence[jax.Array]) -> list[int]:
  """Returns for each leaf the number of entries in the leaves before it."""
  return [0, *itertools.accumulate(leaf.size for leaf in leaves[:-1])]


def _inner_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the axes to reduce first: all, or of a large array the last few."""
  axes = tuple(range(len(shape)))
  if math.prod(shape) < _LEAST_SPLIT:
    return axes
  num_inner = 1
  while math.prod(shape[-num_inner:]) < _LEAST_PART:
    num_inner += 1
  return axes[-num_inner:]


def _equal_steps(width, num_parts) -> jax.Array:
  """Returns [N, T] steps from `low` that part brackets evenly."""
  parts = jnp.arange(1, num_parts, dtype=jnp.uint32)[None]
  width = width[:, None]
  return width // num_parts * parts + jnp.minimum(width % num_parts, parts)


def _likely_steps(bracket, ks, num_parts) -> jax.Array:
  """Returns [N, T] steps from `low` around where k is likely to be the count.

  The logarithm of the count is taken to be linear in between: so it is where
  the scores are spread evenly, and nearly so in the tails of a distribution.
  From the first to the last step are two standard deviations of the count.
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
  # Plus a different number each, so that no two steps are the same.
  steps = (share * width.astype(jnp.float32)).astype(jnp.uint32)
  steps += jnp.arange(num_parts - 1, dtype=jnp.uint32)[None]
  return jnp.clip(steps, 1, jnp.maximum(width, 2) - 1)


def _distance(low: jax.Array, high: jax.Array) -> jax.Array:
  """Returns high - low, which may be more than an int32 holds."""
  return lax.bitcast_convert_type(high - low, jnp.uint32)
