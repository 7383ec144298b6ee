"""Pure JAX implementation for any device: one block of outputs at a time.

A block of the weight is densified, multiplied and discarded. Memory is that of
the entries plus one block; speed is that of the dense product, which
accelerators are made for. On the CPU, a CSR product replaces it at densities
where that is faster.
"""

from collections.abc import Callable
import functools
import math
from typing import NamedTuple

import jax
from jax.experimental import sparse
import jax.numpy as jnp

from sparsity.kernels import reference
from sparsity.kernels.shapes import Window
from sparsity.kernels.structure import BLOCK
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import cell_of
from sparsity.kernels.structure import num_strips
from sparsity.kernels.structure import outputs_of
from sparsity.kernels.structure import strip_size

BLOCK_SIZE = 2**20  # densified entries of a block
CHUNK = 2**14  # active entries per loop iteration
# Up to this density the CSR product is faster on a CPU.
CSR_DENSITY = 0.2


def _block_rows(num_inputs: int, num_outputs: int) -> int:
  """Returns the number of outputs per block: at most an eighth of them."""
  rows = min(BLOCK_SIZE // max(num_inputs, 1), -(-num_outputs // 8))
  # Multiples of the structure's blocks, to read no entries of other blocks.
  return rows // BLOCK * BLOCK if rows > BLOCK else max(rows, 1)


class _Weight(NamedTuple):
  """A structure, its shape, and the output of each entry."""

  structure: Structure
  shape: tuple[int, int]  # (in, out)
  outputs: jax.Array  # [k_B]

  @property
  def strips(self) -> int:
    """The number of cells per output."""
    strip = strip_size(self.shape, len(self.structure.t_columns))
    return num_strips(self.shape[0], strip)


def _weight(s: Structure, window: Window, num_channels: int, num_outputs: int):
  shape = (window.size[0] * window.size[1] * num_channels, num_outputs)
  return _Weight(s, shape, outputs_of(s, shape))


def _visit(
  w: _Weight,
  part: int,
  first: jax.Array,
  num_rows: int,
  visit: Callable,
  state,
):
  """Folds `visit(state, begin, row, column)` over the entries of a block.

  Chunks have a constant size and may include entries of other blocks; their
  `row` is `num_rows` or more.

  Args:
    w: the weight.
    part: 0 for entries of A, 1 for B minus A.
    first: first output of the block.
    num_rows: number of outputs of the block.
    visit: returns the next state.
    state: initial state.
  """
  s, num_outputs = w.structure, w.shape[1]
  num_entries = len(s.columns)
  chunk = min(CHUNK, num_entries)
  # The structure's blocks that contain these outputs.
  last = jnp.minimum(-(-(first + num_rows) // BLOCK) * BLOCK, num_outputs)
  start, end = (
    s.cells[(part * num_outputs + output) * w.strips]
    for output in (first // BLOCK * BLOCK, last)
  )

  def step(carry):
    start, state = carry
    # Shift the last chunk so that it ends with the entries.
    begin = jnp.minimum(start, num_entries - chunk)
    row = jax.lax.dynamic_slice(w.outputs, (begin,), (chunk,)) - first
    column = jax.lax.dynamic_slice(s.columns, (begin,), (chunk,))
    row = jnp.where(row < 0, num_rows, row)
    return start + chunk, visit(state, begin, row, column)

  if not num_entries:
    return state
  return jax.lax.while_loop(lambda c: c[0] < end, step, (start, state))[1]


def _dense_rows(values, w, first, num_rows):
  """Returns [num_inputs, num_rows] of the weight, zero outside A."""

  def write(block, begin, row, column):
    chunk = jax.lax.dynamic_slice(values, (begin,), row.shape)
    place = begin + jnp.arange(len(row), dtype=jnp.int32)
    row = jnp.where(place < len(w.structure.t_columns), row, num_rows)
    return block.at[row, column].set(chunk, mode='drop')

  block = jnp.zeros((num_rows, w.shape[0]), jnp.float32)
  return _visit(w, 0, first, num_rows, write, block).T


def _blocks(num_inputs, num_outputs):
  num_rows = _block_rows(num_inputs, num_outputs)
  return num_rows, jnp.arange(0, num_outputs, num_rows, dtype=jnp.int32)


def _padded(dy, num_rows):
  """Returns dy with its outputs padded to a multiple of the block."""
  extra = -dy.shape[-1] % num_rows
  return jnp.pad(dy, [(0, 0)] * (dy.ndim - 1) + [(0, extra)])


def _csr_or_blocks(window, shape, csr, blocks, x, values, s):
  """Computes a product in CSR on a CPU, where supported and faster."""
  is_plain = window.size == window.stride == (1, 1) and not any(
    sum(window.padding, ())
  )
  is_sparse = 0 < len(s.t_columns) <= CSR_DENSITY * math.prod(shape)
  if is_plain and is_sparse:
    return jax.lax.platform_dependent(x, values, s, cpu=csr, default=blocks)
  return blocks(x, values, s)


def _by_row(cells: jax.Array, size: int, shape: tuple[int, int]):
  """Returns CSR row pointers, and the entries' indices in row order.

  Args:
    cells: starts of the cells of A, and the end of the last one.
    size: k_A.
    shape: (rows, columns) of the weight or its transpose.
  """
  strip = strip_size(shape, size)
  row = jnp.arange(shape[0], dtype=jnp.int32)[:, None]
  strips = num_strips(shape[1], strip)
  column = jnp.arange(strips, dtype=jnp.int32)[None] * strip
  cell = cell_of(
    *jnp.broadcast_arrays(row, column), shape=shape, strip=strip
  ).reshape(-1)
  begins, counts = cells[cell], cells[cell + 1] - cells[cell]
  starts = jnp.concatenate(
    [jnp.zeros(1, jnp.int32), jnp.cumsum(counts, dtype=jnp.int32)]
  )
  moves = jnp.repeat(begins - starts[:-1], counts, total_repeat_length=size)
  return starts[::strips], jnp.arange(size, dtype=jnp.int32) + moves


def forward(
  x: jax.Array,
  values: jax.Array,
  structure: Structure,
  window: Window,
  num_outputs: int,
) -> jax.Array:
  """Returns y [batch, height, width, out] in float32."""
  x, values = x.astype(jnp.float32), values.astype(jnp.float32)
  return _csr_or_blocks(
    window,
    (x.shape[-1], num_outputs),
    functools.partial(_forward_csr, num_outputs=num_outputs),
    functools.partial(_forward_blocks, window=window, num_outputs=num_outputs),
    *(x, values, structure),
  )


def _forward_blocks(x, values, s, *, window, num_outputs):
  w = _weight(s, window, x.shape[-1], num_outputs)
  num_rows, firsts = _blocks(*w.shape)

  def multiply(first):
    weight = _dense_rows(values, w, first, num_rows)
    weight = weight.reshape(*window.size, x.shape[-1], num_rows)
    return reference.convolve(x, weight, window)

  y = jax.lax.map(multiply, firsts)  # [blocks, batch, height, width, rows]
  y = jnp.moveaxis(y, 0, 3)
  return y.reshape(*y.shape[:3], -1)[..., :num_outputs]


def _forward_csr(x, values, s, *, num_outputs):
  shape = (num_outputs, x.shape[-1])
  size = len(s.t_columns)
  rows, places = _by_row(s.cells[: (len(s.cells) + 1) // 2], size, shape)
  weight = sparse.BCSR((values[places], s.columns[places], rows), shape=shape)
  y = weight @ x.reshape(-1, shape[1]).T
  return y.T.reshape(*x.shape[:-1], num_outputs)


def input_gradient(
  dy: jax.Array,
  values: jax.Array,
  structure: Structure,
  window: Window,
  image: tuple[int, int, int],
) -> jax.Array:
  """Returns dx [batch, *image] in float32."""
  dy, values = dy.astype(jnp.float32), values.astype(jnp.float32)
  return _csr_or_blocks(
    window,
    (image[-1], dy.shape[-1]),
    functools.partial(_input_gradient_csr, num_inputs=image[-1]),
    functools.partial(_input_gradient_blocks, window=window, image=image),
    *(dy, values, structure),
  )


def _input_gradient_csr(dy, values, s, *, num_inputs):
  shape = (num_inputs, dy.shape[-1])
  rows, places = _by_row(s.t_cells, len(s.t_columns), shape)
  entries = values[s.t_entries[places]]
  weight = sparse.BCSR((entries, s.t_columns[places], rows), shape=shape)
  dx = weight @ dy.reshape(-1, shape[1]).T
  return dx.T.reshape(*dy.shape[:-1], num_inputs)


def _input_gradient_blocks(dy, values, s, *, window, image):
  w = _weight(s, window, image[-1], dy.shape[-1])
  num_rows, firsts = _blocks(*w.shape)
  dy = _padded(dy, num_rows)
  x = jax.ShapeDtypeStruct((dy.shape[0], *image), jnp.float32)

  def add(dx, first):
    weight = _dense_rows(values, w, first, num_rows)
    weight = weight.reshape(*window.size, image[-1], num_rows)
    part = jax.lax.dynamic_slice_in_dim(dy, first, num_rows, axis=3)
    pull = jax.linear_transpose(
      lambda x: reference.convolve(x, weight, window), x
    )
    return dx + pull(part)[0], None

  return jax.lax.scan(add, jnp.zeros(x.shape, x.dtype), firsts)[0]


def weight_gradient(
  x: jax.Array, dy: jax.Array, structure: Structure, window: Window
) -> jax.Array:
  """Returns dvalues [k_B] in float32."""
  x, dy = x.astype(jnp.float32), dy.astype(jnp.float32)
  w = _weight(structure, window, x.shape[-1], dy.shape[-1])
  num_rows, firsts = _blocks(*w.shape)
  dy = _padded(dy, num_rows)
  weight = jax.ShapeDtypeStruct(
    (*window.size, x.shape[-1], num_rows), jnp.float32
  )

  def sample(dvalues, first):
    part = jax.lax.dynamic_slice_in_dim(dy, first, num_rows, axis=3)
    pull = jax.linear_transpose(
      lambda weight: reference.convolve(x, weight, window), weight
    )
    block = pull(part)[0].reshape(w.shape[0], num_rows)

    def read(dvalues, begin, row, column):
      old = jax.lax.dynamic_slice(dvalues, (begin,), row.shape)
      new = block[column, jnp.minimum(row, num_rows - 1)]
      new = jnp.where(row < num_rows, new, old)
      return jax.lax.dynamic_update_slice(dvalues, new, (begin,))

    for part in (0, 1):
      dvalues = _visit(w, part, first, num_rows, read, dvalues)
    return dvalues, None

  dvalues = jnp.zeros(structure.columns.shape, jnp.float32)
  return jax.lax.scan(sample, dvalues, firsts)[0]
