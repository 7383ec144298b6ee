"""Windows of convolutions, and shape and dtype checks of the products."""

from collections.abc import Sequence
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import expected_shapes

# 'SAME', 'VALID', or ((top, bottom), (left, right)).
Padding = str | Sequence[tuple[int, int]]

FLOATS = (jnp.float32, jnp.bfloat16)


class Window(NamedTuple):
  """Size, stride and padding of a convolution's kernel."""

  size: tuple[int, int]
  stride: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]

  def output_size(self, height: int, width: int) -> tuple[int, int]:
    """Returns the height and width of the result."""
    result = []
    for axis, length in enumerate((height, width)):
      reach = length + sum(self.padding[axis]) - self.size[axis]
      result.append(max(0, reach // self.stride[axis] + 1))
    return result[0], result[1]


def make_window(
  image_size: tuple[int, int],
  kernel_size: tuple[int, int],
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


def check_weight(active, shape, values=None):
  """Raises unless structure or mask, and values, match [kh, kw, in, out]."""
  if len(shape) != 4:
    raise ValueError(
      f'expected the shape (kh, kw, channels in, channels out), got {shape}'
    )
  if values is not None:
    _check_float('values', values)
  if not isinstance(active, Structure):
    if active.shape != tuple(shape) or active.dtype != bool:
      raise ValueError(
        'expected a weight [kh, kw, channels in, channels out] and a boolean '
        f'mask of its shape, got {shape} and {active.dtype} {active.shape}'
      )
    return
  matrix = math.prod(shape[:3]), shape[3]
  num_backward, num_forward = active.columns.size, active.t_columns.size
  expected = expected_shapes(matrix, num_forward, num_backward)
  for field, array in active._asdict().items():
    if array.shape != getattr(expected, field) or array.dtype != jnp.int32:
      raise ValueError(
        f'expected {field} int32 {getattr(expected, field)} for a weight of '
        f'shape {matrix}, got {array.dtype} {array.shape}'
      )
  if values is not None and values.shape != active.columns.shape:
    raise ValueError(
      f'expected values of shape {active.columns.shape}, got {values.shape}'
    )


def check_image(name, array, channels):
  """Raises unless an array is [batch, height, width, channels]."""
  _check_float(name, array)
  if array.ndim != 4 or array.shape[-1] != channels:
    raise ValueError(
      f'expected {name} [batch, height, width, {channels}], got '
      f'{array.shape}: use masked weights for feature groups and other layouts'
    )


def check_size(dy, window: Window, image_size):
  """Raises unless dy has the height and width of the convolution's result."""
  expected = window.output_size(*image_size)
  if dy.shape[1:3] != expected:
    raise ValueError(
      f'expected dy of height and width {expected} for an image of '
      f'{tuple(image_size)}, got {dy.shape}'
    )


def _check_float(name, array):
  if array.dtype not in FLOATS:
    raise TypeError(
      f'expected {name} in float32 or bfloat16, got {array.dtype}'
    )
