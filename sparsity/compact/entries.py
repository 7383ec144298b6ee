"""Active entries gathered, scattered and moved between structures.

Only refreshes and conversions call these, with arrays of the dense weight's
size. Under jit they use JAX; on the host, the C++ kernels if built, else NumPy.
All three agree bit for bit.

Shapes: in, out: the weight's two axes as a matrix; k_A, k_B: entries of A, B.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from sparsity import kernels
from sparsity.kernels import host
from sparsity.kernels import layout

is_traced = layout.is_traced


def places(structure: kernels.Structure, shape: tuple[int, ...]) -> jax.Array:
  """Returns int32 [k_B]: index of each entry in the flattened weight."""
  s, num_outputs = structure, np.int32(shape[-1])
  columns = s.columns if is_traced(s) else np.asarray(s.columns)
  return columns * num_outputs + _outputs(s, shape)


def in_forward(structure: kernels.Structure) -> jax.Array:
  """Returns bool [k_B]: True at the entries of B that are in A."""
  num_backward, num_forward = structure.columns.size, structure.t_columns.size
  return jnp.arange(num_backward, dtype=jnp.int32) < num_forward


def masks(
  structure: kernels.Structure, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """Returns the masks of A and B in the weight's shape."""
  at = places(structure, shape)
  empty = jnp.zeros(shape, bool)
  forward = put(empty, at, jnp.asarray(in_forward(structure)))
  return forward, put(empty, at, jnp.ones(at.shape, bool))


def take(dense: jax.Array, at: jax.Array) -> jax.Array:
  """Returns the entries of `dense` (any shape) at flat indices."""
  if is_traced((dense, at)):
    return dense.reshape(-1).at[at].get(mode='promise_in_bounds')
  return np.asarray(dense).reshape(-1)[np.asarray(at)]


def put(dense: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
  """Returns `dense` (any shape) with `values` at flat indices."""
  if is_traced((dense, at, values)):
    flat = dense.reshape(-1)
    flat = flat.at[at].set(
      values.astype(dense.dtype), unique_indices=True, mode='promise_in_bounds'
    )
    return flat.reshape(dense.shape)
  flat = np.array(dense).reshape(-1)
  flat[np.asarray(at)] = np.asarray(values)
  return flat.reshape(dense.shape)


def write_back(
  dense: jax.Array, structure: kernels.Structure, values: jax.Array
) -> jax.Array:
  """Returns `dense` (any shape) with the values [k_B] of the entries."""
  if not is_traced((dense, structure, values)) and host.is_available():
    dense = np.asarray(dense)
    if dense.dtype == values.dtype == np.float32:
      return host.put(dense, structure, values)
  return put(dense, places(structure, dense.shape), values)


def origins(
  old: kernels.Structure, new: kernels.Structure, shape: tuple[int, int]
) -> jax.Array:
  """Returns int32 [k_B]: index of each new entry among the old ones, or -1.

  Args:
    old: the structure before the refresh.
    new: the structure after it.
    shape: (in, out) of the dense weight.
  """
  if not is_traced((old, new)) and host.is_available():
    return host.origins(old, new, shape[0])
  # Output-major like the entries, so that memory is accessed in order.
  before, after = (_transposed_places(s, shape) for s in (old, new))
  xp = jnp if is_traced((before, after)) else np
  empty = xp.full(shape[0] * shape[1], -1, np.int32)
  index = xp.arange(before.shape[0], dtype=np.int32)
  return take(put(empty, before, index), after)


def move(x: jax.Array, origin: jax.Array, fresh: jax.Array) -> jax.Array:
  """Returns x[origin], or `fresh` where an entry has no origin.

  Shapes:
    x, origin, fresh: [k_B].
  """
  if is_traced((x, origin, fresh)):
    return jnp.where(origin >= 0, take(x, jnp.maximum(origin, 0)), fresh)
  x = np.asarray(x)
  if x.dtype == np.float32 and host.is_available():
    return host.move(x, origin, fresh)
  moved = np.take(x, origin, mode='clip')
  enter = np.flatnonzero(origin < 0)
  moved[enter] = np.asarray(fresh)[enter]
  return moved


def _transposed_places(s, shape):
  columns = s.columns if is_traced(s) else np.asarray(s.columns)
  return _outputs(s, shape) * np.int32(shape[0]) + columns


def _outputs(s, shape):
  """Returns int32 [k_B], the output of each entry."""
  shape = (math.prod(shape[:-1]), shape[-1])
  return kernels.outputs_of(s, shape, jnp if is_traced(s) else np)
