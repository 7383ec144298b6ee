"""SET and RigL: drop the smallest weights, grow others."""

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import distributions
from sparsity import patterns
from sparsity import schedules
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import wrapper

ANNEALS = ('constant', 'cosine')

# (refresh, number to grow by layer, kept masks, layout) -> masks of the grown
Grow = Callable[[state_lib.Refresh, Any, Any, Any], Any]


def rigl(
  inner: optax.GradientTransformation,
  *,
  density: float,
  refresh_every: int,
  stop_refresh_at: int,
  drop_fraction: float = 0.3,
  anneal: str = 'cosine',
  grow_at: float = 0.0,
  warmup_entering: int | None = None,
  distribution: str | distributions.Distribution = 'uniform',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  layout: str | None = None,
  seed: int = 0,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on active sets that follow the gradient.

  The initial sets are random. Every `refresh_every` updates, before
  `stop_refresh_at`, each layer drops a fraction of its smallest active weights
  and grows as many where |gradient| is largest among the rest; the count is
  unchanged. As in the paper such an update is not a step of the optimizer: all
  parameters stay, dense ones included, and schedules inside `inner` do not
  count it. Only these updates read the gradient outside the sets.

  Grown weights start at zero with fresh optimizer state. A weight that is
  dropped and grown at once has never left.

  Differs from the paper: with Powerpropagation a weight at zero stays there,
  because the gradient of phi has a factor |phi|^(alpha - 1). With `grow_at`,
  grown weights start at phi = +-grow_at, with the sign that decreases the loss
  and close to zero in theta: 0.1 gives |theta| = 0.01 at alpha = 2.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = rigl(
    ...   optax.sgd(0.1), density=0.25, refresh_every=1, stop_refresh_at=9)
    >>> params = {'linear': {'w': jnp.ones((4, 4))}}
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> int(state.sets.forward['linear']['w'].sum())
    4

  Arguments not listed are those of `sparsity.magnitude`.

  Args:
    stop_refresh_at: T_end, the update at which `anneal` reaches zero; the sets
      stay from then on.
    drop_fraction: fraction of the active entries to drop, initially.
    anneal: 'cosine' as in the paper, or 'constant' (refreshes at
      `stop_refresh_at` too).
    grow_at: initial |parameter| of grown entries.
    warmup_entering: as in `sparsity.sparsify`.

  Raises:
    ValueError: If `density` or `drop_fraction` is outside (0, 1], an interval
      is less than 1, or an option is unknown.

  Reference:
    Evci et al., 2020, "Rigging the lottery: making all tickets winners".
    https://arxiv.org/abs/1911.11134
  """

  return _rewire(
    inner,
    lambda now, num_grown, kept, layout: patterns.topk_masks(
      pattern, now.gradients, num_grown, given=kept, layout=layout
    ),
    lambda params, gradients: gradients > 0,
    steps=False,
    grow_at=grow_at,
    warmup_entering=warmup_entering,
    density=density,
    refresh_every=refresh_every,
    stop_refresh_at=stop_refresh_at,
    drop_fraction=drop_fraction,
    anneal=anneal,
    distribution=distribution,
    dense=dense,
    pattern=pattern,
    layout=layout,
    seed=seed,
    select=select,
  )


def set_(
  inner: optax.GradientTransformation,
  *,
  density: float,
  refresh_every: int,
  stop_refresh_at: int | None = None,
  drop_fraction: float = 0.3,
  anneal: str = 'constant',
  grow_at: float = 0.0,
  warmup_entering: int | None = None,
  distribution: str | distributions.Distribution = 'uniform',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  layout: str | None = None,
  seed: int = 0,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on active sets that are rewired at random.

  The initial sets are random. After every `refresh_every` updates (an epoch in
  the paper) each layer drops a fraction of its smallest active weights and
  grows as many at random among the rest; the count is unchanged. The optimizer
  steps on every update, and the weights after the step are ranked. Grown
  weights have fresh optimizer state.

  Differs from the paper: the smallest weights are those of least magnitude,
  rather than the smallest positive and the largest negative ones; and grown
  weights start at zero, as in the comparisons of Evci et al., 2020, or at
  +-grow_at, with the sign of their old value, random at initialization. With
  Powerpropagation a weight at zero stays there: give `grow_at`, see
  `sparsity.rigl`.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = set_(optax.sgd(0.1), density=0.25, refresh_every=1)
    >>> params = {'linear': {'w': jnp.ones((4, 4))}}
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> int(state.sets.forward['linear']['w'].sum())
    4

  Arguments not listed are those of `sparsity.rigl`.

  Args:
    stop_refresh_at: last update that may change the sets; None: no end.
    anneal: 'constant' as in the paper, or 'cosine' as in `sparsity.rigl`: the
      fraction reaches zero at `stop_refresh_at`.
    distribution: 'erdos_renyi' in the paper.

  Raises:
    ValueError: As in `sparsity.rigl`.

  Reference:
    Mocanu et al., 2018, "Scalable training of artificial neural networks with
    adaptive sparse connectivity". https://arxiv.org/abs/1707.04780
  """

  return _rewire(
    inner,
    lambda now, num_grown, kept, layout: patterns.random_masks(
      pattern, now.key, kept, num_grown, kept, layout
    ),
    lambda params, gradients: params < 0,
    steps=True,
    grow_at=grow_at,
    warmup_entering=warmup_entering,
    density=density,
    refresh_every=refresh_every,
    stop_refresh_at=stop_refresh_at,
    drop_fraction=drop_fraction,
    anneal=anneal,
    distribution=distribution,
    dense=dense,
    pattern=pattern,
    layout=layout,
    seed=seed,
    select=select,
  )


def _rewire(
  inner: optax.GradientTransformation,
  grow: Grow,
  starts_negative: Callable[[jax.Array, jax.Array], jax.Array],
  *,
  steps: bool,
  grow_at: float,
  warmup_entering: int | None,
  density: float,
  refresh_every: int,
  stop_refresh_at: int | None,
  drop_fraction: float,
  anneal: str,
  pattern: patterns.Pattern,
  seed: int,
  **options: Any,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on random sets; refreshes drop units and grow as many."""
  initial_values = make_grow(grow_at, starts_negative)
  fraction = _make_fraction(drop_fraction, anneal, stop_refresh_at)
  if stop_refresh_at is not None:
    if stop_refresh_at < 1:
      raise ValueError(f'expected stop_refresh_at >= 1, got {stop_refresh_at}')
    stop_refresh_at -= anneal == 'cosine'  # nothing is dropped at the end

  def init(weights, counts, key):
    return state_lib.same_sets(
      patterns.random_masks(
        pattern, key, weights, counts.forward, layout=counts.layout
      )
    )

  def refresh(now: state_lib.Refresh, counts: counts_lib.Counts):
    dropped = jax.tree.map(
      lambda k: jnp.round(fraction(now.count) * k).astype(jnp.int32),
      counts.forward,
    )
    kept = patterns.topk_masks(
      pattern,
      now.weights,
      jax.tree.map(jnp.subtract, counts.forward, dropped),
      given=jax.tree.map(jnp.logical_not, now.sets.forward),
      layout=counts.layout,
    )
    grown = grow(now, dropped, kept, counts.layout)
    active = jax.tree.map(jnp.logical_or, kept, grown)
    return state_lib.ActiveSets(active, active)

  return wrapper.sparsify(
    inner,
    state_lib.Rule(init, refresh, initial_values, steps),
    counts_lib.make_counts(forward_density=density, pattern=pattern, **options),
    is_due=schedules.every(refresh_every, stop=stop_refresh_at),
    warmup_entering=warmup_entering,
    seed=seed,
  )


def make_grow(
  grow_at: float, starts_negative: Callable[[jax.Array, jax.Array], jax.Array]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Returns the values +-grow_at of entries that enter, as `Rule.grow`.

  `starts_negative` maps parameters and gradients to the sign.

  Raises:
    ValueError: If `grow_at` is negative or not finite.
  """
  if not 0 <= grow_at < math.inf:
    raise ValueError(f'expected a finite grow_at >= 0, got {grow_at}')
  if not grow_at:  # without a look at the gradients
    return lambda params, gradients: jnp.zeros_like(params)
  return lambda params, gradients: jnp.where(
    starts_negative(params, gradients), -grow_at, grow_at
  )


def _make_fraction(drop_fraction, anneal, stop) -> schedules.Density:
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

  def cosine(count):
    angle = math.pi / stop * jnp.asarray(count, jnp.float32)
    return drop_fraction / 2 * (1 + jnp.cos(angle))

  return cosine
