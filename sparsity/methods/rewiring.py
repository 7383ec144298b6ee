"""Drop and grow: what SET and RigL have in common."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsity import counts as counts_lib
from sparsity import patterns
from sparsity import schedules
from sparsity import state as state_lib

ANNEALS = ('constant', 'cosine')

# (rewired now, pattern, how many to choose, what is kept) -> masks of the new
Grow = Callable[[state_lib.Refresh, patterns.Pattern, Any, Any], Any]


def make_rule(
  pattern: patterns.Pattern,
  share: schedules.Density,
  grow: Grow,
  values: Callable[[jax.Array, jax.Array], jax.Array],
  *,
  steps: bool,
) -> state_lib.Rule:
  """Returns the rule: drop a share of the smallest units, grow as many others.

  Grown are units among all that are not kept, those just dropped included. One
  that is dropped and grown at once has never left: it keeps its value and its
  optimizer's state.

  Args:
    pattern: what is dropped and grown together.
    share: how much is dropped, by the number of updates made.
    grow: which units are grown.
    values: where entries that were not active start, as in `sparsity.Rule`.
    steps: as in `sparsity.Rule`.
  """

  def init(weights, counts, key):
    drawn = patterns.random_masks(pattern, key, weights, counts.forward)
    return state_lib.ActiveSets(drawn, jax.tree.map(jnp.copy, drawn))

  def refresh(now: state_lib.Refresh, counts: counts_lib.Counts):
    dropped = jax.tree.map(
      lambda k: jnp.round(share(now.count) * k).astype(jnp.int32),
      counts.forward,
    )
    kept = patterns.topk_masks(
      pattern,
      {
        path: jnp.where(now.sets.forward[path], weights, jnp.nan)
        for path, weights in now.weights.items()
      },
      jax.tree.map(jnp.subtract, counts.forward, dropped),
    )
    grown = grow(now, pattern, dropped, kept)
    active = jax.tree.map(jnp.logical_or, kept, grown)
    return state_lib.ActiveSets(active, active)

  return state_lib.Rule(init, refresh, values, steps)


def make_share(
  drop_fraction: float, anneal: str, stop: int | None
) -> schedules.Density:
  """Returns the share that is dropped, by the number of updates made.

  Raises:
    ValueError: If `drop_fraction` is outside (0, 1], `anneal` is unknown, or
      'cosine' without `stop`.
  """
  if anneal not in ANNEALS:
    raise ValueError(f'expected anneal out of {ANNEALS}, got {anneal!r}')
  if not 0 < drop_fraction <= 1:
    raise ValueError(f'expected drop_fraction in (0, 1], got {drop_fraction}')
  if anneal == 'constant':
    return lambda count: drop_fraction
  if stop is None:
    raise ValueError(
      "expected stop_refresh_at with anneal='cosine', got None: it is where "
      'the drop fraction reaches zero'
    )
  return lambda count: drop_fraction / 2 * (1 + jnp.cos(math.pi / stop * count))


def make_event(
  refresh_every: int, anneal: str, stop: int | None
) -> schedules.Event:
  """Returns when sets change: until `stop`, if anything is dropped there.

  Raises:
    ValueError: If `refresh_every` or `stop` is less than 1.
  """
  if stop is not None:
    if stop < 1:
      raise ValueError(f'expected stop_refresh_at >= 1, got {stop}')
    stop -= anneal == 'cosine'
  return schedules.every(refresh_every, stop=stop)


def check_grow_at(grow_at: float) -> None:
  """Raises unless `grow_at` is a magnitude.

  Raises:
    ValueError: If so.
  """
  if not 0 <= grow_at < math.inf:
    raise ValueError(f'expected a finite grow_at >= 0, got {grow_at}')
