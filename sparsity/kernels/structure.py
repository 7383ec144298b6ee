"""Which entries of a weight exist: the index arrays all kernels read.

Shapes: in, out: the weight's two axes; k_A and k_B: the number of entries of
the forward set A and of the backward set B, which holds A.
"""

import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 128  # outputs that go through the strips of inputs together
# A strip has 128 inputs, or twice that and so on until a cell has so many
# entries of A on average, or this length.
ENTRIES_OF_CELL = 8
LONGEST_STRIP = 1024


class Structure(NamedTuple):
  """Which entries of a dense [in, out] weight exist, strip by strip.

  A cell is one output and one strip of inputs, see `strip_size`; it holds its
  entries by ascending input. Cells are ordered by block of 128 outputs, then by
  strip, then by output: the inputs of a strip stay in a core's first-level
  cache while all outputs of a block read them. The cells of A come first, then
  those of B's other entries, so the first k_A entries are A's.

  The transposed arrays have A alone, with inputs and outputs exchanged.

  `k_A` and `k_B` are the lengths of `t_columns` and `columns`, so they are
  static; where cells begin and end is data. The order depends on the shape and
  on k_A, and on nothing of the machine.

  A convolution's [height, width, channels in, channels out] weight is seen as
  [height * width * channels in, channels out].
  """

  cells: jax.Array  # int32 [2 cells + 1]: where each begins; A's, then others
  columns: jax.Array  # int32 [k_B]: the input of each entry
  t_cells: jax.Array  # int32 [t_cells + 1]: where each transposed cell begins
  t_columns: jax.Array  # int32 [k_A]: the output of each entry of A
  t_entries: jax.Array  # int32 [k_A]: the place of that entry in the values


def strip_size(shape: tuple[int, int], num_forward: int) -> int:
  """Returns how many inputs, or outputs if transposed, make a strip.

  Example:
    >>> strip_size((1000, 1000), 100_000), strip_size((1000, 1000), 25_000)
    (128, 512)
  """
  size = BLOCK
  while (
    size < LONGEST_STRIP
    and size * num_forward < ENTRIES_OF_CELL * math.prod(shape)
  ):
    size *= 2
  return size


def num_strips(num_columns: int, strip: int) -> int:
  """Returns how many strips there are, and cells of a row."""
  return -(-num_columns // strip)


def cell_of(row: Any, column: Any, shape: tuple[int, int], strip: int) -> Any:
  """Returns the cells of entries, arrays, of a weight of [rows, columns]."""
  strips = num_strips(shape[1], strip)
  first = row // BLOCK * BLOCK
  rows = (shape[0] - first).clip(max=BLOCK)  # in the block
  return first * strips + column // strip * rows + row - first


def row_of(cell: Any, shape: tuple[int, int], strip: int) -> Any:
  """Returns the rows of cells, an array: `cell_of` the other way round."""
  strips = max(num_strips(shape[1], strip), 1)
  first = cell // (BLOCK * strips) * BLOCK
  rows = (shape[0] - first).clip(max=BLOCK)
  return first + (cell - first * strips) % rows


def outputs_of(s: Structure, shape: tuple[int, int], xp: Any = jnp) -> Any:
  """Returns int32 [k_B], the output of each entry of an [in, out] weight.

  Args:
    s: the structure.
    shape: (in, out).
    xp: `jnp`, or `np` for arrays that are not traced.
  """
  strip = strip_size(shape, s.t_columns.shape[0])
  number = num_strips(shape[0], strip) * shape[1]
  row = row_of(xp.arange(number, dtype=np.int32), shape[::-1], strip)
  rows, counts = xp.concatenate([row, row]), xp.diff(s.cells)
  if xp is np:
    return np.repeat(rows, counts)
  return jnp.repeat(rows, counts, total_repeat_length=s.columns.shape[0])


def from_masks(forward: np.ndarray, backward: np.ndarray) -> Structure:
  """Returns the structure of two nested boolean masks, made on the host.

  Example:
    >>> import numpy as np
    >>> A = np.array([[False, True], [True, False]])
    >>> structure = from_masks(A, np.ones((2, 2), bool))
    >>> structure.columns  # A: inputs 1 and 0; others: inputs 0 and 1
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
  strip = strip_size(forward.shape, np.count_nonzero(forward))
  number = num_strips(num_inputs, strip) * num_outputs
  cell = cell_of(outputs, inputs, (num_outputs, num_inputs), strip)
  cell += number * ~forward[inputs, outputs]
  order = np.lexsort((inputs, cell))
  outputs, inputs, cell = outputs[order], inputs[order], cell[order]
  in_forward = np.flatnonzero(cell < number)
  t_inputs, t_outputs = inputs[in_forward], outputs[in_forward]
  t_cell = cell_of(t_inputs, t_outputs, forward.shape, strip)
  entries = np.lexsort((t_outputs, t_cell))
  t_number = num_strips(num_outputs, strip) * num_inputs
  arrays = (
    _starts(cell, 2 * number),
    inputs,
    _starts(t_cell, t_number),
    t_outputs[entries],
    entries,
  )
  return Structure(*(jnp.asarray(array, jnp.int32) for array in arrays))


def _starts(cells: np.ndarray, number: int) -> np.ndarray:
  """Returns where each cell begins, and where the last one ends."""
  counts = np.bincount(cells, minlength=number)
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
    ValueError: expected cells of shape (9,) for a weight (3, 4), got (7,)

  Raises:
    ValueError: If shapes, row pointers, indices or their order are wrong.
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
  _expect_cells('cells', s.cells, num_backward)
  _expect_cells('t_cells', s.t_cells, num_forward)
  _expect_range('columns', s.columns, num_inputs)
  _expect_range('t_columns', s.t_columns, num_outputs)
  _expect_range('t_entries', s.t_entries, num_backward)
  outputs = outputs_of(s, shape, np)
  _expect_range('outputs', outputs, num_outputs)
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


def expected_shapes(
  shape: tuple[int, int], num_forward: int, num_backward: int
) -> Structure:
  """Returns the shapes of the arrays of k_A and k_B entries."""
  strip = strip_size(shape, num_forward)
  return Structure(
    cells=(2 * num_strips(shape[0], strip) * shape[1] + 1,),
    columns=(num_backward,),
    t_cells=(num_strips(shape[1], strip) * shape[0] + 1,),
    t_columns=(num_forward,),
    t_entries=(num_forward,),
  )


def _expect_cells(name, cells, num_entries):
  if cells[0] != 0 or cells[-1] != num_entries or np.any(np.diff(cells) < 0):
    raise ValueError(
      f'expected {name} to ascend from 0 to {num_entries}, got {cells}'
    )


def _expect_range(name, indices, size):
  if np.any(indices < 0) or np.any(indices >= size):
    raise ValueError(
      f'expected {name} in [0, {size}), got [{indices.min()}, {indices.max()}]'
    )
