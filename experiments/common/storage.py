"""How weights are held while they are trained: masked or compact.

Masked, a compiled step does everything, and this does nothing; its products are
dense, or skip what is masked. Compact, only active entries are on the device,
and between compiled steps the host chooses the next sets with the dense
parameters, which nothing else sees.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsity


class Storage(NamedTuple):
  """What the host does to a training state, a `step.TrainState`."""

  # From a masked state to the one that is trained, and back.
  pack: Callable[[Any], Any]
  unpack: Callable[[Any], Any]
  # Of how many steps made, out of several counts, the host refreshes after.
  is_due: Callable[[np.ndarray], np.ndarray]
  # (state, stored, dense gradients or None) -> state, stored
  refresh: Callable[[Any, Any, Any], tuple[Any, Any]]
  # Has masks where they take no memory that steps need.
  keep: Callable[[Any], Any]
  # Whether a refresh is in place of a step and needs gradients of all weights.
  needs_gradients: bool
  is_compact: bool
  # (theta, optimizer's state) -> what the network is given in a training step;
  # None: what it is given in every other place.
  see: Callable[[Any, Any], Any] | None = None


class Steps(NamedTuple):
  """Compiled steps of one chunk; none sees what is `stored`."""

  # (state, first, last) -> state after the steps first to last - 1 of the
  # chunk, sums of their metrics
  advance: Callable[[Any, int, int], tuple[Any, Any]]
  # (state, i) -> state after step i, of which the parameters have stayed, its
  # metrics, gradients with respect to all weights
  measure: Callable[[Any, int], tuple[Any, Any, Any]]


MASKED = Storage(
  pack=lambda state: state,
  unpack=lambda state: state,
  is_due=lambda counts: np.zeros(len(counts), bool),
  refresh=lambda state, stored, gradients: (state, stored),
  keep=lambda masks: masks,
  needs_gradients=False,
  is_compact=False,
)


def masked(
  tx: optax.GradientTransformationExtraArgs,
) -> tuple[optax.GradientTransformationExtraArgs, Storage]:
  """Returns the optimizer as it is, and what the host does: nothing."""
  return tx, MASKED


def masked_products(
  tx: optax.GradientTransformationExtraArgs,
) -> tuple[optax.GradientTransformationExtraArgs, Storage]:
  """Returns the same as `masked`, with products that skip what is masked."""
  see = functools.partial(sparsity.masked_weights, tx)
  return tx, MASKED._replace(see=see)


def compact(
  tx: optax.GradientTransformationExtraArgs,
) -> tuple[optax.GradientTransformationExtraArgs, Storage]:
  """Returns the optimizer of compact parameters, and what the host does.

  Its `init` is that of masked parameters: a state begins masked and is packed.

  Raises:
    ValueError: If the method's numbers of active entries change.
  """
  training = sparsity.compact.compact(tx)

  def pack(state):
    params, opt_state, stored = training.pack(state.params, state.opt_state)
    params, opt_state = _place((params, opt_state), state.step)
    return state._replace(params=params, opt_state=opt_state, stored=stored)

  def unpack(state):
    stored = jax.tree.map(np.asarray, state.stored)
    params, opt_state = training.unpack(state.params, state.opt_state, stored)
    params, opt_state = _place((params, opt_state), state.step)
    return state._replace(params=params, opt_state=opt_state, stored=None)

  def refresh(state, stored, gradients):
    params, opt_state, stored = training.refresh(
      state.params, state.opt_state, stored, gradients
    )
    return state._replace(params=params, opt_state=opt_state), stored

  return optax.GradientTransformationExtraArgs(tx.init, training.update), (
    Storage(
      pack,
      unpack,
      lambda counts: np.asarray(tx.method.is_due(counts)),
      refresh,
      jax.device_get,
      training.needs_gradients,
      is_compact=True,
    )
  )


STORAGES = {
  'masked': masked,
  'masked_products': masked_products,
  'compact': compact,
}


def make_steps(
  storage: Storage, steps: Steps, state: Any, first_step: int, num_steps: int
) -> tuple[Any, Any]:
  """Returns the state after a chunk of steps, and sums of their metrics.

  Args:
    storage: how the weights are held.
    steps: what is compiled.
    state: before the chunk.
    first_step: how many steps were made before.
    num_steps: of the chunk.
  """
  counts = np.arange(1, num_steps + 1, dtype=np.int32)
  due = counts[storage.is_due(first_step + counts)].tolist()
  state, stored, parts, at = on_device(state), state.stored, [], 0
  for end in due:
    last = end - storage.needs_gradients
    if at < last:
      state, sums = steps.advance(state, at, last)
      parts.append(sums)
    gradients = None
    if storage.needs_gradients:
      state, sums, gradients = steps.measure(state, last)
      parts.append(sums)
    state, stored = storage.refresh(state, stored, gradients)
    at = end
  if at < num_steps:
    state, sums = steps.advance(state, at, num_steps)
    parts.append(sums)
  sums = jax.tree.map(lambda *xs: sum(xs[1:], xs[0]), *parts)
  return state._replace(stored=stored), sums


def on_device(state: Any) -> Any:
  """Returns a training state without what only the host holds."""
  return state._replace(stored=None)


def shapes(
  pack: Callable[[Any], Any], state: Any, place: Callable[[Any], Any]
) -> Any:
  """Returns the shapes of a packed state, such as a checkpoint is read into.

  Args:
    pack: as of `Storage`.
    state: shapes of a masked state.
    place: adds shardings to the shapes of what is on the device.
  """
  packed = jax.eval_shape(pack, state)
  placed = place(on_device(packed))
  return on_host(placed._replace(stored=packed.stored))


def on_host(state: Any) -> Any:
  """Returns shapes of a state; those of what the host holds as NumPy arrays.

  So a checkpoint brings them back there. They take no memory.
  """
  return state._replace(
    stored=jax.tree.map(
      lambda x: np.broadcast_to(np.zeros([], x.dtype), x.shape), state.stored
    )
  )


def describe(state: Any) -> tuple[str, ...]:
  """Returns lines for a dry run: what the host holds of a packed state."""
  if state.stored is None:
    return ()
  num_bytes = sparsity.compact.num_bytes(state.stored)
  return (f'on the host   {num_bytes:>16,} bytes, seen by refreshes only',)


def check_products() -> None:
  """Checks that products which skip masked weights have one device.

  Raises:
    ValueError: If there are several processes, each of which would compute the
      whole batch.
  """
  if jax.process_count() > 1:
    raise ValueError(
      "config.method.storage: expected 'masked' with several processes, got "
      "'masked_products', whose kernels would compute the whole batch in each; "
      'start it without --processes, --distributed and --coordinator'
    )


def check_sets(name: str, options: dict[str, Any]) -> None:
  """Checks that a method keeps a known number of entries in each layer.

  Args:
    name: of the method.
    options: the section `config.method`.

  Raises:
    ValueError: If it does not.
  """
  if jax.process_count() > 1:
    raise ValueError(
      "config.method.storage: expected 'masked' with several processes, got "
      "'compact', whose refreshes are of one; start it without --processes, "
      '--distributed and --coordinator'
    )
  pattern = options.get('pattern', {'name': 'unstructured'})['name']
  scope = options.get('scope', 'layer')
  for key, value, needed in (
    ('scope', scope, 'layer'),
    ('pattern.name', pattern, 'unstructured'),
  ):
    if value != needed:
      raise ValueError(
        f"config.method.{key}: expected {needed!r} with storage='compact', "
        f'where each layer keeps its number of entries, got {value!r} of '
        f"{name}: take it, or storage='masked'"
      )


def _place(tree: Any, like: Any) -> Any:
  """Returns arrays on the devices that another array is on."""
  if isinstance(like, jax.core.Tracer):
    return tree
  return jax.device_put(jax.tree.map(jnp.asarray, tree), like.sharding)
