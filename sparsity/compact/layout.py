"""From masks to index arrays and back, twice: within jit and on the host.

Sets change at a refresh only, and there the arrays that are as large as the
dense weight are gone through. Traced, that is JAX; otherwise C++ where the
native kernels are built, and NumPy where not, both several times faster at it
on the host. All give the same, bit for bit.

Shapes: in, out: the weight's two axes as a matrix; k_A, k_B: entries of A, B.
"""

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
    return _build_traced(forward, backward, num_forward, num_backward)
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


def places(structure: kernels.Structure) -> jax.Array:
  """Returns int32 [k_B]: where the entries are in the flattened [in, out]."""
  s, num_outputs = structure, np.int32(structure.split.shape[0])
  columns = s.columns if is_traced(s) else np.asarray(s.columns)
  return columns * num_outputs + _outputs(s)


def in_forward(structure: kernels.Structure) -> jax.Array:
  """Returns bool [k_B]: which entries of B are in A."""
  s = structure
  member = jnp.zeros(s.columns.shape, bool)
  return member.at[s.t_entries].set(True, mode='promise_in_bounds')


def masks(
  structure: kernels.Structure, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """Returns the masks of A and of B, of a weight's shape."""
  at = places(structure)
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
  return put(dense, places(structure), values)


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
  outputs = _outputs(s)
  columns = s.columns if is_traced(s) else np.asarray(s.columns)
  return outputs * np.int32(shape[0]) + columns


def _outputs(s):
  """Returns int32 [k_B], the output of each entry."""
  num_outputs = s.split.shape[0]
  if is_traced(s):
    return jnp.repeat(
      jnp.arange(num_outputs, dtype=jnp.int32),
      jnp.diff(s.rows),
      total_repeat_length=s.columns.shape[0],
    )
  outputs = np.arange(num_outputs, dtype=np.int32)
  return np.repeat(outputs, np.diff(np.asarray(s.rows)))


def _build(forward, backward, num_forward, num_backward):
  expected = (num_forward, num_backward)
  if host.is_available():
    structure, found = host.build(forward, backward, expected)
    _check_sets(found, expected)
    return structure
  is_within = not np.any(forward & ~backward)
  found = (np.count_nonzero(forward), np.count_nonzero(backward))
  _check_sets(found if is_within else None, expected)
  return _build_slowly(forward, backward)


def _check_sets(found, expected):
  if found is None:
    raise ValueError('expected every entry of forward to be one of backward')
  if found != expected:
    raise ValueError(
      f'expected {expected[0]} and {expected[1]} entries in the forward and '
      f'backward sets, got {found[0]} and {found[1]}: compact storage needs '
      'numbers that never change, masked storage serves any'
    )


def _build_slowly(forward, backward):
  num_inputs, num_outputs = forward.shape
  # Sorted by input, and within by output; then stably by output.
  inputs, outputs = _entries(forward)
  order = _order(outputs, num_outputs)
  more_inputs, more_outputs = _entries(backward & ~forward)
  more_order = _order(more_outputs, num_outputs)

  num_a = np.bincount(outputs, minlength=num_outputs)
  num_more = np.bincount(more_outputs, minlength=num_outputs)
  rows = _starts(num_a + num_more)
  split = rows[:-1] + num_a
  # A row of A's list begins at _starts(num_a), and in the values at rows.
  shift = (rows[:-1] - _starts(num_a)[:-1]).astype(np.int32)
  at = np.arange(len(inputs), dtype=np.int32) + np.repeat(shift, num_a)
  shift = (split - _starts(num_more)[:-1]).astype(np.int32)
  more_at = np.arange(len(more_inputs), dtype=np.int32)
  more_at += np.repeat(shift, num_more)

  columns = np.empty(len(at) + len(more_at), np.int32)
  columns[at] = inputs[order]
  columns[more_at] = more_inputs[more_order]
  t_entries = np.empty(len(at), np.int32)
  t_entries[order] = at
  t_rows = _starts(np.bincount(inputs, minlength=num_inputs))
  arrays = (rows, split, columns, t_rows, outputs, t_entries)
  return kernels.Structure(*(array.astype(np.int32) for array in arrays))


def _entries(mask):
  """Returns the inputs and the outputs of the entries of a mask."""
  # Half the width where it fits: there sorting is by counting, and much faster.
  places = np.flatnonzero(mask).astype(np.int32)
  inputs = places // np.int32(mask.shape[1])
  return inputs, places - inputs * np.int32(mask.shape[1])


def _order(outputs, num_outputs):
  kind = np.uint16 if num_outputs <= 2**16 else np.int32
  return np.argsort(outputs.astype(kind), kind='stable')


def _starts(counts):
  return np.concatenate([[0], np.cumsum(counts)])


def _build_traced(forward, backward, num_forward, num_backward):
  def starts(counts):
    total = jnp.cumsum(counts, dtype=jnp.int32)
    return jnp.concatenate([jnp.zeros(1, jnp.int32), total])

  def rank(mask, axis):  # among the entries before it, of its row or column
    return jnp.cumsum(mask, axis, dtype=jnp.int32) - 1

  only = backward & ~forward
  num_a = jnp.sum(forward, 0, dtype=jnp.int32)
  rows = starts(num_a + jnp.sum(only, 0, dtype=jnp.int32))
  split = rows[:-1] + num_a
  shape = forward.shape
  at = jnp.where(
    forward,
    rank(forward, 0) + jnp.broadcast_to(rows[:-1], shape),
    rank(only, 0) + jnp.broadcast_to(split, shape),
  )
  inputs, outputs = (
    jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1)
  )
  t_rows = starts(jnp.sum(forward, 1, dtype=jnp.int32))
  t_at = rank(forward, 1) + jnp.broadcast_to(t_rows[:-1, None], shape)

  def compress(mask, at, values, length):
    at = jnp.where(mask, at, length)  # out of bounds, and so dropped
    return jnp.zeros(length, jnp.int32).at[at].set(values, mode='drop')

  return kernels.Structure(
    rows,
    split,
    compress(backward, at, inputs, num_backward),
    t_rows,
    compress(forward, t_at, outputs, num_forward),
    compress(forward, t_at, at, num_forward),
  )
