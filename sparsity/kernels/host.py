"""Structures on the host: made from masks, and moved between.

`from_masks` uses C++ threads if the native library is built, whatever device
training runs on; `origins`, `put` and `move` need it (`is_available`). They
equal the JAX versions in `kernels.structure` and `compact.entries` bit for bit
and are several times faster.

Shapes: in, out: the weight's two axes as a matrix; k_A, k_B: entries of A, B.
"""

import ctypes
import math
import os

import numpy as np

from sparsity.kernels import native
from sparsity.kernels.structure import Array
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import check_num_entries
from sparsity.kernels.structure import expected_shapes
from sparsity.kernels.structure import from_traced_masks
from sparsity.kernels.structure import is_traced
from sparsity.kernels.structure import on_cpu
from sparsity.kernels.structure import strip_size

ALIGNMENT = 64  # bytes
_from_masks = on_cpu(from_traced_masks)
_SMALL = 1 << 16  # elements; fewer do not pay for a second thread


def is_available() -> bool:
  """Returns whether the native library can be used."""
  return not native.problem()


def from_masks(
  forward: Array,
  backward: Array,
  counts: tuple[int, int] | None = None,
) -> Structure:
  """Returns the structure of two nested boolean masks.

  Example:
    >>> A = np.array([[False, True], [True, False]])
    >>> structure = from_masks(A, np.ones((2, 2), bool))
    >>> structure.columns  # A: inputs 1 and 0; B minus A: inputs 0 and 1
    array([1, 0, 0, 1], dtype=int32)

  Args:
    forward: bool [in, out], True at the entries of A.
    backward: bool [in, out], True at the entries of B.
    counts: (k_A, k_B), required and not checked under jit; None: counted.

  Raises:
    ValueError: If the masks are not boolean matrices of the same shape, A is
      not a subset of B, the numbers of entries are not `counts`, or the weight
      has 2^31 entries or more.
  """
  if forward.shape != backward.shape or forward.ndim != 2:
    raise ValueError(
      'expected two masks of one [in, out] shape, got '
      f'{forward.shape} and {backward.shape}'
    )
  if forward.dtype != bool or backward.dtype != bool:
    raise ValueError(
      f'expected boolean masks, got {forward.dtype} and {backward.dtype}'
    )
  check_num_entries(forward.shape)
  if is_traced((forward, backward)):
    return _from_masks(forward, backward, counts=counts)
  forward, backward = np.asarray(forward), np.asarray(backward)
  expected = counts or _count(forward, backward)
  if is_available():
    structure, found, is_outside = _build(forward, backward, expected)
  else:
    found = _count(forward, backward)
    is_outside = np.any(forward & ~backward)
  if is_outside:
    raise ValueError('expected every entry of forward to be one of backward')
  if found != expected:
    raise ValueError(
      f'expected {expected[0]} and {expected[1]} entries in the forward and '
      f'backward sets, got {found[0]} and {found[1]}: compact storage needs '
      'constant numbers, masked storage takes any'
    )
  if is_available():
    return structure
  return _from_masks(forward, backward, counts=expected)


def origins(old: Structure, new: Structure, num_inputs: int) -> np.ndarray:
  """Returns int32 [k_B]: index of each new entry among the old ones, or -1."""
  size = len(new.columns)
  result = _empty((size,), np.int32)
  arrays = (old.cells, old.columns, new.cells, new.columns)
  indices = (_as(array, np.int32) for array in arrays)
  _call(
    'origins',
    *(*indices, num_inputs, len(new.cells) // 2, _num_tasks(size), result),
  )
  return result


def put(dense: Array, structure: Structure, values: Array) -> np.ndarray:
  """Returns `dense` (float32) with the values [k_B] of the entries."""
  shape = dense.size // dense.shape[-1], dense.shape[-1]
  strip = strip_size(shape, len(structure.t_columns))
  result = _empty(dense.shape, np.float32)
  _call(
    'put',
    *(_as(dense, np.float32), _as(values, np.float32)),
    *(_as(structure.cells, np.int32), _as(structure.columns, np.int32)),
    *(*shape, strip, _num_tasks(dense.size), result),
  )
  return result


def move(x: Array, origin: Array, fresh: Array) -> np.ndarray:
  """Returns x[origin] (float32), or `fresh` where an entry has no origin."""
  result = _empty(origin.shape, np.float32)
  _call(
    'move',
    *(_as(x, np.float32), _as(origin, np.int32), _as(fresh, np.float32)),
    *(origin.size, _num_tasks(origin.size), result),
  )
  return result


def _build(forward, backward, counts):
  """Returns the structure by C++, its counts, and whether A exceeds B."""
  forward, backward = _as(forward, bool), _as(backward, bool)
  strip = strip_size(forward.shape, counts[0])
  shapes = expected_shapes(forward.shape, *counts)
  arrays = Structure(
    **{name: _empty(shape, np.int32) for name, shape in shapes.items()}
  )
  expected, found = np.array(counts, np.int64), np.zeros(2, np.int64)
  is_outside = _call(
    'build',
    *(forward, backward, *forward.shape, strip, expected),
    *(_num_tasks(forward.size), found, *arrays),
  )
  return arrays, (int(found[0]), int(found[1])), is_outside


def _count(*masks: np.ndarray) -> tuple[int, ...]:
  return tuple(int(np.count_nonzero(mask)) for mask in masks)


def _empty(shape, dtype):
  """Returns an array so aligned that JAX can use it without a copy."""
  size = math.prod(shape) * np.dtype(dtype).itemsize
  room = np.empty(size + ALIGNMENT, np.uint8)
  start = -room.ctypes.data % ALIGNMENT
  return room[start : start + size].view(dtype).reshape(shape)


def _num_tasks(size: int) -> int:
  return 1 if size < _SMALL else min(len(os.sched_getaffinity(0)), 8)


def _as(array, dtype):
  return np.ascontiguousarray(array, dtype)


def _call(name, *arguments):
  function = getattr(native.library(), f'sparsity_{name}')
  return function(
    *(
      ctypes.c_void_p(x.ctypes.data)
      if isinstance(x, np.ndarray)
      else ctypes.c_int64(x)
      for x in arguments
    )
  )
