"""A layer as all kernels read it: indices of active entries, and a window.

Sets change at refreshes only, and only there are arrays of the dense weight's
size traversed, see `kernels.host`.

Shapes: in, out: the weight's two axes; k_A, k_B: number of entries of the
forward set A and of the backward set B, which contains A.
"""

from collections.abc import Sequence
import functools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# 'SAME', 'VALID', or ((top, bottom), (left, right)).
Padding = str | Sequence[Sequence[int]]
Array = jax.Array | np.ndarray

BLOCK = 128  # outputs per block
# The shortest strip has 128 inputs. The length doubles until a cell has this
# many entries of A on average, or until the longest strip is reached.
ENTRIES_PER_CELL = 8
LONGEST_STRIP = 1024
_LARGEST = np.iinfo(np.int32).max


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

  cells: Array  # int32 [2 cells + 1]: cell starts, of A, then of B - A
  columns: Array  # int32 [k_B]: input of each entry
  t_cells: Array  # int32 [t_cells + 1]: start of each transposed cell
  t_columns: Array  # int32 [k_A]: output of each entry of A
  t_entries: Array  # int32 [k_A]: index of that entry in the values


def is_traced(tree: Any) -> bool:
  """Returns whether a JAX transformation traces any array of a tree."""
  return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def to_numpy(tree: Any) -> Any:
  """Returns a tree with NumPy arrays; a traced tree as it is."""
  return tree if is_traced(tree) else jax.tree.map(np.asarray, tree)


def on_cpu(fn: Any) -> Any:
  """Returns `fn` on NumPy arrays, computed on the CPU; traced if under jit."""

  def run(*args, **kwargs):
    if is_traced(args):
      return fn(*args, **kwargs)
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      return to_numpy(fn(*to_numpy(args), **kwargs))

  return run


def strip_size(shape: Sequence[int], num_forward: int) -> int:
  """Returns the number of inputs (outputs if transposed) of a strip."""
  size = BLOCK
  while (
    size < LONGEST_STRIP
    and size * num_forward < ENTRIES_PER_CELL * math.prod(shape)
  ):
    size *= 2
  return size


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
  """Returns a weight's shape as a matrix: (all axes but the last, outputs)."""
  return math.prod(shape[:-1]), shape[-1]


def num_strips(num_columns: int, strip: int) -> int:
  """Returns the number of strips, which is the number of cells per row."""
  return -(-num_columns // strip)


def outputs_of(s: Structure, shape: Sequence[int]) -> Any:
  """Returns int32 [k_B], the output of each entry of an [in, out] weight."""
  strips = num_strips(shape[0], strip_size(shape, s.t_columns.shape[0]))
  cell = np.arange(strips * shape[1], dtype=np.int32)
  first = cell // (BLOCK * max(strips, 1)) * BLOCK
  outputs = first + (cell - first * strips) % (shape[1] - first).clip(max=BLOCK)
  outputs = np.concatenate([outputs, outputs])
  if is_traced(s):
    size = s.columns.shape[0]
    return jnp.repeat(outputs, jnp.diff(s.cells), total_repeat_length=size)
  return np.repeat(outputs, np.diff(s.cells))


def expected_shapes(
  shape: Sequence[int], num_forward: int, num_backward: int
) -> dict[str, tuple[int]]:
  """Returns the array shapes of a structure with k_A and k_B entries."""
  strip = strip_size(shape, num_forward)
  return dict(
    cells=(2 * num_strips(shape[0], strip) * shape[1] + 1,),
    columns=(num_backward,),
    t_cells=(num_strips(shape[1], strip) * shape[0] + 1,),
    t_columns=(num_forward,),
    t_entries=(num_forward,),
  )


@functools.partial(jax.jit, static_argnames='counts')
def from_traced_masks(
  forward: jax.Array, backward: jax.Array, *, counts: tuple[int, int]
) -> Structure:
  """Returns the structure of two nested masks with (k_A, k_B) entries."""
  shape = forward.shape
  num_forward, num_backward = counts
  strip = strip_size(shape, num_forward)
  a, more = (_arrange(x.T, strip) for x in (forward, backward & ~forward))
  t = _arrange(forward, strip)

  def entries(mask, number):  # flat indices into the mask, and their columns
    at = jnp.flatnonzero(mask, size=number)
    strips = mask.shape[1]
    return at, at // (BLOCK * strip) % strips * strip + at % strip

  _, columns = entries(a, num_forward)
  _, more_columns = entries(more, num_backward - num_forward)
  t_at, t_columns = entries(t, num_forward)
  # Rank of each entry in the order of `a`, rearranged to the order of `t`.
  rank = jnp.cumsum(a.reshape(-1), dtype=np.int32) - 1
  rank = rank.reshape(a.shape).swapaxes(1, 2)
  rank = rank.reshape(rank.shape[0] * BLOCK, rank.shape[2] * strip)
  rank = rank[: shape[1], : shape[0]].T
  numbers = [_counts(x, shape[1]) for x in (a, more)]
  arrays = (
    _starts(jnp.concatenate(numbers)),
    jnp.concatenate([columns, more_columns]),
    _starts(_counts(t, shape[0])),
    t_columns,
    _arrange(rank, strip).reshape(-1)[t_at],
  )
  return Structure(*(array.astype(np.int32) for array in arrays))


def _arrange(x, strip):
  """Returns [rows, columns] as [blocks, strips, BLOCK, strip], padded."""
  rows, columns = num_strips(x.shape[0], BLOCK), num_strips(x.shape[1], strip)
  padding = (0, rows * BLOCK - x.shape[0]), (0, columns * strip - x.shape[1])
  return jnp.pad(x, padding).reshape(rows, BLOCK, columns, strip).swapaxes(1, 2)


def _counts(mask, num_rows):
  """Returns the number of entries of each cell."""
  counts = mask.sum(-1, dtype=np.int32)  # [blocks, strips, BLOCK]
  full = num_rows // BLOCK
  last = counts[full:, :, : num_rows % BLOCK]
  return jnp.concatenate([counts[:full].reshape(-1), last.reshape(-1)])


def _starts(counts):
  total = jnp.cumsum(counts, dtype=np.int32)
  return jnp.concatenate([jnp.zeros(1, np.int32), total])


def check_num_entries(shape: tuple[int, ...]) -> None:
  """Raises ValueError if int32 cannot index the entries of a weight."""
  size = math.prod(shape)
  if size > _LARGEST:
    raise ValueError(
      f'expected a weight of fewer than 2^31 entries, got {size} of shape '
      f'{tuple(shape)}: indices are int32, so split the layer or use masked '
      'storage'
    )


class Window(NamedTuple):
  """Size, stride and padding of a convolution's kernel."""

  size: tuple[int, ...]
  stride: tuple[int, ...]
  padding: tuple[tuple[int, ...], ...]

  def output_size(self, height: int, width: int) -> tuple[int, int]:
    """Returns the height and width of the result."""
    result = []
    for axis, length in enumerate((height, width)):
      reach = length + sum(self.padding[axis]) - self.size[axis]
      result.append(max(0, reach // self.stride[axis] + 1))
    return result[0], result[1]


def make_window(
  image_size: Sequence[int],
  kernel_size: Sequence[int],
  stride: int | Sequence[int],
  padding: Padding,
) -> Window:
  """Returns the window of a convolution, with explicit padding.

  Example:
    >>> make_window((28, 28), (3, 3), 2, 'SAME').padding
    ((0, 1), (0, 1))

  Raises:
    ValueError: If stride or padding is malformed.
  """
  strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
  if len(strides) != 2 or min(strides) < 1:
    raise ValueError(f'expected one or two positive strides, got {stride}')
  if isinstance(padding, str):
    if padding not in ('SAME', 'VALID'):
      raise ValueError(
        f"expected padding 'SAME', 'VALID' or two pairs, got {padding!r}"
      )
    padding = jax.lax.padtype_to_pads(image_size, kernel_size, strides, padding)
  pads = tuple(tuple(int(pad) for pad in pair) for pair in padding)
  if [len(pair) for pair in pads] != [2, 2] or min(min(pads)) < 0:
    raise ValueError(
      f'expected padding ((top, bottom), (left, right)), got {padding}'
    )
  return Window(tuple(kernel_size), strides, pads)


PIXEL = Window((1, 1), (1, 1), ((0, 0), (0, 0)))  # of a matrix product
