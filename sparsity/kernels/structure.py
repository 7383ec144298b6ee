"""Indices of the active entries of a weight, as all kernels read them.

Shapes: in, out: the weight's two axes; k_A, k_B: number of entries of the
forward set A and of the backward set B, which contains A.
"""

import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 128  # outputs per block
# The shortest strip has 128 inputs. The length doubles until a cell has this
# many entries of A on average, or until the longest strip is reached.
ENTRIES_PER_CELL = 8
LONGEST_STRIP = 1024


class Structure(NamedTuple):
  """Active entries of a dense [in, out] weight, strip by strip.

  A cell is one output and one strip of inputs (`strip_size`) and holds its
  entries by ascending input. Cells are ordered by block of 128 outputs, then by
  strip, then by output, so that a strip of inputs stays in the L1 cache while
  all outputs of a block read it. The cells of A come first, followed by the
  cells of B minus A; the first k_A entries are therefore those of A.

  The transposed arrays (`t_`) list A alone, inputs and outputs exchanged.

  `k_A` and `k_B` are the lengths of `t_columns` and `columns` and thus static;
  the cell boundaries are data. The order depends on the shape and on k_A only,
  never on the machine.

  The [height, width, channels in, channels out] weight of a convolution is
  viewed as [height * width * channels in, channels out].
  """

  cells: jax.Array  # int32 [2 cells + 1]: cell starts, of A, then of B - A
  columns: jax.Array  # int32 [k_B]: input of each entry
  t_cells: jax.Array  # int32 [t_cells + 1]: start of each transposed cell
  t_columns: jax.Array  # int32 [k_A]: output of each entry of A
  t_entries: jax.Array  # int32 [k_A]: index of that entry in the values


def strip_size(shape: tuple[int, int], num_forward: int) -> int:
  """Returns the number of inputs (outputs if transposed) of a strip.

  Example:
    >>> strip_size((1000, 1000), 100_000), strip_size((1000, 1000), 25_000)
    (128, 512)
  """
  size = BLOCK
  while (
    size < LONGEST_STRIP
    and size * num_forward < ENTRIES_PER_CELL * math.prod(shape)
  ):
    size *= 2
  return size


def num_strips(num_columns: int, strip: int) -> int:
  """Returns the number of strips, which is the number of cells per row."""
  return -(-num_columns // strip)


def cell_of(row: Any, column: Any, shape: tuple[int, int], strip: int) -> Any:
  """Returns the cells of entries (arrays) of a [rows, columns] weight."""
  strips = num_strips(shape[1], strip)
  first = row // BLOCK * BLOCK
  rows = (shape[0] - first).clip(max=BLOCK)  # in the block
  return first * strips + column // strip * rows + row - first


def row_of(cell: Any, shape: tuple[int, int], strip: int) -> Any:
  """Returns the rows of cells (an array): the inverse of `cell_of`."""
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


def expected_shapes(
  shape: tuple[int, int], num_forward: int, num_backward: int
) -> Structure:
  """Returns the array shapes of a structure with k_A and k_B entries."""
  strip = strip_size(shape, num_forward)
  return Structure(
    cells=(2 * num_strips(shape[0], strip) * shape[1] + 1,),
    columns=(num_backward,),
    t_cells=(num_strips(shape[1], strip) * shape[0] + 1,),
    t_columns=(num_forward,),
    t_entries=(num_forward,),
  )
