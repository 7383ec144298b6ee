"""Static sparsity: a random set chosen once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import masks
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import wrapper


def static(
  inner: optax.GradientTransformation,
  *,
  density: float,
  distribution: str = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  seed: int = 0,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on a random set of entries that never changes.

  The baseline that every dynamic method has to beat.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = static(optax.sgd(0.1), density=0.25)
    >>> state = tx.init({'linear': {'w': jnp.ones((4, 4))}})
    >>> int(state.sets.forward['linear']['w'].sum())
    4

  Args:
    inner: any optimizer.
    density: share of the selected entries that exist, in (0, 1].
    distribution: 'uniform', 'erdos_renyi' or 'erdos_renyi_kernel'.
    scope: 'layer' draws in each layer, 'global' over all of them.
    dense: regular expressions of layers that stay dense, counted in `density`.
    seed: of the draw.
    select: which parameters may be sparse.

  Raises:
    ValueError: If `density` is outside (0, 1] or an option is unknown.
  """
  return wrapper.sparsify(
    inner,
    state_lib.Rule(_draw, lambda now, _: now.sets, changes='nothing'),
    counts_lib.make_counts(
      forward_density=density,
      distribution=distribution,
      scope=scope,
      dense=dense,
      select=select,
    ),
    is_due=lambda count: jnp.zeros_like(count, bool),
    seed=seed,
  )


def _draw(weights, counts, key):
  keys = state_lib.layer_keys(key, weights)
  lottery = {
    path: masks.random_scores(keys[path], weight.shape)
    for path, weight in weights.items()
  }
  drawn = masks.topk_masks(lottery, counts.forward, counts.scope)
  return state_lib.ActiveSets(drawn, jax.tree.map(jnp.copy, drawn))
