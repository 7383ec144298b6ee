"""Products with weights of every kind: one entrance for models."""

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


def matmul(
  x: jax.Array,
  w: jax.Array | masked.MaskedWeights | weights_lib.CompactWeights,
  *,
  precision: Any = None,
) -> jax.Array:
  """Returns x w, of a dense weight or of the active entries of one.

  The gradient of a `MaskedWeights` is dense, that of the weight that is seen.

  The gradient of a `CompactWeights` is that of its values: x^T dy at every
  entry of B, nothing dense in between.

  Shapes:
    x: [..., in]; w: [in, out]; the result: [..., out].

  Args:
    x: float32 or bfloat16 where w is compact.
    w: a matrix.
    precision: as of `jnp.dot`; compact products are always float32.

  Raises:
    ValueError: If the shapes do not match; names the layer.
  """
  if masked.is_masked(w):
    return masked.matmul(x, w)
  if not weights_lib.is_compact(w):
    return jnp.dot(x, w, precision=precision)
  if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
    raise ValueError(
      f'{w.entries.name}: expected x [..., in] and a weight (in, out), got '
      f'{x.shape} and {w.shape}'
    )
  entries = w.entries
  return _matmul(x, w.values.reshape(-1), entries.structure, entries.shape)


def conv(
  x: jax.Array,
  w: jax.Array | masked.MaskedWeights | weights_lib.CompactWeights,
  *,
  stride: int | Sequence[int] = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  dilation: Sequence[int] = (1, 1),
  feature_group_count: int = 1,
  dimension_numbers: Any = NHWC,
  precision: Any = None,
) -> jax.Array:
  """Returns the 2D convolution of x with w, dense or compact.

  Shapes:
    x: [batch, height, width, channels in]; w: [kh, kw, channels in, out];
    the result: [batch, height', width', out].

  Args:
    x: float32 or bfloat16 where w is compact.
    w: the kernel.
    stride: one number or two.
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
    dilation: of the kernel; of a compact one (1, 1).
    feature_group_count: as of `lax.conv_general_dilated`; of a compact one 1.
    dimension_numbers: as there; of a compact one those above.
    precision: as there; compact products are always float32.

  Raises:
    ValueError: If `w` is compact and this convolution is not as above; names
      the layer. Masked storage serves it.
  """
  strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
  if not isinstance(padding, str):
    padding = tuple(tuple(pair) for pair in padding)
  unlike = []
  if masked.is_masked(w) or weights_lib.is_compact(w):
    unlike = _unlike(x, w, dilation, feature_group_count, dimension_numbers)
  if masked.is_masked(w) and not unlike:
    return masked.conv(x, w, strides, padding)
  if not weights_lib.is_compact(w):
    return lax.conv_general_dilated(
      x,
      jnp.asarray(w),
      strides,
      padding,
      rhs_dilation=tuple(dilation),
      dimension_numbers=dimension_numbers,
      feature_group_count=feature_group_count,
      precision=precision,
    )
  for name, given, needed in unlike:
    raise ValueError(
      f'{w.entries.name}: expected {name} {needed} of a compact '
      f'convolution, got {given}: use masked storage, or leave this layer '
      'out of the selection'
    )
  entries = w.entries
  return _conv(
    x,
    w.values.reshape(-1),
    entries.structure,
    entries.shape,
    (strides, padding),
  )


def _unlike(x, w, dilation, feature_group_count, dimension_numbers):
  """Returns what the kernels do not serve: names, given, and needed."""
  layout = lax.conv_dimension_numbers(x.shape, w.shape, dimension_numbers)
  expected = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
  facts = (
    ('dimensions', layout, expected),
    ('feature groups', feature_group_count, 1),
    ('dilation', tuple(dilation), (1, 1)),
    ('channels', x.shape[-1], w.shape[-2]),
  )
  return [fact for fact in facts if fact[1] != fact[2]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _matmul(x, values, structure, shape):
  return kernels.matmul(x, values, structure, shape)


def _matmul_fwd(x, values, structure, shape):
  return _matmul(x, values, structure, shape), (x, values, structure)


def _matmul_bwd(shape, saved, dy):
  x, values, structure = saved
  dx = kernels.matmul_dx(dy, values, structure, shape)
  dvalues = kernels.matmul_dw(x, dy, structure, shape)
  return dx.astype(x.dtype), dvalues.astype(values.dtype), None


_matmul.defvjp(_matmul_fwd, _matmul_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _conv(x, values, structure, shape, window):
  stride, padding = window
  return kernels.conv(
    x, values, structure, shape, stride=stride, padding=padding
  )


def _conv_fwd(x, values, structure, shape, window):
  y = _conv(x, values, structure, shape, window)
  return y, (x, values, structure)


def _conv_bwd(shape, window, saved, dy):
  x, values, structure = saved
  options = {'stride': window[0], 'padding': window[1]}
  dx = kernels.conv_dx(
    dy, values, structure, shape, image_size=x.shape[1:3], **options
  )
  dvalues = kernels.conv_dw(x, dy, structure, shape, **options)
  return dx.astype(x.dtype), dvalues.astype(values.dtype), None


_conv.defvjp(_conv_fwd, _conv_bwd)
