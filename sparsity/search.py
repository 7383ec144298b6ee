"""Interpolation search for the values at which counts fall below k.

Each pass counts the ranks at or above a few trial values and keeps the interval
that holds the answer; the counts at its ends tell where to try next. Random
32-bit numbers take about ten passes, where bisection would take thirty.

Shapes:
  G: groups of scores ranked together, all searched in one loop.
  N: searches in a group. T: trial values for each in one pass.
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

# rank(leaf, offset, origin): integers to compare. `offset` is the first flat
# index of the leaf, one or several arrays of one shape; `origin` is [] or None.
Rank = Callable[[Any, jax.Array, jax.Array | None], jax.Array]


class Bracket(NamedTuple):
  """The interval [low, high) of the largest value with k scores above it."""

  low: jax.Array  # [G, N], int32, or int64 if a rank is
  high: jax.Array  # [G, N], likewise
  # Number of scores above `low`; hides a method of tuples.
  count: jax.Array  # type: ignore[assignment]  # [G, N], int32
  above: jax.Array  # [G, N], int32: number of scores above `high`


def search(
  rank: Rank,
  groups: Sequence[Sequence[Any]],
  ks: jax.Array,
  bracket: Bracket,
  *,
  first: jax.Array | None = None,
  origins: jax.Array | None = None,
  is_rare: bool = False,
) -> tuple[Bracket, list[jax.Array]]:
  """Narrows each bracket until the count at `low` is k, or to one value.

  A pass that narrows it too little is followed by one with even steps, which
  bounds the number of passes. Groups whose brackets are narrow are not read.

  Args:
    first: [G, N, T], values of the first pass, of searches that share their
      ranks: each is narrowed by the counts of all.
    origins: [G, N], of the ranks of each search.
    is_rare: groups seldom need a pass. Groups of one shape then share their
      program, which takes less time to compile and copies what it reads.

  Returns:
    The brackets, and their `low` by group, each [N].
  """
  num_parts = _num_parts(ks.shape[1])
  row = (len(groups), ks.shape[1] if first is None else 1, -1)

  def is_open(bracket):
    is_wide = _distance(bracket.low, bracket.high) > 1
    return is_wide & (bracket.count != ks)

  def propose(bracket, is_likely):
    width = _distance(bracket.low, bracket.high)
    steps = jnp.where(
      is_likely[..., None],
      _likely_steps(bracket, ks, num_parts),
      _equal_steps(width, num_parts),
    )
    return bracket.low[..., None] + steps.astype(bracket.low.dtype)

  def make_pass(carry):
    (bracket, _), values, is_likely, _ = carry
    is_searched = is_open(bracket)
    is_read = jnp.any(is_searched, axis=1)
    counts = count(rank, groups, values, is_read, origins, is_rare)
    new = narrow(bracket, ks, values.reshape(row), counts.reshape(row))
    width, now = (_distance(x.low, x.high) for x in (bracket, new))
    is_likely = ~is_likely | (now <= width // num_parts + 1)
    new = jax.tree.map(
      lambda x, old: jnp.where(is_searched, x, old), new, bracket
    )
    # Slices of a carried array, which XLA fuses with nothing: what reads them
    # is the same program for all groups of one shape, and is compiled once.
    found = new, list(bracket.low)
    return found, propose(new, is_likely), is_likely, jnp.any(is_read)

  is_likely = jnp.ones(ks.shape, bool)
  values = propose(bracket, is_likely) if first is None else first
  found = bracket, list(bracket.low)
  start = found, values, is_likely, jnp.ones([], bool)
  return lax.while_loop(lambda carry: carry[-1], make_pass, start)[0]


def num_trials(num_searches: int) -> int:
  """Returns T: the values tried by each search of a group in one pass."""
  return _num_parts(num_searches) - 1


def _num_parts(num_searches: int) -> int:
  # More parts make fewer passes with more comparisons; measured.
  return 4 if num_searches == 1 else 3


def narrow(
  bracket: Bracket, ks: jax.Array, values: jax.Array, counts: jax.Array
) -> Bracket:
  """Returns the bracket narrowed by the counts of values [G, N or 1, T]."""
  is_low = counts >= ks[..., None]
  ends = np.iinfo(values.dtype)
  return Bracket(
    jnp.maximum(bracket.low, jnp.where(is_low, values, ends.min).max(-1)),
    jnp.minimum(bracket.high, jnp.where(is_low, ends.max, values).min(-1)),
    jnp.minimum(bracket.count, jnp.where(is_low, counts, LAST).min(-1)),
    jnp.maximum(bracket.above, jnp.where(is_low, 0, counts).max(-1)),
  )


def count(
  rank: Rank,
  groups: Sequence[Sequence[Any]],
  values: jax.Array,
  is_read: jax.Array,
  origins: jax.Array | None = None,
  is_rare: bool = False,
) -> jax.Array:
  """Returns [G, N, T]: the number of ranks that are > values[g, n, t].

  Groups where `is_read`, [G], is False count zero; `is_rare` as in `search`.
  """
  counts = jnp.zeros(values.shape, jnp.int32)
  end = np.int32(len(groups))
  each = [[g] for g in range(len(groups))]
  for members in _alike(groups) if is_rare else each:
    indices = np.array(members, np.int32)
    queue = jnp.where(is_read[indices], indices, end)
    choices = [lambda g=g: groups[g] for g in members]

    def read(carry, indices=indices, queue=queue, choices=choices):
      g, counts = carry
      leaves = lax.switch(jnp.sum(indices < g), choices)
      row = count_group(rank, leaves, *_rows((values, origins), g))
      counts = lax.dynamic_update_index_in_dim(counts, row, g, 0)
      return jnp.min(jnp.where(queue > g, queue, end)), counts

    # A loop, often of no or one round, as on a CPU a cond runs on one core. Its
    # index is no constant, so that groups of one shape share their program.
    carry = jnp.min(queue), counts
    counts = lax.while_loop(lambda carry: carry[0] < end, read, carry)[1]
  return counts


def _alike(groups: Sequence[Sequence[Any]]) -> list[list[int]]:
  """Returns the indices of groups with the same shapes and dtypes."""
  found: dict[Any, list[int]] = {}
  for g, group in enumerate(groups):
    leaves, structure = jax.tree.flatten(group)
    kind = (structure, *map(jax.typeof, leaves))
    found.setdefault(kind, []).append(g)
  return list(found.values())


def _rows(tree: Any, g: jax.Array) -> Any:
  return jax.tree.map(
    lambda x: x.at[g].get(
      mode='promise_in_bounds', wrap_negative_indices=False
    ),
    tree,
  )


def count_group(
  rank: Rank,
  leaves: Sequence[Any],
  values: jax.Array,
  origins: jax.Array | None,
) -> jax.Array:
  """Returns the counts [N, T] of one group."""

  def add(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))

  # Keeps XLA from hoisting the loop-invariant keys and indices out of the loop,
  # which would materialize arrays as large as the scores.
  starts = [jnp.int32(offset) for offset in offsets(leaves)]
  leaves, starts, values = lax.optimization_barrier((leaves, starts, values))

  # One reduction with many results reads its operands only once.
  counts = zeros = (np.int32(0),) * values.size
  for leaf, offset in zip(leaves, starts, strict=True):
    is_above = []
    for n, row in enumerate(values):
      ranks = rank(leaf, offset, None if origins is None else origins[n])
      row = row.astype(ranks.dtype)
      is_above += [(ranks > value).astype(jnp.int32) for value in row]
    partial = lax.reduce(
      tuple(is_above), zeros, add, _inner_axes(is_above[0].shape)
    )
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
  """Returns [G, N, T] evenly spaced steps from `low`."""
  parts = jnp.arange(1, num_parts, dtype=width.dtype)[None, None]
  width = width[..., None]
  return width // num_parts * parts + jnp.minimum(width % num_parts, parts)


def _likely_steps(bracket, ks, num_parts) -> jax.Array:
  """Returns [G, N, T] steps from `low` around the value of likely count k.

  Interpolates the logarithm of the count, which is linear for evenly spread
  scores and nearly so in the tails of a distribution. The steps span two
  standard deviations of the count.
  """
  width = _distance(bracket.low, bracket.high)[..., None]
  at_low, above, k = (
    x.astype(jnp.float32)[..., None] for x in (bracket.count, bracket.above, ks)
  )
  k = jnp.clip(k + 0.5, above, at_low + 1)
  deviation = jnp.sqrt((at_low + 1 - k) * (k - above) / (at_low + 1 - above))
  sign = jnp.linspace(1, -1, num_parts - 1, dtype=jnp.float32)[None, None]
  expected = jnp.clip(k + sign * deviation, above, at_low + 1)
  share = jnp.log((at_low + 1.5) / (expected + 0.5)) / jnp.log(
    (at_low + 1.5) / (above + 0.5)
  )
  share = jnp.minimum(share, np.float32(0.999))
  # A different offset for each keeps the steps distinct.
  steps = (share * width.astype(jnp.float32)).astype(width.dtype)
  steps += jnp.arange(num_parts - 1, dtype=width.dtype)[None, None]
  return jnp.clip(steps, 1, jnp.maximum(width, 2) - 1)


def _distance(low: jax.Array, high: jax.Array) -> jax.Array:
  """Returns high - low unsigned, since it may exceed the signed range."""
  unsigned = np.dtype(f'uint{8 * low.dtype.itemsize}')
  return lax.bitcast_convert_type(high - low, unsigned)
