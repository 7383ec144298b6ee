"""Pure JAX implementation for any device: writes the dense weight out.

Each product writes the weight of its layer once, by a sorted scatter without
duplicates in the compute dtype, and discards it after one dense product on the
matrix units, which sum bfloat16 products in float32. The gradient is a dense
product too, of which the entries of B are gathered at once.

Barriers, as in `jax.checkpoint`, keep XLA from holding the dense weights and
indices of all layers between forward and backward pass. None is around x, which
XLA may then compute again in the backward pass instead of keeping it.

Arguments and shapes of the products: `kernels.products`.
"""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from sparsity.kernels.structure import BLOCK
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import matrix_shape
from sparsity.kernels.structure import num_strips
from sparsity.kernels.structure import strip_size

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# The weight's gradient: a convolution with batch and channels exchanged.
_GRADIENT_DIMENSIONS = ('CHWN', 'IHWO', 'HWNC')


def forward(x, values, active, shape, window, precision=None):
  """Returns y [batch, height, width, out]."""
  dtype = jnp.result_type(x, values)
  values, active = lax.optimization_barrier((values.astype(dtype), active))
  weight = _write_out(values, active, shape)
  return _convolve(x.astype(dtype), weight, window, precision)


def input_gradient(
  dy, values, active, shape, window, image_size, precision=None
):
  """Returns dx [batch, *image_size, in]."""
  dtype = jnp.result_type(dy, values)
  dy, values, active = lax.optimization_barrier(
    (dy.astype(dtype), values.astype(dtype), active)
  )
  weight = _write_out(values, active, shape)
  x = jax.ShapeDtypeStruct((*dy.shape[:-3], *image_size, shape[2]), dy.dtype)
  pull = jax.linear_transpose(
    lambda x: _convolve(x, weight, window, precision), x
  )
  return pull(dy)[0]


def weight_gradient(x, dy, active, shape, window, precision=None):
  """Returns dvalues [k_B], or the dense gradient if `active` is a mask."""
  dtype = jnp.result_type(x, dy)
  dy, active = lax.optimization_barrier((dy.astype(dtype), active))
  x = x.astype(dtype)
  if _is_pixel(x, window):
    axes = tuple(range(x.ndim - 1))
    gradient = jnp.tensordot(
      x,
      dy,
      (axes, axes),
      precision=precision,
      preferred_element_type=jnp.float32,
    ).reshape(shape)
  else:
    gradient = lax.conv_general_dilated(
      x,
      dy,
      (1, 1),
      [
        (before, size + (steps - 1) * stride - length - before)
        for (before, _), size, steps, stride, length in zip(
          window.padding,
          window.size,
          dy.shape[1:3],
          window.stride,
          x.shape[1:3],
          strict=True,
        )
      ],
      rhs_dilation=window.stride,
      dimension_numbers=_GRADIENT_DIMENSIONS,
      precision=precision,
      preferred_element_type=jnp.float32,
    )
  if not isinstance(active, Structure):
    return gradient
  at = active.columns * np.int32(shape[3])
  at = at + _outputs(active, shape)
  return (
    gradient.reshape(-1)
    .at[at]
    .get(unique_indices=True, mode='promise_in_bounds')
  )


def _is_pixel(x, window):
  return window.size == x.shape[-3:-1] == (1, 1)


def _convolve(x, weight, window, precision):
  if _is_pixel(x, window):
    return jnp.dot(x, weight[0, 0], precision=precision)
  return lax.conv_general_dilated(
    x,
    weight,
    window.stride,
    window.padding,
    dimension_numbers=_DIMENSIONS,
    precision=precision,
  )


def _write_out(values, active, shape):
  """Returns the weight [kh, kw, in, out], zero outside A."""
  if not isinstance(active, Structure):
    return jnp.where(active, values, 0)
  # Entries ascend in an array of cells, in tiles of BLOCK outputs and a strip.
  num_inputs, num_outputs = matrix_shape(shape)
  size = active.t_columns.shape[0]
  strip = strip_size((num_inputs, num_outputs), size)
  strips, width = num_strips(num_inputs, strip), min(strip, num_inputs)
  column = lax.rem(active.columns[:size], np.int32(strip))
  at = _cells(active)[:size] * np.int32(width) + column
  cells = jnp.zeros(num_outputs * strips * width, values.dtype)
  cells = cells.at[at].set(
    values[:size],
    indices_are_sorted=True,
    unique_indices=True,
    mode='promise_in_bounds',
  )
  rest = num_outputs % BLOCK  # outputs of the last block
  full = (num_outputs - rest) * strips * width
  rows = [
    part.reshape(-1, strips, outputs, width).swapaxes(1, 2)
    for part, outputs in ((cells[:full], BLOCK), (cells[full:], rest))
    if part.size
  ]
  rows = [part.reshape(-1, strips * width) for part in rows]
  return jnp.concatenate(rows)[:, :num_inputs].T.reshape(shape)


def _cells(active):
  """Returns int32 [k_B], the cell of each entry."""
  starts = jnp.zeros(active.columns.shape, np.int32)
  starts = starts.at[active.cells[1:-1]].add(
    1, indices_are_sorted=True, mode='drop'
  )
  return jnp.cumsum(starts, dtype=np.int32)


def _outputs(active, shape):
  """Returns int32 [k_B], the output of each entry."""
  num_inputs, num_outputs = matrix_shape(shape)
  strip = strip_size((num_inputs, num_outputs), active.t_columns.shape[0])
  strips = np.int32(num_strips(num_inputs, strip))
  cell = lax.rem(_cells(active), np.int32(num_outputs) * strips)
  first = lax.div(cell, BLOCK * strips) * BLOCK
  block = jnp.minimum(np.int32(num_outputs) - first, BLOCK)
  return first + lax.rem(cell - first * strips, block)
