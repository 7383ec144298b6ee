"""The C++ kernels for the CPU: loads, checks and calls them.

The library is loaded on first use. If it is missing, `problem` says why; no
exception is raised.
"""

import ctypes
import functools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from sparsity.kernels.shapes import Window
from sparsity.kernels.structure import Structure
from sparsity.kernels.structure import strip_size

# From the least to the most demanding; the kernels receive the index.
ISAS = ('portable', 'avx2', 'avx512')
ISA_VARIABLE = 'SPARSITY_ISA'
TARGETS = (
  *('forward', 'input_gradient', 'weight_gradient'),
  *('masked_forward', 'masked_input_gradient', 'num_threads'),
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
  """Returns the instruction set in use: SPARSITY_ISA, or the best supported.

  Raises:
    ValueError: If SPARSITY_ISA is not supported.
  """
  names = supported()
  name = os.environ.get(ISA_VARIABLE) or names[-1]
  if name not in names:
    raise ValueError(
      f'expected {ISA_VARIABLE} to be one of {", ".join(names)}, got {name!r}'
    )
  return name


def num_threads() -> int:
  """Returns the number of threads of the kernels, which are XLA's own."""
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    call = jax.ffi.ffi_call(
      'sparsity_num_threads', jax.ShapeDtypeStruct((), jnp.int32)
    )
    return int(jax.jit(lambda: call())())


def forward(
  x: jax.Array,
  values: jax.Array,
  structure: Structure,
  window: Window,
  num_outputs: int,
) -> jax.Array:
  """Returns y [batch, height, width, out]."""
  s = structure
  shape = (x.shape[0], *window.output_size(*x.shape[1:3]), num_outputs)
  strip = _strip(s, window, x.shape[-1], num_outputs)
  arguments = (x, values, s.cells, s.columns)
  dtype = jnp.result_type(x, values)
  return _call('forward', shape, dtype, window, *arguments, strip=strip)


def input_gradient(
  dy: jax.Array,
  values: jax.Array,
  structure: Structure,
  window: Window,
  image: tuple[int, int, int],
) -> jax.Array:
  """Returns dx [batch, *image]."""
  s = structure
  shape = (dy.shape[0], *image)
  strip = _strip(s, window, image[-1], dy.shape[-1])
  arguments = (dy, values, s.t_cells, s.t_columns, s.t_entries)
  dtype = jnp.result_type(dy, values)
  return _call('input_gradient', shape, dtype, window, *arguments, strip=strip)


def weight_gradient(
  x: jax.Array, dy: jax.Array, structure: Structure, window: Window
) -> jax.Array:
  """Returns dvalues [k_B] in float32."""
  s = structure
  shape, dtype = s.columns.shape, jnp.float32
  strip = _strip(s, window, x.shape[-1], dy.shape[-1])
  arguments = (x, dy, s.cells, s.columns)
  return _call('weight_gradient', shape, dtype, window, *arguments, strip=strip)


def masked_forward(
  x: jax.Array, weight: jax.Array, mask: jax.Array, window: Window
) -> jax.Array:
  """Returns y [batch, height, width, out] of a dense weight and its mask."""
  shape = (x.shape[0], *window.output_size(*x.shape[1:3]), mask.shape[-1])
  arguments = (x, weight, mask.reshape(-1, mask.shape[-1]))
  dtype = jnp.result_type(x, weight)
  return _call('masked_forward', shape, dtype, window, *arguments)


def masked_input_gradient(
  dy: jax.Array,
  weight: jax.Array,
  mask: jax.Array,
  window: Window,
  image: tuple[int, int, int],
) -> jax.Array:
  """Returns dx [batch, *image] of a dense weight and its mask."""
  shape = (dy.shape[0], *image)
  arguments = (dy, weight, mask.reshape(-1, mask.shape[-1]))
  dtype = jnp.result_type(dy, weight)
  return _call('masked_input_gradient', shape, dtype, window, *arguments)


def _call(target, shape, dtype, window, *arguments, **numbers):
  (height, width), stride, ((top, _), (left, _)) = window
  call = jax.ffi.ffi_call(
    f'sparsity_{target}',
    jax.ShapeDtypeStruct(shape, dtype),
    vmap_method='sequential',
  )
  return call(
    *arguments,
    window=np.array([height, width, *stride, top, left], np.int64),
    isa=np.int64(ISAS.index(isa())),
    **numbers,
  )


def _strip(s, window, num_inputs, num_outputs):
  shape = (window.size[0] * window.size[1] * num_inputs, num_outputs)
  return np.int64(strip_size(shape, len(s.t_columns)))
