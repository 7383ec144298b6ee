"""Storage of sparse weights during training: masked or compact.

Masked training keeps dense arrays on the device, and compiled steps do all the
work. Compact training keeps only the active entries there; between compiled
steps the host refreshes the active sets from dense parameters that no step
reads.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments import mesh as mesh_lib
import sparsity
from sparsity.kernels.structure import to_numpy

Optimizer = optax.GradientTransformationExtraArgs


class TrainState(NamedTuple):
  """Everything that a step changes, and so everything in a checkpoint."""

  step: jax.Array  # int32 [], completed steps of the stage
  params: Any  # phi
  net_state: Any  # batch statistics, memory and the like
  opt_state: optax.OptState  # with the active sets
  host_params: dict[str, Any] | None = None  # dense, of compact storage


class Storage(NamedTuple):
  """Host-side operations on a `TrainState`."""

  # (theta, optimizer state) -> the weights of a training step
  forward_weights: Callable[[Any, Any], Any]
  # From the masked state to the state that is trained, and back.
  pack: Callable[[Any], Any] = lambda state: state
  unpack: Callable[[Any], Any] = lambda state: state
  # is_due(counts): bool mask over `counts`; True where the host refreshes the
  # active sets after that many steps.
  is_due: Callable[[np.ndarray], np.ndarray] = lambda counts: counts < 0
  # (state, host_params, dense gradients or None) -> state, host_params
  refresh: Callable[..., tuple[Any, Any]] | None = None
  # Moves masks off the device, where they would compete with training.
  offload: Callable[[Any], Any] = lambda masks: masks
  # True if a refresh takes the place of a step and needs dense gradients.
  needs_gradients: bool = False
  is_compact: bool = False


def masked(tx: Optimizer, num_devices: int) -> tuple[Optimizer, Storage]:
  """Returns the optimizer unchanged and its storage; see `masked_weights`."""
  forward_weights = sparsity.forward_weights
  if num_devices == 1 and hasattr(tx, 'method'):
    forward_weights = functools.partial(sparsity.masked_weights, tx, skip=True)
  return tx, Storage(forward_weights)


def compact(tx: Optimizer, num_devices: int) -> tuple[Optimizer, Storage]:
  """Returns the optimizer of compact parameters and its storage."""
  del num_devices
  try:
    training = sparsity.compact.compact(tx)
  except ValueError as error:
    raise ValueError(f'config.method.storage: {error}') from error

  def pack(state):
    params, opt_state, host_params = training.pack(
      *to_numpy((state.params, state.opt_state))
    )
    params, opt_state = _place((params, opt_state), state.step)
    return state._replace(
      params=params, opt_state=opt_state, host_params=host_params
    )

  def unpack(state):
    params, opt_state = training.unpack(
      *to_numpy((state.params, state.opt_state, state.host_params))
    )
    params, opt_state = _place((params, opt_state), state.step)
    return state._replace(params=params, opt_state=opt_state, host_params=None)

  def refresh(state, host_params, gradients):
    params, opt_state, host_params = training.refresh(
      state.params, state.opt_state, host_params, gradients
    )
    return state._replace(params=params, opt_state=opt_state), host_params

  storage = Storage(
    sparsity.forward_weights,
    pack,
    unpack,
    lambda counts: np.asarray(tx.method.is_due(counts)),
    refresh,
    offload=jax.device_get,
    needs_gradients=training.needs_gradients,
    is_compact=True,
  )
  return optax.GradientTransformationExtraArgs(
    tx.init, training.update
  ), storage


STORAGES = {'compact': compact, 'masked': masked}


def make_steps(
  storage: Storage,
  advance: Callable[[Any, int, int], tuple[Any, Any]],
  measure: Callable[[Any, int], tuple[Any, Any, Any]],
  state: Any,
  first_step: int,
  num_steps: int,
) -> tuple[Any, Any]:
  """Returns the state after a chunk of steps, and the sums of their metrics.

  `advance`: (state, first, last) -> the state after steps first to last - 1 of
  the chunk, and the sums of their metrics. `measure`: (state, i) -> the state
  after step i with its parameters unchanged, metrics, and the dense gradients.
  """
  counts = np.arange(1, num_steps + 1, dtype=np.int32)
  due = counts[storage.is_due(first_step + counts)].tolist()
  state, host_params, parts, at = on_device(state), state.host_params, [], 0
  for end in due:
    last = end - storage.needs_gradients
    if at < last:
      state, sums = advance(state, at, last)
      parts.append(sums)
    gradients = None
    if storage.needs_gradients:
      state, sums, gradients = measure(state, last)
      parts.append(sums)
    state, host_params = storage.refresh(state, host_params, gradients)
    at = end
  if at < num_steps:
    state, sums = advance(state, at, num_steps)
    parts.append(sums)
  return state._replace(host_params=host_params), add_all(parts)


def add_all(trees: list[Any]) -> Any:
  """Returns the elementwise sum of trees; of several, on the host."""
  if len(trees) == 1:
    return trees[0]  # of a step that may still be running
  return jax.tree.map(lambda *xs: np.sum(xs, 0), *jax.device_get(trees))


def on_device(state: Any) -> Any:
  """Returns a training state without its host parameters."""
  return state._replace(host_params=None)


def shapes(storage: Storage, state: Any, place: Callable[[Any], Any]) -> Any:
  """Returns the shapes of a packed state, by which checkpoints are restored."""
  packed = jax.eval_shape(storage.pack, state)
  # NumPy arrays, so that a checkpoint restores them to the host. They take no
  # memory.
  host_params = jax.tree.map(
    lambda x: np.broadcast_to(np.zeros([], x.dtype), x.shape),
    packed.host_params,
  )
  return place(on_device(packed))._replace(host_params=host_params)


def check(name: str, storage: str, options: dict[str, Any]) -> None:
  """Raises ValueError unless a method can be trained in a storage."""
  if storage not in STORAGES:
    raise ValueError(
      f'config.method.storage: expected one of {tuple(STORAGES)}, got '
      f'{storage!r}'
    )
  if storage == 'masked':
    return
  if (scope := options.get('scope', 'layer')) != 'layer':
    raise ValueError(
      "config.method.scope: expected 'layer' with storage='compact', where the "
      f'number of entries of a layer is constant, got {scope!r} with {name}'
    )


def _place(tree: Any, like: Any) -> Any:
  """Returns arrays on the devices of another array."""
  if isinstance(like, jax.core.Tracer):
    return tree
  return mesh_lib.to_devices(to_numpy(tree), like.sharding)
