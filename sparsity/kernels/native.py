"""The C++ kernels for the CPU: loads, checks and calls them.

The library is loaded on first use. If it is missing, `problem` says why; no
exception is raised.

Arguments and shapes of the products: `kernels.products`.
"""

import ctypes
import functools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import matrix_shape
from sparsity.kernels.structure import strip_size

# From the least to the most demanding; the kernels receive the index.
ISAS = ('portable', 'avx2', 'avx512')
ISA_VARIABLE = 'SPARSITY_ISA'
TARGETS = (
  *('forward', 'input_gradient', 'weight_gradient'),
  *('masked_forward', 'masked_input_gradient'),
)
HOW = 'run `python -m sparsity.kernels.build`'


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
  """Returns the library with its targets registered, or why there is none."""
  # Not at the top: `python -m sparsity.kernels.build` warns if it is imported
  # before it runs.
  from sparsity.kernels import build

  if not build.LIBRARY.exists():
    return None, f'not built: {HOW}'
  try:
    library = ctypes.CDLL(str(build.LIBRARY))
    library.sparsity_sources.restype = ctypes.c_char_p
    built_from = library.sparsity_sources().decode()
  except (OSError, AttributeError) as error:
    return None, f'{build.LIBRARY.name} cannot be loaded ({error}): {HOW}'
  if built_from != build.fingerprint():
    reason = f'{build.LIBRARY.name} is older than its sources: {HOW}'
    warnings.warn(f'native kernels not used: {reason}', stacklevel=4)
    return None, reason
  try:
    for target in TARGETS:
      capsule = jax.ffi.pycapsule(getattr(library, f'sparsity_{target}'))
      jax.ffi.register_ffi_target(f'sparsity_{target}', capsule, platform='cpu')
  except Exception as error:  # a jaxlib with another version of the FFI
    return None, f'jaxlib does not accept {build.LIBRARY.name} ({error}): {HOW}'
  return library, ''


def library() -> ctypes.CDLL | None:
  """Returns the library, or None if it cannot be used."""
  return _load()[0]


def problem() -> str:
  """Returns why the kernels cannot be used; '' if they can."""
  return _load()[1]


def supported() -> tuple[str, ...]:
  """Returns the instruction sets that both library and processor support."""
  library, _ = _load()
  if library is None:
    return ()
  return tuple(
    isa for i, isa in enumerate(ISAS) if library.sparsity_supports(i)
  )


def isa() -> str:
  """Returns the instruction set in use: SPARSITY_ISA, or the best supported."""
  names = supported()
  name = os.environ.get(ISA_VARIABLE) or names[-1]
  if name not in names:
    raise ValueError(
      f'expected {ISA_VARIABLE} to be one of {", ".join(names)}, got {name!r}'
    )
  return name


def forward(x, values, active, shape, window):
  """Returns y [batch, height, width, out]."""
  x = _one_batch(x)
  y_shape = (x.shape[0], *window.output_size(*x.shape[1:3]), shape[3])
  result = jax.ShapeDtypeStruct(y_shape, jnp.result_type(x, values))
  if not isinstance(active, Structure):
    mask = active.reshape(-1, shape[3])
    return _call('masked_forward', result, window, x, values, mask)
  arrays = x, values, active.cells, active.columns
  return _call('forward', result, window, *arrays, strip=_strip(active, shape))


def input_gradient(dy, values, active, shape, window, image_size):
  """Returns dx [batch, *image_size, in]."""
  dy = _one_batch(dy)
  result = jax.ShapeDtypeStruct(
    (dy.shape[0], *image_size, shape[2]), jnp.result_type(dy, values)
  )
  if not isinstance(active, Structure):
    mask = active.reshape(-1, shape[3])
    return _call('masked_input_gradient', result, window, dy, values, mask)
  s, strip = active, _strip(active, shape)
  arrays = dy, values, s.t_cells, s.t_columns, s.t_entries
  return _call('input_gradient', result, window, *arrays, strip=strip)


def weight_gradient(x, dy, active, shape, window):
  """Returns dvalues [k_B] in float32."""
  result = jax.ShapeDtypeStruct(active.columns.shape, jnp.float32)
  x, dy, strip = _one_batch(x), _one_batch(dy), _strip(active, shape)
  arrays = x, dy, active.cells, active.columns
  return _call('weight_gradient', result, window, *arrays, strip=strip)


def _call(target, result, window, *arrays, **numbers):
  (height, width), stride, ((top, _), (left, _)) = window
  call = jax.ffi.ffi_call(
    f'sparsity_{target}', result, vmap_method='sequential'
  )
  return call(
    *arrays,
    window=np.array([height, width, *stride, top, left], np.int64),
    isa=np.int64(ISAS.index(isa())),
    **numbers,
  )


def _one_batch(x):
  return x.reshape(-1, *x.shape[-3:])


def _strip(s, shape):
  return np.int64(strip_size(matrix_shape(shape), len(s.t_columns)))
