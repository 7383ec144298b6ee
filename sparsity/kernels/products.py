"""Products of a layer with a compact or masked weight.

Each product checks shapes and dtypes and dispatches to an implementation. All
are convolutions: a matrix product is one of images with a single pixel, whose
batch may have any axes.

Arguments of all products:
  active: the `Structure` of [kh * kw * in, out] whose entries are the values,
    or a boolean mask of the weight.
  shape: (kh, kw, in, out) of the weight, channels in and out.
  window: from `make_window`.
  precision: of `xla`, as in `jnp.dot`; `native` computes in float32.

Shapes: values: [k_B] in the order of the structure, or the dense weight.
"""

from collections.abc import Iterator
import contextlib
import contextvars
import os
from typing import Any

import jax
import jax.numpy as jnp

from sparsity.kernels import native
from sparsity.kernels import xla
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import Window
from sparsity.kernels.structure import check_num_entries
from sparsity.kernels.structure import expected_shapes
from sparsity.kernels.structure import matrix_shape

Active = Structure | jax.Array
Shape = tuple[int, int, int, int]
FLOATS = (jnp.float32, jnp.bfloat16)
NAMES = ('xla', 'native')
VARIABLE = 'SPARSITY_KERNELS'
_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'sparsity_kernels', default=None
)


def implementation(name: str | None = None) -> str:
  """Returns the name of the implementation in use.

  In order of precedence: the argument, `use`, the environment variable
  SPARSITY_KERNELS, the platform (`native` on a CPU if built, else `xla`). The
  choice is made when JAX traces a function and is compiled in.

  Raises:
    ValueError: If no implementation has that name.
    RuntimeError: If `native` is requested but unavailable.
  """
  name = name or _forced.get() or os.environ.get(VARIABLE)
  if name and name not in NAMES:
    raise ValueError(f'expected one of {", ".join(NAMES)}, got {name!r}')
  if name == 'native' and native.problem():
    raise RuntimeError(f'native kernels cannot be used: {native.problem()}')
  if name:
    return name
  on_cpu = jax.default_backend() == 'cpu'
  return 'native' if on_cpu and not native.problem() else 'xla'


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
  """Makes everything traced inside use one implementation.

  Jitted functions that are already compiled keep theirs.

  Example:
    >>> with use('xla'):
    ...   implementation()
    'xla'

  Raises:
    ValueError: If no implementation has that name.
    RuntimeError: If `native` is requested but unavailable.
  """
  token = _forced.set(implementation(name))
  try:
    yield
  finally:
    _forced.reset(token)


def describe() -> str:
  """Returns one line: the implementation in use, and why it is not `native`."""
  if implementation() == 'native':
    return f'native kernels: {native.isa()}'
  reason = native.problem() or 'as requested'
  if jax.default_backend() != 'cpu':
    reason = f'CPU only, this is {jax.default_backend()}'
  return f'xla kernels; native kernels not in use ({reason})'


def conv(
  x: jax.Array,
  values: jax.Array,
  active: Active,
  shape: Shape,
  window: Window,
  *,
  precision: Any = None,
) -> jax.Array:
  """Returns the convolution of x with the weight on A and zero elsewhere.

  Sums are float32, whatever the dtypes.

  Example:
    >>> import numpy as np
    >>> from sparsity import kernels
    >>> mask = np.array([[True, False], [True, True]])
    >>> s = kernels.from_masks(mask, mask)  # entries (0, 0), (1, 0), (1, 1)
    >>> x, values = jnp.ones((1, 1, 1, 2)), jnp.array([1.0, 2.0, 3.0])
    >>> conv(x, values, s, (1, 1, 2, 2), kernels.PIXEL)
    Array([[[[3., 3.]]]], dtype=float32)

  Shapes:
    x: [batch, height, width, in]; the result: [batch, height', width', out].

  Raises:
    ValueError: If shapes do not match.
    TypeError: If an array is not float32 or bfloat16.
  """
  _check_weight(active, shape, values)
  _check_image('x', x, shape[2])
  result = (*x.shape[:-3], *window.output_size(*x.shape[-3:-1]), shape[3])
  return _dispatch(
    'forward', (x, values, active), (shape, window), result, precision
  )


def conv_dx(
  dy: jax.Array,
  values: jax.Array,
  active: Active,
  shape: Shape,
  window: Window,
  image_size: tuple[int, int],
  *,
  precision: Any = None,
) -> jax.Array:
  """Returns the gradient of `conv` with respect to x.

  Shapes:
    dy: [batch, height', width', out]; the result: [batch, *image_size, in].
  """
  _check_weight(active, shape, values)
  _check_image('dy', dy, shape[3], window.output_size(*image_size))
  return _dispatch(
    'input_gradient',
    (dy, values, active),
    (shape, window, image_size),
    (*dy.shape[:-3], *image_size, shape[2]),
    precision,
  )


def conv_dw(
  x: jax.Array,
  dy: jax.Array,
  active: Active,
  shape: Shape,
  window: Window,
  *,
  precision: Any = None,
) -> jax.Array:
  """Returns the gradient of `conv` with respect to every entry of B, float32.

  With a mask, that of every entry of the weight, by a dense product.

  Shapes:
    x: [batch, height, width, in]; dy: [batch, height', width', out];
    the result: [k_B], or `shape`.
  """
  _check_weight(active, shape)
  _check_image('x', x, shape[2])
  _check_image('dy', dy, shape[3], window.output_size(*x.shape[-3:-1]))
  if x.shape[:-3] != dy.shape[:-3]:
    raise ValueError(f'expected one batch, got {x.shape} and {dy.shape}')
  return _dispatch(
    'weight_gradient',
    (x, dy, active),
    (shape, window),
    active.columns.shape if isinstance(active, Structure) else shape,
    precision,
    is_dense=not isinstance(active, Structure),
    dtype=jnp.float32,
  )


def _dispatch(
  product, arrays, options, shape, precision, is_dense=False, dtype=None
):
  """Calls a product of the implementation in use; returns [*shape]."""
  dtype = dtype or jnp.result_type(*arrays[:2])
  if 0 in (*arrays[0].shape, *arrays[1].shape, *shape):
    return jnp.zeros(shape, dtype)  # nothing to sum

  def call(module, **keywords):
    function = getattr(module, product)
    return lambda *arrays: (
      function(*arrays, *options, **keywords).astype(dtype).reshape(shape)
    )

  dense = call(xla, precision=precision)
  if is_dense:
    return dense(*arrays)
  on_cpu, is_pixel = dense, options[1].size == arrays[0].shape[-3:-1] == (1, 1)
  if implementation() == 'native':
    on_cpu = call(native)
  elif is_pixel and isinstance(arrays[2], Structure):
    on_cpu = _isolated(dense)
  # A program may be lowered here for another platform.
  return jax.lax.platform_dependent(*arrays, cpu=on_cpu, default=dense)


def _isolated(product):
  """Returns a product whose temporaries XLA's CPU compiler frees at once.

  That compiler drops optimization barriers, but shares nothing with the branch
  of a condition. There gradients of convolutions are many times as slow:
  https://github.com/jax-ml/jax/issues/12868.
  """

  def call(*arrays):
    shape = jax.eval_shape(product, *arrays)
    return jax.lax.cond(
      arrays[2].cells[0] == 0,  # always
      product,
      lambda *_: jnp.zeros(shape.shape, shape.dtype),
      *arrays,
    )

  return call


def _check_weight(active, shape, values=None):
  """Raises unless structure or mask, and values, match [kh, kw, in, out]."""
  if values is not None:
    _check_float('values', values)
  if not isinstance(active, Structure):
    if active.shape != tuple(shape) or active.dtype != bool:
      raise ValueError(
        'expected a weight [kh, kw, channels in, channels out] and a boolean '
        f'mask of its shape, got {shape} and {active.dtype} {active.shape}'
      )
    check_num_entries(shape)
    return
  matrix = matrix_shape(shape)
  num_backward, num_forward = active.columns.size, active.t_columns.size
  expected = expected_shapes(matrix, num_forward, num_backward)
  for field, array in active._asdict().items():
    if array.shape != expected[field] or array.dtype != jnp.int32:
      raise ValueError(
        f'expected {field} int32 {expected[field]} for a weight of shape '
        f'{matrix}, got {array.dtype} {array.shape}'
      )
  if values is not None and values.shape != active.columns.shape:
    raise ValueError(
      f'expected values of shape {active.columns.shape}, got {values.shape}'
    )


def _check_image(name, array, channels, size=None):
  """Raises unless an array is [batch, *size, channels]."""
  _check_float(name, array)
  height, width = size or ('height', 'width')
  is_batch = array.ndim == 4 or array.shape[-3:-1] == (1, 1)
  is_image = is_batch and array.shape[-1] == channels
  if not is_image or size not in (None, array.shape[-3:-1]):
    raise ValueError(
      f'expected {name} [batch, {height}, {width}, {channels}], got '
      f'{array.shape}: use masked weights for feature groups and other layouts'
    )


def _check_float(name, array):
  if array.dtype not in FLOATS:
    raise TypeError(
      f'expected {name} in float32 or bfloat16, got {array.dtype}'
    )
