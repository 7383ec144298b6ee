"""Drop and grow: the common part of SET and RigL."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import patterns
from sparsity import schedules
from sparsity import state as state_lib
from sparsity import wrapper

ANNEALS = ('constant', 'cosine')

# (refresh, pattern, number to grow by layer, kept masks) -> masks of the grown
Grow = Callable[[state_lib.Refresh, patterns.Pattern, Any, Any], Any]


def rewire(
  inner: optax.GradientTransformation,
  grow: Grow,
  initial_values: Callable[[jax.Array, jax.Array], jax.Array],
  *,
  steps: bool,
  density: float,
  refresh_every: int,
  stop_refresh_at: int | None,
  drop_fraction: float,
  anneal: str,
  pattern: patterns.Pattern,
  seed: int,
  **options: Any,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on random sets that are rewired at every refresh.

  A refresh drops a fraction of the smallest active units in each layer and
  grows as many among all that are not kept, including those just dropped. A
  unit that is dropped and grown at once has never left: it keeps its value and
  its optimizer state. `initial_values` is the `grow` of `sparsity.Rule`;
  `options` are further ones of `sparsity.make_counts`.
  """
  fraction = _make_fraction(drop_fraction, anneal, stop_refresh_at)
  if stop_refresh_at is not None:
    if stop_refresh_at < 1:
      raise ValueError(f'expected stop_refresh_at >= 1, got {stop_refresh_at}')
    stop_refresh_at -= anneal == 'cosine'  # nothing is dropped at the end

  def init(weights, counts, key):
    return state_lib.same_sets(
      patterns.random_masks(pattern, key, weights, counts.forward)
    )

  def refresh(now: state_lib.Refresh, counts: counts_lib.Counts):
    dropped = jax.tree.map(
      lambda k: jnp.round(fraction(now.count) * k).astype(jnp.int32),
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

  return wrapper.sparsify(
    inner,
    state_lib.Rule(init, refresh, initial_values, steps),
    counts_lib.make_counts(forward_density=density, pattern=pattern, **options),
    is_due=schedules.every(refresh_every, stop=stop_refresh_at),
    seed=seed,
  )


def check_grow_at(grow_at: float) -> None:
  """Raises ValueError unless `grow_at` is finite and not negative."""
  if not 0 <= grow_at < math.inf:
    raise ValueError(f'expected a finite grow_at >= 0, got {grow_at}')


def _make_fraction(drop_fraction, anneal, stop) -> schedules.Density:
  """Returns the schedule of the fraction to drop."""
  if anneal not in ANNEALS:
    raise ValueError(f'expected anneal out of {ANNEALS}, got {anneal!r}')
  if not 0 < drop_fraction <= 1:
    raise ValueError(f'expected drop_fraction in (0, 1], got {drop_fraction}')
  if anneal == 'constant':
    return lambda count: drop_fraction
  if stop is None:
    raise ValueError(
      "expected stop_refresh_at with anneal='cosine', got None: give the "
      'update at which the drop fraction reaches zero'
    )
  return lambda count: drop_fraction / 2 * (1 + jnp.cos(math.pi / stop * count))
