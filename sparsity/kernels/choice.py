"""Choice of the implementation: by platform, or by the caller."""

from collections.abc import Iterator
import contextlib
import contextvars
import os

import jax

from sparsity.kernels import native

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
