"""Refreshes on the host: dense NumPy arrays processed by C++ threads.

Each function equals the JAX version in `kernels.structure` or `compact.entries`
bit for bit and is several times faster. All need the native library
(`is_available`), whatever device training runs on.
"""

import ctypes
import math
import os

import numpy as np

from sparsity.kernels import native
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import expected_shapes
from sparsity.kernels.structure import strip_size

ALIGNMENT = 64  # bytes
_SMALL = 1 << 16  # elements; fewer do not pay for a second thread


def is_available() -> bool:
  """Returns whether the native library can be used."""
  return not native.problem()


def from_masks(
  forward: np.ndarray, backward: np.ndarray, counts: tuple[int, int]
) -> tuple[Structure | None, tuple[int, int] | None]:
  """Returns the structure of two masks, and their numbers of entries.

  Returns:
    The structure, or None if the numbers differ from `counts`; and the numbers,
    or None if A is not a subset of B.
  """
  forward, backward = _as(forward, bool), _as(backward, bool)
  strip = strip_size(forward.shape, counts[0])
  shapes = expected_shapes(forward.shape, *counts)
  arrays = Structure(*(_empty(shape, np.int32) for shape in shapes))
  expected, found = np.array(counts, np.int64), np.zeros(2, np.int64)
  is_outside = _call(
    'build',
    *(forward, backward, *forward.shape, strip, expected),
    *(_num_tasks(forward.size), found, *arrays),
  )
  if is_outside:
    return None, None
  numbers = int(found[0]), int(found[1])
  return (arrays if numbers == counts else None), numbers


def origins(old: Structure, new: Structure, num_inputs: int) -> np.ndarray:
  """Returns int32 [k_B]: index of each new entry among the old ones, or -1."""
  size = len(new.columns)
  result = _empty((size,), np.int32)
  indices = (old.cells, old.columns, new.cells, new.columns)
  indices = (_as(array, np.int32) for array in indices)
  _call(
    'origins',
    *(*indices, num_inputs, len(new.cells) // 2, _num_tasks(size), result),
  )
  return result


def put(
  dense: np.ndarray, structure: Structure, values: np.ndarray
) -> np.ndarray:
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


def move(x: np.ndarray, origin: np.ndarray, fresh: np.ndarray) -> np.ndarray:
  """Returns x[origin] (float32), or `fresh` where an entry has no origin."""
  result = _empty(origin.shape, np.float32)
  _call(
    'move',
    *(_as(x, np.float32), _as(origin, np.int32), _as(fresh, np.float32)),
    *(origin.size, _num_tasks(origin.size), result),
  )
  return result


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
