"""Products of a layer with a compact or masked weight.

Each function checks shapes and dtypes and dispatches to an implementation. All
are convolutions: a matrix product is one of images with a single pixel.

Arguments of all functions:
  active: the `Structure` of [kh * kw * in, out] whose entries are the values,
    or a boolean mask of the weight.
  shape: (kh, kw, in, out) of the weight, channels in and out.
  stride: one number, or one each for height and width.
  padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).

Shapes: values: [k_B] in the order of the structure, or the dense weight.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sparsity.kernels import choice
from sparsity.kernels import native
from sparsity.kernels import shapes
from sparsity.kernels import xla
from sparsity.kernels.shapes import Padding
from sparsity.kernels.structure import Structure

Active = Structure | jax.Array
Shape = tuple[int, int, int, int]


def conv(
  x: jax.Array,
  values: jax.Array,
  active: Active,
  shape: Shape,
  *,
  stride: int | Sequence[int],
  padding: Padding,
) -> jax.Array:
  """Returns the convolution of x with the weight on A and zero elsewhere.

  Example:
    >>> import numpy as np
    >>> from sparsity import kernels
    >>> mask = np.array([[True, False], [True, True]])
    >>> s = kernels.from_masks(mask, mask)  # entries (0, 0), (1, 0), (1, 1)
    >>> x, values = jnp.ones((1, 1, 1, 2)), jnp.array([1.0, 2.0, 3.0])
    >>> conv(x, values, s, (1, 1, 2, 2), stride=1, padding='VALID')
    Array([[[[3., 3.]]]], dtype=float32)

  Shapes:
    x: [batch, height, width, in]; the result: [batch, height', width', out].

  Args:
    x: float32 or bfloat16.
    values: float32 or bfloat16; sums are always float32.
    active: see the module's docstring, as for all other arguments.
    shape: see there.
    stride: see there.
    padding: see there.

  Raises:
    ValueError: If shapes do not match, or stride or padding is malformed.
    TypeError: If an array is not float32 or bfloat16.
  """
  shapes.check_weight(active, shape, values)
  shapes.check_image('x', x, shape[2])
  window = shapes.make_window(x.shape[1:3], shape[:2], stride, padding)
  result = (x.shape[0], *window.output_size(*x.shape[1:3]), shape[3])
  return _dispatch('forward', (x, values, active), (shape, window), result)


def conv_dx(
  dy: jax.Array,
  values: jax.Array,
  active: Active,
  shape: Shape,
  *,
  image_size: tuple[int, int],
  stride: int | Sequence[int],
  padding: Padding,
) -> jax.Array:
  """Returns the gradient of `conv` with respect to x.

  Shapes:
    dy: [batch, height', width', out]; the result: [batch, *image_size, in].
  """
  shapes.check_weight(active, shape, values)
  shapes.check_image('dy', dy, shape[3])
  window = shapes.make_window(image_size, shape[:2], stride, padding)
  shapes.check_size(dy, window, image_size)
  return _dispatch(
    'input_gradient',
    (dy, values, active),
    (shape, window, image_size),
    (dy.shape[0], *image_size, shape[2]),
  )


def conv_dw(
  x: jax.Array,
  dy: jax.Array,
  active: Active,
  shape: Shape,
  *,
  stride: int | Sequence[int],
  padding: Padding,
) -> jax.Array:
  """Returns the gradient of `conv` with respect to every entry of B.

  With a mask, that of every entry of the weight, by a dense product.

  Shapes:
    x: [batch, height, width, in]; dy: [batch, height', width', out];
    the result: [k_B], or `shape`.
  """
  shapes.check_weight(active, shape)
  shapes.check_image('x', x, shape[2])
  shapes.check_image('dy', dy, shape[3])
  window = shapes.make_window(x.shape[1:3], shape[:2], stride, padding)
  shapes.check_size(dy, window, x.shape[1:3])
  if x.shape[0] != dy.shape[0]:
    raise ValueError(f'expected one batch, got {x.shape} and {dy.shape}')
  is_compact = isinstance(active, Structure)
  return _dispatch(
    'weight_gradient',
    (x, dy, active),
    (shape, window),
    active.columns.shape if is_compact else shape,
    is_dense=not is_compact,
  )


def _dispatch(product, arrays, options, shape, is_dense=False):
  """Calls a product of the implementation in use; returns [*shape]."""
  dtype = jnp.result_type(*arrays[:2])
  if 0 in (*arrays[0].shape, *arrays[1].shape, *shape):
    return jnp.zeros(shape, dtype)  # nothing to sum

  def call(module):
    function = getattr(module, product)
    return lambda *arrays: function(*arrays, *options).astype(dtype)

  if is_dense or choice.implementation() == 'xla':
    return call(xla)(*arrays)
  # A program may be lowered here for another platform.
  return jax.lax.platform_dependent(
    *arrays, cpu=call(native), default=call(xla)
  )
