"""The one entrance: products of a layer whose weight exists at some entries.

Each function checks shapes and types and hands over to an implementation.

Shapes: in, out: the weight's axes; k_A, k_B: entries of A and of B, in the
order of `Structure`.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp

from sparsity.kernels import checks
from sparsity.kernels import choice
from sparsity.kernels import native
from sparsity.kernels import reference
from sparsity.kernels import xla
from sparsity.kernels.geometry import PIXEL
from sparsity.kernels.geometry import Padding
from sparsity.kernels.geometry import make_window
from sparsity.kernels.structure import Structure


def matmul(
  x: jax.Array,
  values: jax.Array,
  structure: Structure,
  shape: tuple[int, int],
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns y = x W_A, the weight being zero outside A.

  Example:
    >>> import numpy as np
    >>> from sparsity.kernels.structure import from_masks
    >>> mask = np.array([[True, False], [True, True]])
    >>> s = from_masks(mask, mask)  # entries (0, 0), (1, 0), (1, 1)
    >>> matmul(jnp.ones((1, 2)), jnp.array([1.0, 2.0, 3.0]), s, (2, 2))
    Array([[3., 3.]], dtype=float32)

  Shapes:
    x: [..., in]; values: [k_B]; the result: [..., out].

  Args:
    x: float32 or bfloat16.
    values: the entries, float32 or bfloat16; sums are float32 in any case.
    structure: which entries there are.
    shape: (in, out) of the dense weight.
    implementation: 'reference', 'xla' or 'native'; None: see
      `kernels.implementation`.

  Raises:
    ValueError: If shapes do not match each other.
    TypeError: If an array is not float32 or bfloat16.
  """
  checks.check_weight(structure, shape, values=values)
  checks.check_last('x', x, shape[0])
  y = _forward(_pixels(x), values, structure, PIXEL, shape[1], implementation)
  return y.reshape(*x.shape[:-1], shape[1])


def matmul_dx(
  dy: jax.Array,
  values: jax.Array,
  structure: Structure,
  shape: tuple[int, int],
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns dx = dy W_A^T, the gradient of `matmul` for x.

  Shapes:
    dy: [..., out]; values: [k_B]; the result: [..., in].

  Raises:
    ValueError: If shapes do not match each other.
    TypeError: If an array is not float32 or bfloat16.
  """
  checks.check_weight(structure, shape, values=values)
  checks.check_last('dy', dy, shape[1])
  image = (1, 1, shape[0])
  dx = _input_gradient(
    _pixels(dy), values, structure, PIXEL, image, implementation
  )
  return dx.reshape(*dy.shape[:-1], shape[0])


def matmul_dw(
  x: jax.Array,
  dy: jax.Array,
  structure: Structure,
  shape: tuple[int, int],
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns dvalues: x^T dy at every entry of B, those outside A too.

  Shapes:
    x: [..., in]; dy: [..., out]; the result: [k_B].

  Raises:
    ValueError: If shapes do not match each other.
    TypeError: If an array is not float32 or bfloat16.
  """
  checks.check_weight(structure, shape)
  checks.check_last('x', x, shape[0])
  checks.check_last('dy', dy, shape[1])
  if x.shape[:-1] != dy.shape[:-1]:
    raise ValueError(
      'expected x and dy of the same leading shape, got '
      f'{x.shape} and {dy.shape}'
    )
  return _weight_gradient(
    _pixels(x), _pixels(dy), structure, PIXEL, implementation
  )


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
  There are no feature groups and no dilation: masked weights serve there.

  Shapes:
    x: [batch, height, width, channels in]; values: [k_B];
    the result: [batch, height', width', channels out].

  Args:
    x: float32 or bfloat16.
    values: the entries, float32 or bfloat16; sums are float32 in any case.
    structure: which entries there are.
    shape: (kh, kw, channels in, channels out) of the dense weight.
    stride: one number, or one for height and one for width.
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
    implementation: 'reference', 'xla' or 'native'; None: see
      `kernels.implementation`.

  Raises:
    ValueError: If shapes do not match each other, or stride or padding are
      not understood.
    TypeError: If an array is not float32 or bfloat16.
  """
  checks.check_conv(structure, shape, values=values)
  checks.check_image('x', x, shape[2])
  window = make_window(x.shape[1:3], shape[:2], stride, padding)
  return _forward(x, values, structure, window, shape[3], implementation)


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
  """Returns the gradient of `conv` for x.

  Shapes:
    dy: [batch, height', width', channels out]; values: [k_B];
    the result: [batch, *image_size, channels in].

  Raises:
    ValueError: If shapes do not match each other, or stride or padding are
      not understood.
    TypeError: If an array is not float32 or bfloat16.
  """
  checks.check_conv(structure, shape, values=values)
  checks.check_image('dy', dy, shape[3])
  window = make_window(image_size, shape[:2], stride, padding)
  checks.check_size(dy, window, image_size)
  image = (*image_size, shape[2])
  return _input_gradient(dy, values, structure, window, image, implementation)


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
  """Returns the gradient of `conv` for every entry of B.

  Shapes:
    x: [batch, height, width, channels in];
    dy: [batch, height', width', channels out]; the result: [k_B].

  Raises:
    ValueError: If shapes do not match each other, or stride or padding are
      not understood.
    TypeError: If an array is not float32 or bfloat16.
  """
  checks.check_conv(structure, shape)
  checks.check_image('x', x, shape[2])
  checks.check_image('dy', dy, shape[3])
  window = make_window(x.shape[1:3], shape[:2], stride, padding)
  checks.check_size(dy, window, x.shape[1:3])
  if x.shape[0] != dy.shape[0]:
    raise ValueError(f'expected one batch, got {x.shape} and {dy.shape}')
  return _weight_gradient(x, dy, structure, window, implementation)


def _forward(x, values, structure, window, num_outputs, name):
  def call(module):
    return lambda *args: module.forward(*args, window, num_outputs).astype(
      dtype
    )

  dtype = jnp.result_type(x, values)
  size = window.output_size(*x.shape[1:3])
  shape = (x.shape[0], *size, num_outputs)
  return _dispatch(name, call, shape, dtype, x, values, structure)


def _input_gradient(dy, values, structure, window, image, name):
  def call(module):
    return lambda *args: module.input_gradient(*args, window, image).astype(
      dtype
    )

  dtype = jnp.result_type(dy, values)
  shape = (dy.shape[0], *image)
  return _dispatch(name, call, shape, dtype, dy, values, structure)


def _weight_gradient(x, dy, structure, window, name):
  def call(module):
    return lambda *args: module.weight_gradient(*args, window).astype(dtype)

  dtype = jnp.result_type(x, dy)
  shape = structure.columns.shape
  return _dispatch(name, call, shape, dtype, x, dy, structure)


def _dispatch(name, call, shape, dtype, *arguments):
  """Calls the implementation in use; `native` only where it will run."""
  name = choice.implementation(name)
  if not all(math.prod(array.shape) for array in arguments[:2]) or 0 in shape:
    return jnp.zeros(shape, dtype)  # nothing to add up
  if name == 'reference':
    return call(reference)(*arguments)
  if name == 'xla':
    return call(xla)(*arguments)
  # A program may be lowered here for a device that is elsewhere.
  return jax.lax.platform_dependent(
    *arguments, cpu=call(native), default=call(xla)
  )


def _pixels(x: jax.Array) -> jax.Array:
  return x.reshape(math.prod(x.shape[:-1]), 1, 1, x.shape[-1])
