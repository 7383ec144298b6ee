"""Devices: batches are divided among them, everything else is on each.

Under `jit` a program is written as for one device. Where its batch is sharded
over the axis `data` the compiler adds the sums over devices, so that gradients,
and the statistics of a batch norm too, are those of the whole batch.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

DATA = 'data'


def make_mesh(
  num_devices: int | None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh with the one axis `data`.

  Args:
    num_devices: how many devices to use; None is all there are.
    devices: out of which; by default all of this program.

  Raises:
    ValueError: If there are not as many; or if they are not all there are, with
      several processes, of which each has its share of a batch.
  """
  if devices is None:
    # Those of a process side by side: its share of a batch is consecutive.
    devices = sorted(jax.devices(), key=lambda x: (x.process_index, x.id))
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
  """Returns the sharding of what every device has whole."""
  return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Returns the sharding that divides an axis among the devices."""
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))


def check_batch_size(batch_size: int, mesh: Mesh, num_micro: int = 1) -> None:
  """Raises unless a batch can be divided evenly.

  Raises:
    ValueError: If `batch_size` is no multiple of devices times micro-batches.
  """
  parts = mesh.size * num_micro
  if batch_size % parts:
    raise ValueError(
      f'expected batch_size as a multiple of {parts} ({mesh.size} device(s) '
      f'times {num_micro} micro-batch(es)), got {batch_size}'
    )


def to_devices(tree: Any, sharding: NamedSharding) -> Any:
  """Returns arrays that every process has whole as global arrays."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)
  return jax.tree.map(
    lambda x: jax.make_array_from_callback(
      np.shape(x), sharding, lambda index: x[index]
    ),
    tree,
  )


def from_shares(tree: Any, sharding: NamedSharding) -> Any:
  """Returns global arrays of which this process has its share."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    tree,
  )


def check_one_process(experiment: str) -> None:
  """Raises with several processes, for an experiment that is for one.

  Raises:
    ValueError: If there are several.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f'expected one process with {experiment}, which does not divide its '
      f'batches, got {jax.process_count()}; start it without --processes, '
      '--distributed and --coordinator'
    )


def with_sharding(tree: Any, sharding: NamedSharding) -> Any:
  """Returns the shapes of a tree, all with one sharding."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
