"""Products with dense, masked and compact weights: one interface for models."""

from collections.abc import Sequence
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from sparsity import kernels
from sparsity import masked
from sparsity.compact import weights as weights_lib

NHWC = ('NHWC', 'HWIO', 'NHWC')

Weight = jax.Array | masked.MaskedWeights | weights_lib.CompactWeights


def matmul(
  x: jax.Array, w: Weight, *, precision: Any = None, dtype: Any = None
) -> jax.Array:
  """Returns x w for a dense, masked or compact weight.

  The gradient of a `MaskedWeights` is dense, with respect to the masked weight.
  The gradient of a `CompactWeights` is that of its values, x^T dy at every
  entry of B, without a dense intermediate.

  Shapes:
    x: [..., in]; w: [in, out]; the result: [..., out].

  Args:
    x: float32 or bfloat16 if w is masked or compact.
    precision: as in `jnp.dot`; native kernels compute in float32.
    dtype: of the product, by default that of x and w together. The gradient of
      w keeps the dtype of w: float32 weights get float32 gradients, whose
      ranking has few ties, of products in bfloat16.

  Raises:
    ValueError: If the shapes do not match; names the layer.
  """
  if not isinstance(w, masked.Weights):
    dot = functools.partial(jnp.dot, precision=precision)

    def weight_gradient(x, dy):
      axes = tuple(range(x.ndim - 1))
      return jnp.tensordot(
        x,
        dy,
        (axes, axes),
        precision=precision,
        preferred_element_type=w.dtype,
      )

    return _product(dot, x, w, dtype, weight_gradient)
  if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
    raise ValueError(
      f'{_name(w)}expected x [..., in] and a weight (in, out), got '
      f'{x.shape} and {w.shape}'
    )
  pixels = x[..., None, None, :]
  weight = (1, 1, *w.shape), kernels.PIXEL
  y = _conv(pixels, *_parts(w), weight, dtype, precision)
  return y[..., 0, 0, :]


def conv(
  x: jax.Array,
  w: Weight,
  *,
  stride: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  dilation: Sequence[int] = (1, 1),
  feature_group_count: int = 1,
  dimension_numbers: Any = NHWC,
  precision: Any = None,
  dtype: Any = None,
) -> jax.Array:
  """Returns the 2D convolution of x with a dense, masked or compact weight.

  Shapes:
    x: [batch, height, width, channels in]; w: [kh, kw, channels in, out];
    the result: [batch, height', width', out].

  Args:
    x: float32 or bfloat16 if w is masked or compact.
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
    dilation: of the kernel; 1 if compact, as `feature_group_count`.
    dimension_numbers: the default if compact.
    precision: as in `jnp.dot`; native kernels compute in float32.
    dtype: as in `matmul`.

  Raises:
    ValueError: If `w` is compact and the options are not supported; names the
      layer. Masked storage supports them.
  """
  strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
  unsupported = []
  if isinstance(w, masked.Weights):
    unsupported = _unsupported(
      x, w, dilation, feature_group_count, dimension_numbers
    )
    if not unsupported:
      window = kernels.make_window(x.shape[1:3], w.shape[:2], strides, padding)
      return _conv(x, *_parts(w), (w.shape, window), dtype, precision)
  if weights_lib.is_compact(w):
    name, given, needed = unsupported[0]
    raise ValueError(
      f'{_name(w)}expected {name} {needed} for a compact convolution, got '
      f'{given}: use masked storage, or deselect this layer'
    )
  convolve = functools.partial(
    lax.conv_general_dilated,
    window_strides=strides,
    padding=padding,
    rhs_dilation=tuple(dilation),
    dimension_numbers=dimension_numbers,
    feature_group_count=feature_group_count,
    precision=precision,
  )
  return _product(convolve, x, jnp.asarray(w), dtype)


def _name(w):
  return f'{w.entries.name}: ' if weights_lib.is_compact(w) else ''


def _parts(w):
  """Returns the values of a weight, and its structure or mask."""
  if weights_lib.is_compact(w):
    return w.values.reshape(-1), w.entries.structure
  axes = tuple(range(4 - w.ndim))  # a matrix is a 1x1 convolution
  return jnp.expand_dims(w.values, axes), jnp.expand_dims(w.mask, axes)


def _unsupported(x, w, dilation, feature_group_count, dimension_numbers):
  """Returns (name, given, needed) of each unsupported option."""
  layout = lax.conv_dimension_numbers(x.shape, w.shape, dimension_numbers)
  expected = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
  options = (
    ('dimensions', layout, expected),
    ('feature groups', feature_group_count, 1),
    ('dilation', tuple(dilation), (1, 1)),
    ('channels', x.shape[-1], w.shape[-2]),
  )
  return [option for option in options if option[1] != option[2]]


def _product(multiply, x, w, dtype, weight_gradient=None):
  """Returns multiply(x, w) in a dtype; the gradient of w is in that of w."""
  if dtype is None or x.dtype == w.dtype == dtype:
    return multiply(x, w)

  def product(x, w):
    return multiply(x.astype(dtype), w.astype(dtype))

  def full_gradient(x, dy):
    x, dy = x.astype(w.dtype), dy.astype(w.dtype)
    return jax.linear_transpose(lambda w: multiply(x, w), w)(dy)[0]

  def backward(saved, dy):
    x, w = saved
    _, pull = jax.vjp(lambda x: product(x, w), x)
    return *pull(dy), (weight_gradient or full_gradient)(x.astype(dtype), dy)

  mixed = jax.custom_vjp(product)
  mixed.defvjp(lambda x, w: (product(x, w), (x, w)), backward)
  return mixed(x, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _conv(x, values, active, weight, dtype, precision):
  x, values = (array.astype(dtype or array.dtype) for array in (x, values))
  return kernels.conv(x, values, active, *weight, precision=precision)


def _conv_fwd(x, values, active, weight, dtype, precision):
  y = _conv(x, values, active, weight, dtype, precision)
  return y, (x, values, active)


def _conv_bwd(weight, dtype, precision, saved, dy):
  x, values, active = saved
  given = values.astype(dtype or values.dtype)
  dx = kernels.conv_dx(
    dy, given, active, *weight, x.shape[-3:-1], precision=precision
  )
  dvalues = kernels.conv_dw(
    x.astype(dtype or x.dtype), dy, active, *weight, precision=precision
  )
  return dx.astype(x.dtype), dvalues.astype(values.dtype), None


_conv.defvjp(_conv_fwd, _conv_bwd)
