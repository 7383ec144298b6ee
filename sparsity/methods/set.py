"""SET: drop the smallest weights, grow others at random."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from sparsity import distributions
from sparsity import patterns
from sparsity import select as select_lib
from sparsity import units
from sparsity import wrapper
from sparsity.methods import rewiring


def set_(
  inner: optax.GradientTransformation,
  *,
  density: float,
  refresh_every: int,
  stop_refresh_at: int | None = None,
  drop_fraction: float = 0.3,
  anneal: str = 'constant',
  grow_at: float = 0.0,
  distribution: str | distributions.Distribution = 'uniform',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  seed: int = 0,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on sets that are rewired at random.

  The sets begin at random. After each `refresh_every` updates (an epoch in the
  paper) every layer drops a share of its smallest active weights, and grows as
  many at random among all that are not kept; the number stays exactly what it
  was. The optimizer acts on every update, and the weights after it are ranked.
  Grown weights have a fresh optimizer's state.

  Differs from the paper: the smallest are those of least magnitude, not the
  smallest positive and the largest negative ones by themselves; and grown
  weights start at zero, as in the comparisons of Evci et al., 2020, or at
  +-grow_at, with the sign that they had, random at initialization. With
  Powerpropagation a weight at zero stays there: give `grow_at`, see
  `sparsity.rigl`.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = set_(optax.sgd(0.1), density=0.25, refresh_every=1)
    >>> params = {'linear': {'w': jnp.ones((4, 4))}}
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> int(state.sets.forward['linear']['w'].sum())
    4

  Args:
    inner: any optimizer; `powerprop.powerprop(...)` for Powerpropagation too.
    density: share of the selected entries that is active, in (0, 1].
    refresh_every: updates from one change of the sets to the next.
    stop_refresh_at: the last update at which the sets may change; None: never.
    drop_fraction: share of the active entries that is dropped, at the start.
    anneal: 'constant' as in the paper, or 'cosine' as in `sparsity.rigl`: the
      share reaches zero at `stop_refresh_at`.
    grow_at: the |parameter| at which grown entries start.
    distribution: 'uniform', 'erdos_renyi' (the paper's) or
      'erdos_renyi_kernel'.
    dense: regular expressions of layers that stay dense, counted in `density`.
    pattern: what is dropped and grown together; see `sparsity.patterns`.
    seed: of the first sets and of growing.
    select: which parameters may be sparse.

  Raises:
    ValueError: If `density` or `drop_fraction` is outside (0, 1], an interval
      is less than 1, or an option is unknown.

  Reference:
    Mocanu et al., 2018, "Scalable training of artificial neural networks with
    adaptive sparse connectivity". https://arxiv.org/abs/1707.04780
  """
  rewiring.check_grow_at(grow_at)

  def grow(now, pattern, num_grown, kept):
    return patterns.random_masks(pattern, now.key, kept, num_grown, kept)

  def values(params, gradients):
    del gradients
    return jnp.where(params < 0, -grow_at, grow_at)

  share = rewiring.make_share(drop_fraction, anneal, stop_refresh_at)
  return wrapper.sparsify(
    inner,
    rewiring.make_rule(pattern, share, grow, values, steps=True),
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
