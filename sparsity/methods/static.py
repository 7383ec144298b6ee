"""Static sparsity: a random set, drawn once."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import topk
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

  The baseline for dynamic methods.

  Example:
    >>> import jax.numpy as jnp
    >>> tx = static(optax.sgd(0.1), density=0.25)
    >>> state = tx.init({'linear': {'w': jnp.ones((4, 4))}})
    >>> int(state.sets.forward['linear']['w'].sum())
    4

  Arguments not listed are those of `sparsity.magnitude`.

  Args:
    scope: 'layer' draws within each layer, 'global' over all layers.

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
  keys = topk.layer_keys(key, weights)
  scores = {
    path: topk.random_scores(keys[path], weight.shape)
    for path, weight in weights.items()
  }
  return state_lib.same_sets(
    topk.topk_masks(scores, counts.forward, counts.scope)
  )
