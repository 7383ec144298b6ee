"""RigL: drop the smallest weights, grow where the gradient is largest."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from sparsity import distributions
from sparsity import patterns
from sparsity import select as select_lib
from sparsity.methods import rewiring


def rigl(
  inner: optax.GradientTransformation,
  *,
  density: float,
  refresh_every: int,
  stop_refresh_at: int,
  drop_fraction: float = 0.3,
  anneal: str = 'cosine',
  grow_at: float = 0.0,
  distribution: str | distributions.Distribution = 'uniform',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
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
    >>> gradients = {'linear': {'w': jnp.arange(16.0).reshape(4, 4)}}
    >>> state = tx.init(params)
    >>> updates, state = tx.update(gradients, state, params)
    >>> params = optax.apply_updates(params, updates)
    >>> float(params['linear']['w'][3, 3]), int(
    ...   state.sets.forward['linear']['w'].sum())
    (0.0, 4)

  Arguments not listed are those of `sparsity.magnitude`.

  Args:
    refresh_every: updates between refreshes of the sets.
    stop_refresh_at: T_end, the update at which `anneal` reaches zero; the sets
      stay from then on.
    drop_fraction: fraction of the active entries to drop, initially.
    anneal: 'cosine' as in the paper, or 'constant' (refreshes at
      `stop_refresh_at` too).
    grow_at: initial |parameter| of grown entries.
    pattern: entries dropped and grown together; see `sparsity.patterns`.
    seed: seed of the initial sets.

  Raises:
    ValueError: If `density` or `drop_fraction` is outside (0, 1], an interval
      is less than 1, or an option is unknown.

  Reference:
    Evci et al., 2020, "Rigging the lottery: making all tickets winners".
    https://arxiv.org/abs/1911.11134
  """
  rewiring.check_grow_at(grow_at)

  def grow(now, pattern, num_grown, kept):
    return patterns.topk_masks(pattern, now.gradients, num_grown, given=kept)

  def initial_values(params, gradients):
    del params
    return jnp.where(gradients > 0, -grow_at, grow_at)

  return rewiring.rewire(
    inner,
    grow,
    initial_values,
    steps=False,
    density=density,
    refresh_every=refresh_every,
    stop_refresh_at=stop_refresh_at,
    drop_fraction=drop_fraction,
    anneal=anneal,
    distribution=distribution,
    dense=dense,
    pattern=pattern,
    seed=seed,
    select=select,
  )
