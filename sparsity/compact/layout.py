"""From masks to index arrays and back, twice: within jit and on the host.

Sets change at a refresh only, and there the arrays that are as large as the
dense weight are gone through. Traced, that is JAX; otherwise C++ where the
native kernels are built, and NumPy where not, both faster at it
on the host. All give the same, bit for bit.

Shapes: in, out: the weight's two axes as a matrix; k_A, k_B: entries of A, B.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsity import kernels
from sparsity.kernels import host

_LARGEST = np.iinfo(np.int32).max


def is_traced(tree: Any) -> bool:
  """Returns whether an array of a tree is traced by a JAX transformation."""
  return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def build(
  forward: jax.Array,
  backward: jax.Array,
  num_forward: int,
  num_backward: int,
) -> kernels.Structure:
  """Returns the structure of two masks [in, out], A within B.

  As `kernels.from_masks`, but also under jit, and fast.

  Args:
    forward: bool, True at the k_A entries of A.
    backward: bool, True at the k_B entries of B.
    num_forward: k_A; is trusted under jit.
    num_backward: k_B.

  Raises:
    ValueError: If the weight has 2^31 entries or more; if the masks are not
      traced and have other numbers of entries, or A is not within B.
  """
  check_size(forward.shape)
  if is_traced((forward, backward)):
    return _build_with(jnp, forward, backward, num_forward, num_backward)
  return _build(
    np.asarray(forward), np.asarray(backward), num_forward, num_backward
  )


def check_size(shape: tuple[int, ...]) -> None:
  """Raises unless entries of a weight can be counted by an int32.

  Raises:
    ValueError: If not.
  """
  size = int(np.prod(shape, dtype=np.int64))
  if size > _LARGEST:
    raise ValueError(
      f'expected a weight of fewer than 2^31 entries, got {size} of shape '
      f'{tuple(shape)}: indices are int32, so split the layer, or use masked '
      'storage'
    )


def places(structure: kernels.Structure, shape: tuple[int, ...]) -> jax.Array:
  """Returns int32 [k_B]: where the entries are in the flattened weight."""
  s, num_outputs = structure, np.int32(shape[-1])
  columns = s.columns if is_traced(s) else np.asarray(s.columns)
  return columns * num_outputs + _outputs(s, shape)


def in_forward(structure: kernels.Structure) -> jax.Array:
  """Returns bool [k_B]: which entries of B are in A."""
  num_backward, num_forward = structure.columns.size, structure.t_columns.size
  return jnp.arange(num_backward, dtype=jnp.int32) < num_forward


def masks(
  structure: kernels.Structure, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """Returns the masks of A and of B, of a weight's shape."""
  at = places(structure, shape)
  empty = jnp.zeros(shape, bool)
  forward = put(empty, at, jnp.asarray(in_forward(structure)))
  return forward, put(empty, at, jnp.ones(at.shape, bool))


def put(dense: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
  """Returns `dense`, of any shape, with the values at flat places."""
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
  """Returns `dense`, of any shape, with the values [k_B] of the entries."""
  if not is_traced((dense, structure, values)) and host.is_available():
    dense = np.asarray(dense)
    if dense.dtype == values.dtype == np.float32:
      return host.put(dense, structure, values)
  return put(dense, places(structure, dense.shape), values)


def take(dense: jax.Array, at: jax.Array) -> jax.Array:
  """Returns the entries of `dense`, of any shape, at flat places."""
  if is_traced((dense, at)):
    return dense.reshape(-1).at[at].get(mode='promise_in_bounds')
  return np.asarray(dense).reshape(-1)[np.asarray(at)]


def origins(
  old: kernels.Structure, new: kernels.Structure, shape: tuple[int, int]
) -> jax.Array:
  """Returns int32 [k_B]: which entry each new one was, -1 if it is new.

  Args:
    old: the structure until now.
    new: the structure from now on.
    shape: (in, out) of the dense weight.
  """
  if not is_traced((old, new)) and host.is_available():
    return host.origins(old, new, shape[0])
  # By output first, as entries are: there memory is gone through in order.
  before, after = (_transposed_places(s, shape) for s in (old, new))
  xp = jnp if is_traced((before, after)) else np
  empty = xp.full(shape[0] * shape[1], -1, np.int32)
  index = xp.arange(before.shape[0], dtype=np.int32)
  return take(put(empty, before, index), after)


def move(x: jax.Array, origin: jax.Array, fresh: jax.Array) -> jax.Array:
  """Returns entries of x where they are now, `fresh` where they are new.

  Shapes:
    x, fresh, origin: [k_B].
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


def _build(forward, backward, num_forward, num_backward):
  expected = (num_forward, num_backward)
  if host.is_available():
    structure, found = host.build(forward, backward, expected)
    _check_sets(found, expected)
    return structure
  is_within = not np.any(forward & ~backward)
  found = (np.count_nonzero(forward), np.count_nonzero(backward))
  _check_sets(found if is_within else None, expected)
  return _build_with(np, forward, backward, *expected)


def _check_sets(found, expected):
  if found is None:
    raise ValueError('expected every entry of forward to be one of backward')
  if found != expected:
    raise ValueError(
      f'expected {expected[0]} and {expected[1]} entries in the forward and '
      f'backward sets, got {found[0]} and {found[1]}: compact storage needs '
      'numbers that never change, masked storage serves any'
    )


def _build_with(xp, forward, backward, num_forward, num_backward):
  """Returns the structure, by NumPy or by JAX."""
  shape = forward.shape
  strip = kernels.strip_size(shape, num_forward)
  a, more = (_arrange(xp, x.T, strip) for x in (forward, backward & ~forward))
  t = _arrange(xp, forward, strip)

  def entries(mask, number):  # where they are in it, and their columns
    at = xp.flatnonzero(mask, **({} if xp is np else {'size': number}))
    strips = mask.shape[1]
    return at, at // (kernels.BLOCK * strip) % strips * strip + at % strip

  _, columns = entries(a, num_forward)
  _, more_columns = entries(more, num_backward - num_forward)
  t_at, t_columns = entries(t, num_forward)
  # How many entries come before each, where it is in the other arrangement.
  rank = xp.cumsum(a.reshape(-1), dtype=np.int32) - 1
  rank = _restore(rank.reshape(a.shape), shape[::-1]).T
  t_entries = _arrange(xp, rank, strip).reshape(-1)[t_at]
  counts = [_counts(xp, x, shape[1]) for x in (a, more)]
  arrays = (
    _starts(xp, xp.concatenate(counts)),
    xp.concatenate([columns, more_columns]),
    _starts(xp, _counts(xp, t, shape[0])),
    t_columns,
    t_entries,
  )
  return kernels.Structure(*(array.astype(np.int32) for array in arrays))


def _arrange(xp, x, strip):
  """Returns [rows, columns] as [blocks, strips, BLOCK, strip], filled up."""
  sizes = (kernels.BLOCK, strip)
  numbers = [-(-n // size) for n, size in zip(x.shape, sizes, strict=True)]
  extra = [(0, -n % size) for n, size in zip(x.shape, sizes, strict=True)]
  x = xp.pad(x, extra).reshape(numbers[0], sizes[0], numbers[1], sizes[1])
  return x.swapaxes(1, 2)


def _restore(x, shape):
  """Returns the array [rows, columns] of which `_arrange` made `x`."""
  x = x.swapaxes(1, 2)
  x = x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
  return x[: shape[0], : shape[1]]


def _counts(xp, mask, num_rows):
  """Returns how many entries each cell has."""
  counts = mask.sum(-1, dtype=np.int32)  # [blocks, strips, BLOCK]
  size = num_rows % kernels.BLOCK  # of the last block, if it is not full
  if not size:
    return counts.reshape(-1)
  last = counts[-1, :, :size].reshape(-1)
  return xp.concatenate([counts[:-1].reshape(-1), last])


def _starts(xp, counts):
  total = xp.cumsum(counts, dtype=np.int32)
  return xp.concatenate([xp.zeros(1, np.int32), total])
