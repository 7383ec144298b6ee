"""Pure JAX, for any device: some rows of the weight at a time.

A block of outputs is written out densely, multiplied, and forgotten; so the
memory is that of the entries and one block, and the speed that of the dense
product, which accelerators are made for. On the CPU, where a sparse product in
the CSR format beats that at low densities, it takes its place.
"""

from collections.abc import Callable

import jax
from jax.experimental import sparse
import jax.numpy as jnp

from sparsity.kernels import reference
from sparsity.kernels.geometry import Window
from sparsity.kernels.structure import Structure

BLOCK_SIZE = 2**20  # weights written out at once
CHUNK = 2**14  # entries of a block handled at once
# Up to this density the CSR product is the faster one on a CPU.
CSR_DENSITY = 0.2


def _block_rows(num_inputs: int, num_outputs: int) -> int:
  """Returns how many outputs make a block: at most an eighth of them."""
  rows = min(BLOCK_SIZE // max(num_inputs, 1), -(-num_outputs // 8))
  return max(rows, 1)


def _outputs(s: Structure) -> jax.Array:
  """Returns the output of each entry, [k_B]."""
  return jnp.repeat(
    jnp.arange(len(s.split), dtype=jnp.int32),
    jnp.diff(s.rows),
    total_repeat_length=len(s.columns),
  )


def _visit(
  s: Structure,
  outputs: jax.Array,
  first: jax.Array,
  num_rows: int,
  visit: Callable,
  state,
):
  """Folds `visit(state, begin, row, column)` over the entries of a block.

  Entries come in chunks of constant size, so the last chunk of a block runs
  over into the next block; there `row` is at least `num_rows`.
  """
  num_entries = len(s.columns)
  chunk = min(CHUNK, num_entries)
  last = jnp.minimum(first + num_rows, len(s.split))

  def step(carry):
    start, state = carry
    # The last chunk of all begins earlier, or it would reach beyond the end.
    begin = jnp.minimum(start, num_entries - chunk)
    row = jax.lax.dynamic_slice(outputs, (begin,), (chunk,)) - first
    column = jax.lax.dynamic_slice(s.columns, (begin,), (chunk,))
    row = jnp.where(row < 0, num_rows, row)  # of the block before
    return start + chunk, visit(state, begin, row, column)

  if not num_entries:
    return state
  carry = (s.rows[first], state)
  return jax.lax.while_loop(lambda c: c[0] < s.rows[last], step, carry)[1]


def _dense_rows(values, s, outputs, first, num_rows, num_inputs):
  """Returns [num_inputs, num_rows] of the weight, zero but for A."""

  def write(block, begin, row, column):
    chunk = jax.lax.dynamic_slice(values, (begin,), row.shape)
    place = begin + jnp.arange(len(row), dtype=jnp.int32)
    in_forward = place < s.split[jnp.minimum(row + first, len(s.split) - 1)]
    row = jnp.where(in_forward, row, num_rows)
    return block.at[row, column].set(chunk, mode='drop')

  block = jnp.zeros((num_rows, num_inputs), jnp.float32)
  return _visit(s, outputs, first, num_rows, write, block).T


def _blocks(num_inputs, num_outputs):
  num_rows = _block_rows(num_inputs, num_outputs)
  return num_rows, jnp.arange(0, num_outputs, num_rows, dtype=jnp.int32)


def _padded(dy, num_rows):
  """Returns dy with outputs up to a whole number of blocks."""
  extra = -dy.shape[-1] % num_rows
  return jnp.pad(dy, [(0, 0)] * (dy.ndim - 1) + [(0, extra)])


def _is_plain(window: Window) -> bool:
  return window.size == window.stride == (1, 1) and not any(
    sum(window.padding, ())
  )


def _uses_csr(s: Structure, num_inputs: int) -> bool:
  size = num_inputs * len(s.split)
  return 0 < len(s.t_columns) <= CSR_DENSITY * size


def forward(
  x: jax.Array, values: jax.Array, structure: Structure, window: Window
) -> jax.Array:
  """Returns y [batch, height, width, out] in float32."""
  x, values = x.astype(jnp.float32), values.astype(jnp.float32)
  if _is_plain(window) and _uses_csr(structure, x.shape[-1]):
    return jax.lax.platform_dependent(
      x, values, structure, cpu=_forward_csr, default=_forward_plain
    )
  return _forward_blocks(x, values, structure, window)


def _forward_plain(x, values, s):
  window = Window((1, 1), (1, 1), ((0, 0), (0, 0)))
  return _forward_blocks(x, values, s, window)


def _forward_blocks(x, values, s, window):
  channels, num_outputs = x.shape[-1], len(s.split)
  num_inputs = window.size[0] * window.size[1] * channels
  num_rows, firsts = _blocks(num_inputs, num_outputs)
  outputs = _outputs(s)

  def multiply(first):
    weight = _dense_rows(values, s, outputs, first, num_rows, num_inputs)
    weight = weight.reshape(*window.size, channels, num_rows)
    return reference.convolve(x, weight, window)

  y = jax.lax.map(multiply, firsts)  # [blocks, batch, height, width, rows]
  y = jnp.moveaxis(y, 0, 3)
  return y.reshape(*y.shape[:3], -1)[..., :num_outputs]


def _forward_csr(x, values, s):
  num_inputs, num_outputs = x.shape[-1], len(s.split)
  counts = s.split - s.rows[:-1]
  ends = jnp.cumsum(counts, dtype=jnp.int32)
  starts = jnp.concatenate([jnp.zeros(1, jnp.int32), ends])
  num_forward = len(s.t_columns)
  output = jnp.repeat(
    jnp.arange(num_outputs, dtype=jnp.int32),
    counts,
    total_repeat_length=num_forward,
  )
  places = jnp.arange(num_forward, dtype=jnp.int32)
  places = places + (s.rows[:-1] - starts[:-1])[output]
  weight = sparse.BCSR(
    (values[places], s.columns[places], starts),
    shape=(num_outputs, num_inputs),
  )
  y = weight @ x.reshape(-1, num_inputs).T
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
  if _is_plain(window) and _uses_csr(structure, image[-1]):
    return jax.lax.platform_dependent(
      dy,
      values,
      structure,
      cpu=_input_gradient_csr,
      default=lambda *args: _input_gradient_blocks(*args, window, image),
    )
  return _input_gradient_blocks(dy, values, structure, window, image)


def _input_gradient_csr(dy, values, s):
  num_inputs, num_outputs = len(s.t_rows) - 1, len(s.split)
  weight = sparse.BCSR(
    (values[s.t_entries], s.t_columns, s.t_rows),
    shape=(num_inputs, num_outputs),
  )
  dx = weight @ dy.reshape(-1, num_outputs).T
  return dx.T.reshape(*dy.shape[:-1], num_inputs)


def _input_gradient_blocks(dy, values, s, window, image):
  num_inputs = window.size[0] * window.size[1] * image[-1]
  num_rows, firsts = _blocks(num_inputs, len(s.split))
  dy = _padded(dy, num_rows)
  x = jax.ShapeDtypeStruct((dy.shape[0], *image), jnp.float32)
  outputs = _outputs(s)

  def add(dx, first):
    weight = _dense_rows(values, s, outputs, first, num_rows, num_inputs)
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
  s = structure
  x, dy = x.astype(jnp.float32), dy.astype(jnp.float32)
  num_inputs = window.size[0] * window.size[1] * x.shape[-1]
  num_rows, firsts = _blocks(num_inputs, len(s.split))
  dy = _padded(dy, num_rows)
  weight = jax.ShapeDtypeStruct(
    (*window.size, x.shape[-1], num_rows), jnp.float32
  )
  outputs = _outputs(s)

  def sample(dvalues, first):
    part = jax.lax.dynamic_slice_in_dim(dy, first, num_rows, axis=3)
    pull = jax.linear_transpose(
      lambda weight: reference.convolve(x, weight, window), weight
    )
    block = pull(part)[0].reshape(num_inputs, num_rows)

    def read(dvalues, begin, row, column):
      old = jax.lax.dynamic_slice(dvalues, (begin,), row.shape)
      new = block[column, jnp.minimum(row, num_rows - 1)]
      new = jnp.where(row < num_rows, new, old)
      return jax.lax.dynamic_update_slice(dvalues, new, (begin,))

    return _visit(s, outputs, first, num_rows, read, dvalues), None

  dvalues = jnp.zeros(s.columns.shape, jnp.float32)
  return jax.lax.scan(sample, dvalues, firsts)[0]
