"""Masks to structures and back, and what a refresh does with the entries.

Sets change at refreshes only, and only there are arrays of the dense weight's
size traversed. Under jit this uses JAX; on the host, the C++ kernels if built,
else NumPy. All three agree bit for bit.

Shapes: in, out: the weight's two axes as a matrix; k_A, k_B: entries of A, B.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsity.kernels import host
from sparsity.kernels.structure import BLOCK
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import expected_shapes
from sparsity.kernels.structure import outputs_of
from sparsity.kernels.structure import strip_size

_LARGEST = np.iinfo(np.int32).max


def is_traced(tree: Any) -> bool:
  """Returns whether a JAX transformation traces any array of a tree."""
  return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def from_masks(forward: np.ndarray, backward: np.ndarray) -> Structure:
  """Returns the structure of two nested boolean masks; not under jit.

  Example:
    >>> import numpy as np
    >>> A = np.array([[False, True], [True, False]])
    >>> structure = from_masks(A, np.ones((2, 2), bool))
    >>> structure.columns  # A: inputs 1 and 0; B minus A: inputs 0 and 1
    Array([1, 0, 0, 1], dtype=int32)

  Args:
    forward: bool [in, out], True at the entries of A.
    backward: bool [in, out], True at the entries of B.

  Raises:
    ValueError: If the masks are not boolean matrices of the same shape, A is
      not a subset of B, or the weight has 2^31 entries or more.
  """
  forward, backward = np.asarray(forward), np.asarray(backward)
  if forward.shape != backward.shape or forward.ndim != 2:
    raise ValueError(
      'expected two masks of one [in, out] shape, got '
      f'{forward.shape} and {backward.shape}'
    )
  if forward.dtype != bool or backward.dtype != bool:
    raise ValueError(
      f'expected boolean masks, got {forward.dtype} and {backward.dtype}'
    )
  counts = (int(np.count_nonzero(mask)) for mask in (forward, backward))
  return Structure(*map(jnp.asarray, build(forward, backward, *counts)))


def build(
  forward: jax.Array,
  backward: jax.Array,
  num_forward: int,
  num_backward: int,
) -> Structure:
  """Returns the structure of two masks [in, out] of known size, A inside B.

  Args:
    forward: bool, True at the k_A entries of A.
    backward: bool, True at the k_B entries of B.
    num_forward: k_A; not checked under jit.
    num_backward: k_B; not checked under jit.

  Raises:
    ValueError: If the weight has 2^31 entries or more or, outside of jit, if
      the masks have other numbers of entries or A is not a subset of B.
  """
  check_num_entries(forward.shape)
  expected = num_forward, num_backward
  if is_traced((forward, backward)):
    return _build_with(jnp, forward, backward, *expected)
  forward, backward = np.asarray(forward), np.asarray(backward)
  if host.is_available():
    structure, found = host.build(forward, backward, expected)
    _check_sets(found, expected)
    return structure
  is_within = not np.any(forward & ~backward)
  found = (np.count_nonzero(forward), np.count_nonzero(backward))
  _check_sets(found if is_within else None, expected)
  return _build_with(np, forward, backward, *expected)


def check(structure: Structure, shape: tuple[int, int]) -> None:
  """Checks every index of a structure, on the host; not under jit.

  The kernels trust their indices, so a structure from elsewhere, such as a
  file, has to pass this check once.

  Example:
    >>> import numpy as np
    >>> mask = np.eye(3, dtype=bool)
    >>> check(from_masks(mask, mask), (3, 3))
    >>> check(from_masks(mask, mask), (3, 4))
    Traceback (most recent call last):
    ...
    ValueError: expected cells of shape (9,) for a weight (3, 4), got (7,)

  Raises:
    ValueError: If shapes, cell boundaries, indices or their order are wrong.
  """
  num_inputs, num_outputs = shape
  s = Structure(*(np.asarray(array).astype(np.int64) for array in structure))
  num_forward, num_backward = s.t_columns.size, s.columns.size
  shapes = expected_shapes(shape, num_forward, num_backward)
  for name, expected in shapes._asdict().items():
    found = getattr(s, name).shape
    if found != expected:
      raise ValueError(
        f'expected {name} of shape {expected} for a weight {shape}, got {found}'
      )
  _check_cells('cells', s.cells, num_backward)
  _check_cells('t_cells', s.t_cells, num_forward)
  _check_range('columns', s.columns, num_inputs)
  _check_range('t_columns', s.t_columns, num_outputs)
  _check_range('t_entries', s.t_entries, num_backward)
  outputs = outputs_of(s, shape, np)
  _check_range('outputs', outputs, num_outputs)
  backward = np.zeros(shape, bool)
  backward[s.columns, outputs] = True
  forward = np.zeros(shape, bool)
  forward[s.columns[:num_forward], outputs[:num_forward]] = True
  if np.count_nonzero(forward) != num_forward:
    raise ValueError('expected distinct entries, got one of A twice')
  expected = from_masks(forward, backward)
  for name, array in expected._asdict().items():
    if not np.array_equal(array, getattr(s, name)):
      raise ValueError(
        f'expected distinct entries, sorted in each cell, and {name} to '
        'describe the same entries as the other arrays'
      )


def check_num_entries(shape: tuple[int, ...]) -> None:
  """Raises ValueError if int32 cannot index the entries of a weight."""
  size = math.prod(shape)
  if size > _LARGEST:
    raise ValueError(
      f'expected a weight of fewer than 2^31 entries, got {size} of shape '
      f'{tuple(shape)}: indices are int32, so split the layer or use masked '
      'storage'
    )


def _check_cells(name, cells, num_entries):
  if cells[0] != 0 or cells[-1] != num_entries or np.any(np.diff(cells) < 0):
    raise ValueError(
      f'expected {name} to ascend from 0 to {num_entries}, got {cells}'
    )


def _check_range(name, indices, size):
  if np.any(indices < 0) or np.any(indices >= size):
    raise ValueError(
      f'expected {name} in [0, {size}), got [{indices.min()}, {indices.max()}]'
    )


def _check_sets(found, expected):
  if found is None:
    raise ValueError('expected every entry of forward to be one of backward')
  if found != expected:
    raise ValueError(
      f'expected {expected[0]} and {expected[1]} entries in the forward and '
      f'backward sets, got {found[0]} and {found[1]}: compact storage needs '
      'constant numbers, masked storage takes any'
    )


def _build_with(xp, forward, backward, num_forward, num_backward):
  """Returns the structure, computed by NumPy or JAX."""
  shape = forward.shape
  strip = strip_size(shape, num_forward)
  a, more = (_arrange(xp, x.T, strip) for x in (forward, backward & ~forward))
  t = _arrange(xp, forward, strip)

  def entries(mask, number):  # flat indices into the mask, and their columns
    at = xp.flatnonzero(mask, **({} if xp is np else {'size': number}))
    strips = mask.shape[1]
    return at, at // (BLOCK * strip) % strips * strip + at % strip

  _, columns = entries(a, num_forward)
  _, more_columns = entries(more, num_backward - num_forward)
  t_at, t_columns = entries(t, num_forward)
  # Rank of each entry in the order of `a`, rearranged to the order of `t`.
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
  return Structure(*(array.astype(np.int32) for array in arrays))


def _arrange(xp, x, strip):
  """Returns [rows, columns] as [blocks, strips, BLOCK, strip], padded."""
  sizes = (BLOCK, strip)
  numbers = [-(-n // size) for n, size in zip(x.shape, sizes, strict=True)]
  extra = [(0, -n % size) for n, size in zip(x.shape, sizes, strict=True)]
  x = xp.pad(x, extra).reshape(numbers[0], sizes[0], numbers[1], sizes[1])
  return x.swapaxes(1, 2)


def _restore(x, shape):
  """Returns the [rows, columns] array that `_arrange` turned into `x`."""
  x = x.swapaxes(1, 2)
  x = x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
  return x[: shape[0], : shape[1]]


def _counts(xp, mask, num_rows):
  """Returns the number of entries of each cell."""
  counts = mask.sum(-1, dtype=np.int32)  # [blocks, strips, BLOCK]
  size = num_rows % BLOCK  # of the last block, if it is not full
  if not size:
    return counts.reshape(-1)
  last = counts[-1, :, :size].reshape(-1)
  return xp.concatenate([counts[:-1].reshape(-1), last])


def _starts(xp, counts):
  total = xp.cumsum(counts, dtype=np.int32)
  return xp.concatenate([xp.zeros(1, np.int32), total])
