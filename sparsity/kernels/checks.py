"""What the products are given: shapes and types, checked before any work."""

import math

import jax.numpy as jnp

from sparsity.kernels.geometry import Window
from sparsity.kernels.structure import expected_shapes

FLOATS = (jnp.float32, jnp.bfloat16)


def check_weight(structure, shape, values=None):
  """Raises unless structure and values fit an [in, out] weight."""
  if len(shape) != 2:
    raise ValueError(f'expected the shape (in, out) of a weight, got {shape}')
  num_backward, num_forward = structure.columns.size, structure.t_columns.size
  expected = expected_shapes(shape, num_forward, num_backward)
  for field, array in structure._asdict().items():
    if array.shape != getattr(expected, field) or array.dtype != jnp.int32:
      raise ValueError(
        f'expected {field} int32 {getattr(expected, field)} for a weight of '
        f'shape {tuple(shape)}, got {array.dtype} {array.shape}'
      )
  if values is not None:
    check_float('values', values)
    if values.shape != structure.columns.shape:
      raise ValueError(
        f'expected values of shape {structure.columns.shape}, got '
        f'{values.shape}'
      )


def check_conv(structure, shape, values=None):
  """Raises unless structure and values fit a convolution's weight."""
  if len(shape) != 4:
    raise ValueError(
      f'expected the shape (kh, kw, channels in, channels out), got {shape}'
    )
  check_weight(structure, (math.prod(shape[:3]), shape[3]), values)


def check_float(name, array):
  """Raises unless an array is of a type that the kernels serve."""
  if array.dtype not in FLOATS:
    raise TypeError(
      f'expected {name} in float32 or bfloat16, got {array.dtype}'
    )


def check_last(name, array, size):
  """Raises unless an array is [..., size]."""
  check_float(name, array)
  if array.ndim < 1 or array.shape[-1] != size:
    raise ValueError(f'expected {name} [..., {size}], got {array.shape}')


def check_image(name, array, channels):
  """Raises unless an array is [batch, height, width, channels]."""
  check_float(name, array)
  if array.ndim != 4 or array.shape[-1] != channels:
    raise ValueError(
      f'expected {name} [batch, height, width, {channels}], got '
      f'{array.shape}: feature groups and other layouts need masked weights'
    )


def check_size(dy, window: Window, image_size):
  """Raises unless dy is as large as the result of a convolution."""
  expected = window.output_size(*image_size)
  if dy.shape[1:3] != expected:
    raise ValueError(
      f'expected dy of height and width {expected} for an image of '
      f'{tuple(image_size)}, got {dy.shape}'
    )
