"""Active entries gathered, scattered and moved between structures.

Only refreshes and conversions call these, with arrays of the dense weight's
size: under jit in JAX; on the host in NumPy or, for whole layers, by the C++
threads of `kernels.host` if they are built. All agree bit for bit.

Shapes: in, out: the weight's two axes as a matrix; k_A, k_B: entries of A, B.
"""

import jax.numpy as jnp
import numpy as np

from sparsity import kernels
from sparsity.kernels import host
from sparsity.kernels.structure import Array
from sparsity.kernels.structure import is_traced
from sparsity.kernels.structure import matrix_shape
from sparsity.kernels.structure import to_numpy


def places(structure: kernels.Structure, shape: tuple[int, ...]) -> Array:
  """Returns int32 [k_B]: index of each entry in the flattened weight."""
  s = to_numpy(structure)
  outputs = kernels.outputs_of(s, matrix_shape(shape))
  return s.columns * np.int32(shape[-1]) + outputs


def in_forward(structure: kernels.Structure) -> Array:
  """Returns bool [k_B]: True at the entries of B that are in A."""
  num_backward, num_forward = structure.columns.size, structure.t_columns.size
  library = jnp if is_traced(structure) else np
  return library.arange(num_backward, dtype=np.int32) < num_forward


def masks(
  structure: kernels.Structure, shape: tuple[int, ...]
) -> tuple[Array, Array]:
  """Returns the masks of A and B in the weight's shape."""
  library = jnp if is_traced(structure) else np  # no large constants
  at, empty = places(structure, shape), library.zeros(shape, bool)
  forward = put(empty, at, in_forward(structure))
  return forward, put(empty, at, np.ones(at.shape, bool))


def take(dense: Array, at: Array) -> Array:
  """Returns the entries of `dense` (any shape) at flat indices."""
  dense, at = to_numpy((dense, at))
  return dense.reshape(-1).take(at, mode='clip')


def put(dense: Array, at: Array, values: Array) -> Array:
  """Returns `dense` (any shape) with `values` at flat indices."""
  dense, at, values = to_numpy((dense, at, values))
  if is_traced((dense, at, values)):
    flat = jnp.asarray(dense).reshape(-1)
    return (
      flat.at[at]
      .set(
        values.astype(dense.dtype),
        unique_indices=True,
        mode='promise_in_bounds',
      )
      .reshape(dense.shape)
    )
  result = dense.flatten()
  result[at] = values
  return result.reshape(dense.shape)


def write_back(
  dense: Array, structure: kernels.Structure, values: Array
) -> Array:
  """Returns `dense` (any shape) with the values [k_B] of the entries."""
  if _is_native(dense, structure, values):
    return host.put(dense, structure, values)
  return put(dense, places(structure, dense.shape), values)


def origins(
  old: kernels.Structure, new: kernels.Structure, shape: tuple[int, int]
) -> Array:
  """Returns int32 [k_B]: index of each new entry among the old ones, or -1."""
  if not is_traced((old, new)) and host.is_available():
    return host.origins(old, new, shape[0])
  before, after = (places(s, shape) for s in (old, new))
  index = np.arange(before.size, dtype=np.int32)
  library = jnp if is_traced((old, new)) else np
  return take(put(library.full(shape, -1, np.int32), before, index), after)


def move(x: Array, origin: Array, fresh: Array) -> Array:
  """Returns x[origin] [k_B], or `fresh` where an entry has no origin."""
  if _is_native(x, origin, fresh):
    return host.move(x, origin, fresh)
  x, origin, fresh = to_numpy((x, origin, fresh))
  where = jnp.where if is_traced((x, origin, fresh)) else np.where
  return where(origin >= 0, take(x, origin), fresh)


def _is_native(x, indices, values):
  """Returns whether the C++ threads take these arrays."""
  is_float = x.dtype == values.dtype == np.float32
  return (
    is_float and not is_traced((x, indices, values)) and host.is_available()
  )
