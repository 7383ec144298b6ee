"""Products of a layer whose weight exists at its active entries only.

Each function checks shapes and dtypes and dispatches to an implementation.
Matrix products are convolutions of images with a single pixel.

Shapes: in, out: the weight's axes; k_B: entries of B, in the order of
`Structure`.
"""

from collections.abc import Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsity.kernels import choice
from sparsity.kernels import native
from sparsity.kernels import reference
from sparsity.kernels import shapes
from sparsity.kernels import xla
from sparsity.kernels.shapes import Padding
from sparsity.kernels.structure import Structure

_MODULES = {'reference': reference, 'xla': xla}


def matmul(
  x: jax.Array,
  values: jax.Array,
  structure: Structure,
  shape: tuple[int, int],
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns y = x W_A, where W_A is the weight on A and zero elsewhere.

  Example:
    >>> import numpy as np
    >>> from sparsity import kernels
    >>> mask = np.array([[True, False], [True, True]])
    >>> s = kernels.from_masks(mask, mask)  # entries (0, 0), (1, 0), (1, 1)
    >>> matmul(jnp.ones((1, 2)), jnp.array([1.0, 2.0, 3.0]), s, (2, 2))
    Array([[3., 3.]], dtype=float32)

  Shapes:
    x: [..., in]; values: [k_B]; the result: [..., out].

  Args:
    x: float32 or bfloat16.
    values: the entries, float32 or bfloat16; sums are always float32.
    structure: indices of the entries.
    shape: (in, out) of the dense weight.
    implementation: 'reference', 'xla' or 'native'; None: see
      `kernels.implementation`.

  Raises:
    ValueError: If shapes do not match.
    TypeError: If an array is not float32 or bfloat16.
  """
  window = _pixel(shape, implementation)
  shapes.check_last('x', x, shape[0])
  y = conv(_pixels(x), values, structure, **window)
  return y.reshape(*x.shape[:-1], shape[1])


def matmul_dx(
  dy: jax.Array,
  values: jax.Array,
  structure: Structure,
  shape: tuple[int, int],
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns dx = dy W_A^T, the gradient of `matmul` with respect to x.

  Shapes:
    dy: [..., out]; values: [k_B]; the result: [..., in].
  """
  window = _pixel(shape, implementation)
  shapes.check_last('dy', dy, shape[1])
  dx = conv_dx(_pixels(dy), values, structure, image_size=(1, 1), **window)
  return dx.reshape(*dy.shape[:-1], shape[0])


def matmul_dw(
  x: jax.Array,
  dy: jax.Array,
  structure: Structure,
  shape: tuple[int, int],
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns dvalues: x^T dy at every entry of B, inside A or not.

  Shapes:
    x: [..., in]; dy: [..., out]; the result: [k_B].
  """
  window = _pixel(shape, implementation)
  shapes.check_last('x', x, shape[0])
  shapes.check_last('dy', dy, shape[1])
  if x.shape[:-1] != dy.shape[:-1]:
    raise ValueError(
      'expected x and dy of the same leading shape, got '
      f'{x.shape} and {dy.shape}'
    )
  return conv_dw(_pixels(x), _pixels(dy), structure, **window)


def conv(
  x: jax.Array,
  values: jax.Array,
  structure: Structure,
  shape: tuple[int, int, int, int],
  *,
  stride: int | Sequence[int],
  padding: Padding,
  implementation: str | None = None,
) -> jax.Array:
  """Returns the convolution of x with W_A.

  The structure is that of the weight as [kh * kw * channels in, channels out].
  Unsupported: feature groups and dilation; use masked weights.

  Shapes:
    x: [batch, height, width, channels in]; values: [k_B];
    the result: [batch, height', width', channels out].

  Args:
    x: float32 or bfloat16.
    values: the entries, float32 or bfloat16; sums are always float32.
    structure: indices of the entries.
    shape: (kh, kw, channels in, channels out) of the dense weight.
    stride: one number, or one each for height and width.
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
    implementation: 'reference', 'xla' or 'native'; None: see
      `kernels.implementation`.

  Raises:
    ValueError: If shapes do not match, or stride or padding is malformed.
    TypeError: If an array is not float32 or bfloat16.
  """
  shapes.check_weight(structure, shape, values=values)
  shapes.check_image('x', x, shape[2])
  window = shapes.make_window(x.shape[1:3], shape[:2], stride, padding)
  size = window.output_size(*x.shape[1:3])
  return _dispatch(
    implementation,
    'forward',
    (x, values, structure, window, shape[3]),
    (x.shape[0], *size, shape[3]),
  )


def conv_dx(
  dy: jax.Array,
  values: jax.Array,
  structure: Structure,
  shape: tuple[int, int, int, int],
  *,
  image_size: tuple[int, int],
  stride: int | Sequence[int],
  padding: Padding,
  implementation: str | None = None,
) -> jax.Array:
  """Returns the gradient of `conv` with respect to x.

  Shapes:
    dy: [batch, height', width', channels out]; values: [k_B];
    the result: [batch, *image_size, channels in].
  """
  shapes.check_weight(structure, shape, values=values)
  shapes.check_image('dy', dy, shape[3])
  window = shapes.make_window(image_size, shape[:2], stride, padding)
  shapes.check_size(dy, window, image_size)
  image = (*image_size, shape[2])
  return _dispatch(
    implementation,
    'input_gradient',
    (dy, values, structure, window, image),
    (dy.shape[0], *image),
  )


def conv_dw(
  x: jax.Array,
  dy: jax.Array,
  structure: Structure,
  shape: tuple[int, int, int, int],
  *,
  stride: int | Sequence[int],
  padding: Padding,
  implementation: str | None = None,
) -> jax.Array:
  """Returns the gradient of `conv` with respect to every entry of B.

  Shapes:
    x: [batch, height, width, channels in];
    dy: [batch, height', width', channels out]; the result: [k_B].
  """
  shapes.check_weight(structure, shape)
  shapes.check_image('x', x, shape[2])
  shapes.check_image('dy', dy, shape[3])
  window = shapes.make_window(x.shape[1:3], shape[:2], stride, padding)
  shapes.check_size(dy, window, x.shape[1:3])
  if x.shape[0] != dy.shape[0]:
    raise ValueError(f'expected one batch, got {x.shape} and {dy.shape}')
  return _dispatch(
    implementation,
    'weight_gradient',
    (x, dy, structure, window),
    structure.columns.shape,
  )


def _dispatch(implementation, product, arguments, shape):
  """Calls a product of the implementation in use.

  Args:
    implementation: its name, or None.
    product: name of the function.
    arguments: three arrays or trees of arrays, then static arguments.
    shape: of the result.
  """
  name = choice.implementation(implementation)
  arrays, static = arguments[:3], arguments[3:]
  dtype = jnp.result_type(*arguments[:2])
  if 0 in (*arrays[0].shape, *arrays[1].shape, *shape):
    return jnp.zeros(shape, dtype)  # nothing to sum

  def call(module):
    function = getattr(module, product)
    return lambda *arrays: function(*arrays, *static).astype(dtype)

  if name in _MODULES:
    return call(_MODULES[name])(*arrays)
  # A program may be lowered here for another platform.
  return jax.lax.platform_dependent(
    *arrays, cpu=call(native), default=call(xla)
  )


def _pixel(
  shape: tuple[int, int], implementation: str | None
) -> dict[str, Any]:
  """Returns the options with which a convolution is a matrix product."""
  if len(shape) != 2:
    raise ValueError(f'expected the shape (in, out) of a weight, got {shape}')
  return {
    'shape': (1, 1, *shape),
    'stride': 1,
    'padding': 'VALID',
    'implementation': implementation,
  }


def _pixels(x: jax.Array) -> jax.Array:
  return x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
