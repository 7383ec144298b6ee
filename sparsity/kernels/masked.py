"""Products with a dense weight and a mask.

`native` reads weight and mask together and multiplies active entries only; the
other implementations write the masked weight out. All are convolutions; a
matrix product is one whose image has a single pixel. Shapes as in `products`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsity.kernels import choice
from sparsity.kernels import native
from sparsity.kernels import reference
from sparsity.kernels import shapes
from sparsity.kernels.shapes import Padding


def masked_conv(
  x: jax.Array,
  weight: jax.Array,
  mask: jax.Array,
  stride: Any,
  padding: Padding,
) -> jax.Array:
  """Returns the convolution of x with `weight` where `mask` is True, else 0.

  Shapes:
    x: [batch, height, width, channels in]; weight and mask:
    [kh, kw, channels in, channels out]; the result:
    [batch, height', width', channels out].

  Raises:
    ValueError: If shapes do not match, or the mask is not boolean.
    TypeError: If x or weight is not float32 or bfloat16.
  """
  _check(weight, mask)
  shapes.check_image('x', x, weight.shape[2])
  window = shapes.make_window(x.shape[1:3], weight.shape[:2], stride, padding)
  dtype = jnp.result_type(x, weight)
  size = window.output_size(*x.shape[1:3])

  def skip(x, weight, mask):
    return native.masked_forward(x, weight, mask, window)

  def write_out(x, weight, mask):
    weight = jnp.where(mask, weight, 0).astype(dtype)
    return _convolve(x.astype(dtype), weight, window)

  shape = (x.shape[0], *size, weight.shape[3])
  return _dispatch(skip, write_out, shape, dtype, x, weight, mask)


def masked_conv_dx(
  dy: jax.Array,
  weight: jax.Array,
  mask: jax.Array,
  image_size: tuple[int, int],
  stride: Any,
  padding: Padding,
) -> jax.Array:
  """Returns the gradient of `masked_conv` with respect to x.

  Shapes:
    dy: [batch, height', width', channels out]; weight and mask as there; the
    result: [batch, *image_size, channels in].
  """
  _check(weight, mask)
  shapes.check_image('dy', dy, weight.shape[3])
  window = shapes.make_window(image_size, weight.shape[:2], stride, padding)
  shapes.check_size(dy, window, image_size)
  dtype = jnp.result_type(dy, weight)
  image = (*image_size, weight.shape[2])
  shape = (dy.shape[0], *image)

  def skip(dy, weight, mask):
    return native.masked_input_gradient(dy, weight, mask, window, image)

  def write_out(dy, weight, mask):
    weight = jnp.where(mask, weight, 0).astype(dtype)
    x = jax.ShapeDtypeStruct(shape, dtype)
    pull = jax.linear_transpose(lambda x: _convolve(x, weight, window), x)
    return pull(dy.astype(dtype))[0]

  return _dispatch(skip, write_out, shape, dtype, dy, weight, mask)


def dense_conv_dw(
  x: jax.Array,
  dy: jax.Array,
  shape: tuple[int, int, int, int],
  stride: Any,
  padding: Padding,
) -> jax.Array:
  """Returns the gradient of `masked_conv` for every entry of the weight.

  Shapes:
    x: [batch, height, width, channels in];
    dy: [batch, height', width', channels out];
    the result: `shape`, (kh, kw, channels in, channels out).
  """
  window = shapes.make_window(x.shape[1:3], shape[:2], stride, padding)
  dtype = jnp.result_type(x, dy)
  pull = jax.linear_transpose(
    lambda weight: _convolve(x.astype(dtype), weight, window),
    jax.ShapeDtypeStruct(shape, dtype),
  )
  return pull(dy.astype(dtype))[0]


def _check(weight, mask):
  shapes.check_float('weight', weight)
  if weight.ndim != 4 or mask.shape != weight.shape or mask.dtype != bool:
    raise ValueError(
      'expected a weight [kh, kw, channels in, channels out] and a boolean '
      f'mask of its shape, got {weight.shape} and {mask.dtype} {mask.shape}'
    )


def _convolve(x, weight, window):
  if window.size == x.shape[1:3] == (1, 1):
    return jnp.dot(x[:, 0, 0], weight[0, 0])[:, None, None]
  return reference.convolve(x, weight, window)


def _dispatch(skip, write_out, shape, dtype, *arguments):
  """Calls the implementation in use, `native` only where it will run."""
  if not all(math.prod(array.shape) for array in arguments) or 0 in shape:
    return jnp.zeros(shape, dtype)  # nothing to sum
  if choice.implementation() != 'native':
    return write_out(*arguments)
  # A program may be lowered here for another platform.
  return jax.lax.platform_dependent(*arguments, cpu=skip, default=write_out)
