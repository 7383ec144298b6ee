"""What a refresh does with dense arrays on the host, in C++ and in threads.

Each function takes NumPy arrays and does what its namesake in
`sparsity.compact.layout` does, bit for bit, several times faster; it needs the
native kernels (`native.problem`), on whatever device the training is.
"""

import ctypes
import os

import numpy as np

from sparsity.kernels import native
from sparsity.kernels.structure import Structure

_SMALL = 1 << 16  # things that one thread does in less time than two start


def is_available() -> bool:
  """Returns whether the functions can be called."""
  return not native.problem()


def build(
  forward: np.ndarray, backward: np.ndarray, counts: tuple[int, int]
) -> tuple[Structure | None, tuple[int, int] | None]:
  """Returns the structure of two masks, and how many entries they have.

  Args:
    forward: bool [in, out], A.
    backward: bool [in, out], B.
    counts: the numbers of entries that they should have.

  Returns:
    The structure, None if the numbers are others; and the numbers, None if A
    is not within B.
  """
  num_inputs, num_outputs = forward.shape
  forward, backward = _as(forward, bool), _as(backward, bool)
  arrays = Structure(
    *(
      np.empty(size, np.int32)
      for size in (
        *(num_outputs + 1, num_outputs, counts[1]),
        *(num_inputs + 1, counts[0], counts[0]),
      )
    )
  )
  expected, found = np.array(counts, np.int64), np.zeros(2, np.int64)
  is_outside = _call(
    'build',
    *(forward, backward, num_inputs, num_outputs, expected),
    *(_num_tasks(forward.size), found, *arrays),
  )
  if is_outside:
    return None, None
  numbers = int(found[0]), int(found[1])
  return (arrays if numbers == counts else None), numbers


def origins(old: Structure, new: Structure, num_inputs: int) -> np.ndarray:
  """Returns int32 [k_B]: which entry each new one was, -1 if it is new."""
  size = len(new.columns)
  result = np.empty(size, np.int32)
  indices = (old.rows, old.columns, new.rows, new.columns)
  indices = (_as(array, np.int32) for array in indices)
  _call(
    'origins',
    *(*indices, num_inputs, len(new.split), _num_tasks(size), result),
  )
  return result


def put(
  dense: np.ndarray, structure: Structure, values: np.ndarray
) -> np.ndarray:
  """Returns `dense`, float32, with the values [k_B] at the entries."""
  num_outputs = len(structure.split)
  result = np.empty(dense.shape, np.float32)
  _call(
    'put',
    *(_as(dense, np.float32), _as(values, np.float32)),
    *(_as(structure.rows, np.int32), _as(structure.columns, np.int32)),
    *(dense.size // num_outputs, num_outputs, _num_tasks(dense.size), result),
  )
  return result


def move(x: np.ndarray, origin: np.ndarray, fresh: np.ndarray) -> np.ndarray:
  """Returns entries of x, float32, where they are now; `fresh` where new."""
  result = np.empty(origin.shape, np.float32)
  _call(
    'move',
    *(_as(x, np.float32), _as(origin, np.int32), _as(fresh, np.float32)),
    *(origin.size, _num_tasks(origin.size), result),
  )
  return result


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
