"""A mesh of devices: batches are divided among them, the rest is replicated.

Under `jit` the compiler inserts the reductions over devices: gradients and
batch-norm statistics are those of the whole batch.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import contextvars
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

DATA = 'data'

_devices: contextvars.ContextVar[tuple[Any, ...] | None] = (
  contextvars.ContextVar('devices', default=None)
)


@contextlib.contextmanager
def on(devices: Sequence[Any]) -> Iterator[None]:
  """Makes meshes of other devices than JAX's own, such as a topology's."""
  token = _devices.set(tuple(devices))
  try:
    yield
  finally:
    _devices.reset(token)


def all_devices() -> tuple[Any, ...]:
  """Returns the devices that meshes are made of, sorted by process."""
  devices = _devices.get() or jax.devices()
  # The share of a batch that a process reads is contiguous.
  return tuple(sorted(devices, key=lambda x: (x.process_index, x.id)))


def make_mesh(num_devices: int | None) -> Mesh:
  """Returns a mesh with the single axis `data`; None takes all devices.

  Several processes take all, because each feeds its own devices.
  """
  devices = all_devices()
  if num_devices is not None:
    if not 1 <= num_devices <= len(devices):
      raise ValueError(
        f'expected num_devices from 1 to {len(devices)}, the number there is, '
        f'got {num_devices}'
      )
    if jax.process_count() > 1 and num_devices != len(devices):
      raise ValueError(
        f'expected num_devices={len(devices)} or None, all devices of '
        f'{jax.process_count()} processes, got {num_devices}'
      )
    devices = devices[:num_devices]
  return Mesh(np.array(devices), (DATA,))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Returns the sharding that divides an axis among the devices."""
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))


def check_batch_size(
  batch_size: int, mesh: Mesh, num_micro: int = 1, name: str = 'batch_size'
) -> None:
  """Raises a ValueError unless a batch divides evenly."""
  parts = mesh.size * num_micro
  if batch_size % parts:
    raise ValueError(
      f'expected {name} as a multiple of {parts} ({mesh.size} device(s) '
      f'times {num_micro} micro-batch(es)), got {batch_size}'
    )


def to_devices(tree: Any, sharding: NamedSharding) -> Any:
  """Returns global arrays, from arrays that every process has whole."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)
  make = jax.make_array_from_callback
  return jax.tree.map(
    lambda x: make(np.shape(x), sharding, x.__getitem__), tree
  )


def from_shares(tree: Any, sharding: NamedSharding) -> Any:
  """Returns global arrays, from this process's share of each."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)
  make = jax.make_array_from_process_local_data
  return jax.tree.map(lambda x: make(sharding, np.asarray(x)), tree)


def divide(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
  """Returns the sharding of an array along its largest divisible axis.

  An array without an axis that divides among the devices is replicated.
  """
  axes = [axis for axis, size in enumerate(shape) if size % mesh.size == 0]
  if not axes:
    return replicated(mesh)
  return over_data(mesh, max(axes, key=lambda axis: shape[axis]))


def divided(tree: Any, mesh: Mesh) -> Any:
  """Returns the shapes and dtypes of a tree, each divided by `divide`."""
  return jax.tree.map(lambda x: with_sharding(x, divide(mesh, x.shape)), tree)


def gather(tree: Any, mesh: Mesh) -> Any:
  """Returns divided arrays whole on every device; gradients are divided."""

  def part(x):
    return jax.lax.with_sharding_constraint(x, divide(mesh, x.shape))

  @jax.custom_vjp
  def whole(x):
    # Divided first, so that masks are applied before and not gathered, too.
    return jax.lax.with_sharding_constraint(part(x), replicated(mesh))

  whole.defvjp(lambda x: (whole(x), None), lambda _, g: (part(g),))
  return jax.tree.map(whole, tree)


def gathering(loss: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
  """Returns a loss of weights that are divided among the devices."""
  return lambda weights, *args: loss(gather(weights, mesh), *args)


def with_sharding(tree: Any, sharding: NamedSharding) -> Any:
  """Returns the shapes and dtypes of a tree, all with one sharding."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
