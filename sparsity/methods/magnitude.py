"""Magnitude pruning: dense training, then the largest weights only."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import masks
from sparsity import select as select_lib
from sparsity import state as state_lib


def magnitude(
  inner: optax.GradientTransformation,
  *,
  density: float,
  at: int,
  distribution: str = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner`, dense until update `at`, which prunes in one shot.

  Afterwards the entries that were largest then are trained on.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = magnitude(optax.sgd(0.0), density=0.5, at=1)
    >>> params = {'linear': {'w': jnp.array([[1.0, -3.0], [2.0, 0.5]])}}
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> state.sets.forward['linear']['w']
    Array([[False,  True],
           [ True, False]], dtype=bool)

  Args:
    inner: any optimizer.
    density: share of the selected entries that is kept, in (0, 1].
    at: the update after which all others are pruned, at least 1.
    distribution: 'uniform', 'erdos_renyi' or 'erdos_renyi_kernel'.
    scope: 'layer' ranks each layer by itself, 'global' all of them.
    dense: regular expressions of layers that stay dense, counted in `density`.
    select: which parameters may be sparse.

  Raises:
    ValueError: If `density` is outside (0, 1], `at` is less than 1, or an
      option is unknown.
  """
  if at < 1:
    raise ValueError(f'expected at >= 1, got {at}')
  return state_lib.sparsify(
    inner,
    state_lib.Rule(init=_everything, refresh=_largest),
    counts_lib.make_counts(
      forward_density=density,
      distribution=distribution,
      scope=scope,
      dense=dense,
      select=select,
    ),
    is_due=lambda count: count == at,
  )


def _everything(weights, counts, key):
  del counts, key
  trues = jax.tree.map(lambda x: jnp.ones(x.shape, bool), weights)
  return state_lib.ActiveSets(trues, jax.tree.map(jnp.copy, trues))


def _largest(now, counts):
  kept = masks.topk_masks(
    now.weights, counts.forward, counts.scope, magnitude=True
  )
  return state_lib.ActiveSets(kept, kept)
