"""SET: drop the smallest weights, grow others at random."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from sparsity import distributions
from sparsity import patterns
from sparsity import select as select_lib
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
    seed: seed of the initial sets and of growing.

  Raises:
    ValueError: As in `sparsity.rigl`.

  Reference:
    Mocanu et al., 2018, "Scalable training of artificial neural networks with
    adaptive sparse connectivity". https://arxiv.org/abs/1707.04780
  """
  rewiring.check_grow_at(grow_at)

  def grow(now, pattern, num_grown, kept):
    return patterns.random_masks(pattern, now.key, kept, num_grown, kept)

  def initial_values(params, gradients):
    del gradients
    return jnp.where(params < 0, -grow_at, grow_at)

  return rewiring.rewire(
    inner,
    grow,
    initial_values,
    steps=True,
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
