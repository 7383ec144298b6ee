"""Initial weights of sparse layers, scaled by the inputs that are left."""

from typing import Any

import jax
import jax.numpy as jnp

from sparsity import paths as paths_lib
from sparsity import select
from sparsity import state as state_lib

SCALES = ('neuron', 'layer')


def rescale(
  params: Any, state: Any, by: str = 'neuron', layout: str | None = None
) -> Any:
  """Returns weights with the scale that the active ones of a layer need.

  Initializers scale weights by the fan-in of a dense layer. Of a layer with a
  random share d of its weights, only sqrt(d) of the signal is left, and after a
  few thin layers nothing is learned. Here weights are multiplied by the square
  root of fan-in over active fan-in. Weights outside the active set are, too, so
  that they have the right scale if they enter later.

  For random sets. The largest weights, as Top-KAST and pruning keep them, need
  none, nor do parameters phi of Powerpropagation: rescale theta, then convert.

  Example:
    >>> import optax, sparsity
    >>> tx = sparsity.static(optax.sgd(0.1), density=0.25)
    >>> params = {'linear': {'w': jnp.ones((4, 4))}}
    >>> params = rescale(params, tx.init(params), by='layer')
    >>> state = tx.init(params)
    >>> params['linear']['w'][0, 0]
    Array(2., dtype=float32)

  Args:
    params: weights, before training.
    state: of the sparse optimizer, initialized with them.
    by: 'neuron', each output by the inputs that are left to it; an output
      without any keeps its scale. 'layer', all by the mean.
    layout: as in `sparsity.make_counts`.

  Raises:
    ValueError: If `by` is unknown or `state` has no active sets.

  Reference:
    Evci et al., 2022, "Gradient flow in sparse neural networks and how lottery
    tickets win". https://arxiv.org/abs/2010.03533
  """
  if by not in SCALES:
    raise ValueError(f'expected by out of {SCALES}, got {by!r}')
  masks = dict(select.path_leaves(state_lib.active_sets(state).forward))
  leaves = {
    path: x * _scale(path, masks[path], by, layout).astype(x.dtype)
    for path, x in select.path_leaves(params)
    if x.ndim > 1 and masks[path].ndim
  }
  return select.put(params, leaves)


def _scale(path: str, mask: jax.Array, by: str, layout: str | None):
  """Returns factors that broadcast with the mask."""
  share = jnp.mean(mask, dtype=jnp.float32)
  if by == 'neuron':
    oriented = paths_lib.to_in_out(path, mask, layout)
    axes = tuple(range(mask.ndim - 1))
    share = jnp.mean(oriented, axes, dtype=jnp.float32, keepdims=True)
    share = paths_lib.from_in_out(path, share, layout)
  return jnp.where(share > 0, jnp.maximum(share, 1e-12) ** -0.5, 1)
