"""Devices that hold one model together, beside those that divide a batch.

The mesh has two axes: `data`, among which batches are divided, and `model`,
among which matrices are. Programs are written as for one device.
"""

import jax
import numpy as np

from experiments.common import distributed

MODEL = 'model'


def make_mesh(num_devices: int | None, model_devices: int) -> jax.sharding.Mesh:
  """Returns a mesh with the axes `data` and `model`.

  Args:
    num_devices: how many devices to use; None is all there are.
    model_devices: how many of them hold one model together.

  Raises:
    ValueError: If there are not as many, or they cannot be divided so.
  """
  devices = distributed.make_mesh(num_devices).devices
  if devices.size % model_devices:
    raise ValueError(
      f'config.train.model_devices: expected a divisor of {devices.size}, the '
      f'number of devices, got {model_devices}'
    )
  return jax.sharding.Mesh(
    np.reshape(devices, (-1, model_devices)), (distributed.DATA, MODEL)
  )


def data_mesh(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
  """Returns the part of a mesh that a batch is divided among."""
  return jax.sharding.Mesh(mesh.devices[:, 0], (distributed.DATA,))


def over_model(
  mesh: jax.sharding.Mesh, shape: tuple[int, ...]
) -> jax.sharding.NamedSharding:
  """Returns the sharding of a matrix: its longest axis that can be divided.

  Vectors, and what cannot be divided evenly, are whole on each device.

  Args:
    mesh: with the axis `model`.
    shape: of an array.
  """
  num = mesh.shape[MODEL]
  axes = [i for i, size in enumerate(shape) if size % num == 0]
  if num == 1 or len(shape) < 2 or not axes:
    return distributed.replicated(mesh)
  axis = max(axes, key=lambda i: shape[i])
  spec = jax.sharding.PartitionSpec(*[None] * axis, MODEL)
  return jax.sharding.NamedSharding(mesh, spec)
