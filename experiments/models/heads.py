"""One output layer per task, on any network.

The parameters of all heads exist from the start, concatenated along the last
axis of the output layer, so one compiled step serves every task.

Shapes:
  B: examples; C: classes of a task; H: number of heads.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
from jax import lax
import jax.numpy as jnp

from sparsity import select as select_lib


class Heads(NamedTuple):
  """A network with H heads."""

  # (key, inputs) -> parameters, state
  init: Callable[[Any, jax.Array], tuple[Any, Any]]
  # (params, state, key, inputs, is_training, task) -> logits [B, C], state;
  # task: int [], or [B] with one for each example; from 0.
  apply: Callable[..., tuple[jax.Array, Any]]
  paths: frozenset[str]  # of the parameters of the heads
  # (params, task) -> by path, the boolean masks of the task's head
  masks: Callable[[Any, Any], dict[str, jax.Array]]


def make_heads(
  make_network: Callable[[int], hk.TransformedWithState],
  inputs: Any,
  *,
  num_classes: int,
  num_heads: int,
) -> Heads:
  """Returns a network with `num_heads` heads of `num_classes` logits.

  The heads' parameters are those whose shape depends on the number of
  classes, which `make_network` takes; ValueError if there are none. Each head
  is drawn as if alone if its initializer does not depend on that number, such
  as with fan-in scaling. `inputs` is an array or its shape and dtype.
  """
  one, all_ = make_network(num_classes), make_network(num_classes * num_heads)
  shapes = [
    _shapes(network, inputs) for network in (one, make_network(num_classes + 1))
  ]
  paths = frozenset(
    path for path in shapes[0] if shapes[0][path] != shapes[1][path]
  )
  odd = {
    path: shapes[0][path]
    for path in paths
    if shapes[0][path][-1] != num_classes
  }
  if odd or not paths:
    raise ValueError(
      'expected output layers whose last axis is the number of classes, '
      f'{num_classes}, got {odd or "no parameters that depend on it"}'
    )

  def apply(params, state, key, inputs, is_training, task):
    if jnp.ndim(task) == 0:
      own = {
        path: lax.dynamic_slice_in_dim(
          x, task * num_classes, num_classes, x.ndim - 1
        )
        for path, x in select_lib.pick(params, paths).items()
      }
      params = select_lib.put(params, own)
      return one.apply(params, state, key, inputs, is_training)
    logits, state = all_.apply(params, state, key, inputs, is_training)
    logits = jnp.reshape(logits, (-1, num_heads, num_classes))
    own = jnp.take_along_axis(logits, task[:, None, None], 1)[:, 0]
    return own, state

  def masks(params, task):
    found = {}
    for path, x in select_lib.pick(params, paths).items():
      head = jnp.arange(x.shape[-1]) // num_classes
      found[path] = jnp.broadcast_to(
        jnp.expand_dims(head == task, range(x.ndim - 1)), x.shape
      )
    return found

  return Heads(
    lambda key, inputs: all_.init(key, inputs, True), apply, paths, masks
  )


def _shapes(network, inputs) -> dict[str, tuple[int, ...]]:
  params, _ = jax.eval_shape(
    lambda key, inputs: network.init(key, inputs, True),
    jax.random.key(0),
    inputs,
  )
  return {path: x.shape for path, x in select_lib.path_leaves(params)}
