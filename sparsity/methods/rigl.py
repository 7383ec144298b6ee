"""RigL: drop the smallest weights, grow where the gradient is largest."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from sparsity import distributions
from sparsity import patterns
from sparsity import select as select_lib
from sparsity import units
from sparsity import wrapper
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
  """Returns `inner` on sets that follow the gradient.

  The sets begin at random. Each `refresh_every` updates, before
  `stop_refresh_at`, every layer drops a share of its smallest active weights,
  and grows as many where |gradient| is largest among those not kept; the number
  stays exactly what it was. Such an update is no step of the optimizer, in
  the paper neither: all parameters stay, dense ones too, the batch serves for
  the gradient alone, and schedules inside of `inner` do not count it.

  Grown weights start at zero, with a fresh optimizer's state. What was just
  dropped may be grown again at once; then it has never left. The gradient is
  read outside of the sets on those updates only.

  Differs from the paper: with Powerpropagation a weight at zero stays there,
  for the gradient that reaches phi has a factor |phi|^(alpha - 1). `grow_at`
  makes grown weights start at phi = +-grow_at, with the sign that lets the loss
  fall, near zero in theta: 0.1 for theta = 0.01 at alpha = 2.

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

  Args:
    inner: any optimizer; `powerprop.powerprop(...)` for Powerpropagation too.
    density: share of the selected entries that is active, in (0, 1].
    refresh_every: updates from one change of the sets to the next.
    stop_refresh_at: T_end, the update at which `anneal` reaches zero, and from
      which the sets stay.
    drop_fraction: share of the active entries that is dropped, at the start.
    anneal: 'cosine' as in the paper, or 'constant' (changes sets at
      `stop_refresh_at` too).
    grow_at: the |parameter| at which grown entries start.
    distribution: 'uniform', 'erdos_renyi' or 'erdos_renyi_kernel'.
    dense: regular expressions of layers that stay dense, counted in `density`.
    pattern: what is dropped and grown together; see `sparsity.patterns`.
    seed: of the first sets.
    select: which parameters may be sparse.

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

  def values(params, gradients):
    del params
    return jnp.where(gradients > 0, -grow_at, grow_at)

  share = rewiring.make_share(drop_fraction, anneal, stop_refresh_at)
  return wrapper.sparsify(
    inner,
    rewiring.make_rule(pattern, share, grow, values, steps=False),
    units.make_counts(
      pattern,
      density=density,
      distribution=distribution,
      dense=dense,
      select=select,
    ),
    is_due=rewiring.make_event(refresh_every, anneal, stop_refresh_at),
    seed=seed,
  )
