"""Pure JAX implementation for any device: writes the dense weight out.

Each product writes the weight of its layer once, by a scatter without
duplicates in the compute dtype, and discards it after one dense product, which
accelerators are made for. XLA sums bfloat16 products in float32.

Arguments and shapes of the products: `kernels.products`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import matrix_shape
from sparsity.kernels.structure import outputs_of

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def forward(x, values, active, shape, window):
  """Returns y [batch, height, width, out]."""
  x, values = _promote(x, values)
  return _convolve(x, _write_out(values, active, shape), window)


def input_gradient(dy, values, active, shape, window, image_size):
  """Returns dx [batch, *image_size, in]."""
  dy, values = _promote(dy, values)
  weight = _write_out(values, active, shape)
  x = jax.ShapeDtypeStruct((dy.shape[0], *image_size, shape[2]), dy.dtype)
  return jax.linear_transpose(lambda x: _convolve(x, weight, window), x)(dy)[0]


def weight_gradient(x, dy, active, shape, window):
  """Returns dvalues [k_B], or the dense gradient if `active` is a mask."""
  x, dy = _promote(x, dy)
  if _is_pixel(x, window):
    gradient = jnp.dot(
      x[:, 0, 0].T,
      dy[:, 0, 0],
      precision='highest',
      preferred_element_type=jnp.float32,
    ).reshape(shape)
  else:
    x, dy = (a.astype(jnp.float32) for a in (x, dy))
    weight = jax.ShapeDtypeStruct(shape, jnp.float32)
    pull = jax.linear_transpose(lambda w: _convolve(x, w, window), weight)
    gradient = pull(dy)[0]
  if not isinstance(active, Structure):
    return gradient
  at = active.columns * np.int32(shape[3])
  at = at + outputs_of(active, matrix_shape(shape))
  return gradient.reshape(-1).at[at].get(mode='promise_in_bounds')


def _promote(*arrays):
  dtype = jnp.result_type(*arrays)
  # As in `jax.checkpoint`, the barrier keeps XLA from holding the dense weights
  # of all layers between forward and backward pass; no effect on a CPU.
  return jax.lax.optimization_barrier([x.astype(dtype) for x in arrays])


def _is_pixel(x, window):
  return window.size == x.shape[1:3] == (1, 1)


def _convolve(x, weight, window):
  if _is_pixel(x, window):
    y = jnp.dot(x[:, 0, 0], weight[0, 0], precision='highest')
    return y[:, None, None]
  return jax.lax.conv_general_dilated(
    x, weight, window.stride, window.padding, dimension_numbers=_DIMENSIONS
  )


def _write_out(values, active, shape):
  """Returns the weight [kh, kw, in, out], zero outside A."""
  if not isinstance(active, Structure):
    return jnp.where(active, values, 0)
  # Output-major like the entries, so that memory is accessed in order.
  matrix, size = matrix_shape(shape), active.t_columns.shape[0]
  at = outputs_of(active, matrix)[:size] * np.int32(matrix[0])
  weight = jnp.zeros(matrix[0] * matrix[1], values.dtype)
  weight = weight.at[at + active.columns[:size]].set(
    values[:size], unique_indices=True, mode='promise_in_bounds'
  )
  return weight.reshape(matrix[::-1]).T.reshape(shape)
