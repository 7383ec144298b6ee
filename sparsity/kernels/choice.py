"""Which implementation computes: chosen by platform, or as you say."""

from collections.abc import Iterator
import contextlib
import contextvars
import os

import jax

from sparsity.kernels import native

NAMES = ('reference', 'xla', 'native')
VARIABLE = 'SPARSITY_KERNELS'
_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'sparsity_kernels', default=None
)


def implementation(name: str | None = None) -> str:
  """Returns the name of the implementation in use.

  The first that says something decides: the argument, `use`, the environment
  variable SPARSITY_KERNELS, the platform: `native` on a CPU where it is built,
  `xla` elsewhere. It is asked while JAX traces a function; what is compiled
  stays as it is.

  Example:
    >>> implementation('xla')
    'xla'

  Raises:
    ValueError: If there is no implementation of that name.
    RuntimeError: If `native` is asked for and cannot be used.
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
  """Has everything traced inside use one implementation.

  A jitted function that was called before is not traced again: it stays with
  what it has.

  Example:
    >>> with use('reference'):
    ...   implementation()
    'reference'

  Raises:
    ValueError: If there is no implementation of that name.
    RuntimeError: If `native` is asked for and cannot be used.
  """
  token = _forced.set(implementation(name))
  try:
    yield
  finally:
    _forced.reset(token)


def describe() -> str:
  """Returns a sentence on what is in use, and why `native` is not."""
  name = implementation()
  if name == 'native':
    threads = native.num_threads()
    return f'native kernels: {native.isa()}, {threads} threads'
  reason = native.problem()
  if not reason and jax.default_backend() != 'cpu':
    reason = f'they are for the CPU, this is {jax.default_backend()}'
  because = f' ({reason})' if reason else ' (as asked for)'
  return f'{name} kernels; native ones are not in use{because}'
