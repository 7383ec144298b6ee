"""Which entries of a weight exist: the index arrays all kernels read.

Shapes: in, out: the weight's two axes; k_A and k_B: the number of entries of
the forward set A and of the backward set B, which holds A.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Structure(NamedTuple):
  """Which entries of a dense [in, out] weight exist; rows are outputs.

  A row holds A's entries first and then those of B only, each of the two by
  ascending input. So a product with A reads the front of each row, and the
  gradient on B the whole of it. `k_A` and `k_B` are the lengths of `t_columns`
  and `columns`, so they are static; where rows begin and end is data.

  A convolution's [height, width, channels in, channels out] weight is seen as
  [height * width * channels in, channels out].
  """

  rows: jax.Array  # int32 [out + 1]: where each output's entries begin
  split: jax.Array  # int32 [out]: where A's entries of each output end
  columns: jax.Array  # int32 [k_B]: the input of each entry
  t_rows: jax.Array  # int32 [in + 1]: where each input's entries of A begin
  t_columns: jax.Array  # int32 [k_A]: the output of each entry of A
  t_entries: jax.Array  # int32 [k_A]: the place of that entry in the values


def from_masks(forward: np.ndarray, backward: np.ndarray) -> Structure:
  """Returns the structure of two nested boolean masks, made on the host.

  Example:
    >>> import numpy as np
    >>> A = np.array([[False, True], [True, False]])
    >>> structure = from_masks(A, np.ones((2, 2), bool))
    >>> structure.columns  # output 0: input 1 is in A, input 0 is not
    Array([1, 0, 0, 1], dtype=int32)

  Args:
    forward: bool [in, out], the entries of A.
    backward: bool [in, out], the entries of B.

  Raises:
    ValueError: If the masks are not two boolean matrices of one shape, A is
      not inside B, or the entries are too many to count in 32 bits.
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
  if np.any(forward & ~backward):
    raise ValueError('expected every entry of forward to be one of backward')
  num_inputs, num_outputs = forward.shape
  outputs, inputs = np.nonzero(backward.T)
  if len(outputs) > np.iinfo(np.int32).max:
    raise ValueError(
      f'expected at most 2^31 - 1 entries, got {len(outputs)}: '
      'lower the density or split the layer'
    )
  only_backward = ~forward[inputs, outputs]
  order = np.lexsort((inputs, only_backward, outputs))
  outputs, inputs = outputs[order], inputs[order]
  entries = np.flatnonzero(forward[inputs, outputs])
  entries = entries[np.lexsort((outputs[entries], inputs[entries]))]
  rows = _starts(outputs, num_outputs)
  split = rows[:-1] + np.count_nonzero(forward, axis=0)
  t_rows = _starts(inputs[entries], num_inputs)
  arrays = (rows, split, inputs, t_rows, outputs[entries], entries)
  return Structure(*(jnp.asarray(array, jnp.int32) for array in arrays))


def _starts(sorted_rows: np.ndarray, num_rows: int) -> np.ndarray:
  """Returns where each row begins, and where the last one ends."""
  counts = np.bincount(sorted_rows, minlength=num_rows)
  return np.concatenate([[0], np.cumsum(counts)])


def check(structure: Structure, shape: tuple[int, int]) -> None:
  """Checks every index of a structure, on the host; not to be traced.

  The kernels trust a structure, so one that was not made here (read from a
  file, say) has to pass this once.

  Example:
    >>> import numpy as np
    >>> mask = np.eye(3, dtype=bool)
    >>> check(from_masks(mask, mask), (3, 3))
    >>> check(from_masks(mask, mask), (3, 4))
    Traceback (most recent call last):
    ...
    ValueError: expected rows of shape (5,) for a weight (3, 4), got (4,)

  Raises:
    ValueError: If shapes, row pointers, indices or their order are wrong.
  """
  num_inputs, num_outputs = shape
  s = Structure(*(np.asarray(array).astype(np.int64) for array in structure))
  num_forward, num_backward = len(s.t_columns), len(s.columns)
  _expect_shape('rows', s.rows, (num_outputs + 1,), shape)
  _expect_shape('split', s.split, (num_outputs,), shape)
  _expect_shape('t_rows', s.t_rows, (num_inputs + 1,), shape)
  _expect_shape('t_entries', s.t_entries, (num_forward,), shape)
  _expect_rows('rows', s.rows, num_backward)
  _expect_rows('t_rows', s.t_rows, num_forward)
  if np.any(s.split < s.rows[:-1]) or np.any(s.split > s.rows[1:]):
    raise ValueError('expected each split inside its row')
  _expect_range('columns', s.columns, num_inputs)
  _expect_range('t_columns', s.t_columns, num_outputs)
  _expect_range('t_entries', s.t_entries, num_backward)
  outputs = np.repeat(np.arange(num_outputs), np.diff(s.rows))
  backward = np.zeros(shape, bool)
  backward[s.columns, outputs] = True
  forward = np.zeros(shape, bool)
  in_forward = np.arange(num_backward) < s.split[outputs]
  forward[s.columns[in_forward], outputs[in_forward]] = True
  expected = from_masks(forward, backward)
  for name, array in expected._asdict().items():
    if not np.array_equal(array, getattr(s, name)):
      raise ValueError(
        f'expected distinct entries, sorted in each row, and {name} to '
        'describe the same entries as the other arrays'
      )


def _expect_shape(name, array, expected, shape):
  if array.shape != expected:
    raise ValueError(
      f'expected {name} of shape {expected} for a weight {shape}, '
      f'got {array.shape}'
    )


def _expect_rows(name, rows, num_entries):
  if rows[0] != 0 or rows[-1] != num_entries or np.any(np.diff(rows) < 0):
    raise ValueError(
      f'expected {name} to ascend from 0 to {num_entries}, got {rows}'
    )


def _expect_range(name, indices, size):
  if np.any(indices < 0) or np.any(indices >= size):
    raise ValueError(
      f'expected {name} in [0, {size}), got [{indices.min()}, {indices.max()}]'
    )
