"""Orbax without what stays in memory after each checkpoint.

Tensorstore, with which Orbax writes, never frees the lists and dictionaries
that it makes of JSON for Python (seen in 0.1.78 to 0.1.86). Orbax 0.12 asks for
some at each save: for the specification of a folder, once for each array, which
it has just written down itself; and for counts of bytes, only to log them.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import sys
from typing import Any

try:
  from orbax.checkpoint._src.serialization import tensorstore_utils as _orbax
except ImportError:  # Another Orbax, which is left as it is.
  _orbax = None


@contextlib.contextmanager
def lean() -> Iterator[None]:
  """Keeps Orbax from asking tensorstore for what is never freed.

  It writes and reads the same files. Nothing is changed where tensorstore
  frees all, or Orbax is not the one that is known here.
  """
  with _replaced() if _is_needed() else contextlib.nullcontext():
    yield


@functools.cache
def _is_needed() -> bool:
  """Returns whether memory is lost, and Orbax would do the same without."""
  try:
    if not _never_frees(_orbax.ts):
      return False
    as_is = _answers()
    with _replaced():
      return _answers() == as_is
  except Exception:  # Of whatever kind: it is private to another version.
    return False


def _never_frees(tensorstore: Any) -> bool:
  spec = {'driver': 'ocdbt', 'base': {'driver': 'memory'}}
  made = tensorstore.KvStore.Spec(spec).to_json()
  return sys.getrefcount(made['base']) > 2  # that of `made`, and the argument


def _answers() -> list[Any]:
  """Returns what Orbax makes of what is replaced."""
  return [
    _orbax.build_kvstore_tspec('/a folder/b', 'array'),
    type(_orbax.get_tensorstore_raw_bytes()),
  ]


@contextlib.contextmanager
def _replaced() -> Iterator[None]:
  tensorstore = _orbax.ts
  _orbax.ts = _Over(
    tensorstore,
    KvStore=_Over(
      tensorstore.KvStore,
      Spec=functools.partial(_spec, tensorstore.KvStore.Spec),
    ),
    experimental_collect_matching_metrics=lambda prefix: [],
  )
  try:
    yield
  finally:
    _orbax.ts = tensorstore


def _spec(make: Callable[[Any], Any], given: Any) -> Any:
  """Returns `make(given)`, or its like for a folder of this machine."""
  if given.keys() == {'driver', 'path'} and given['driver'] == 'file':
    return _Folder(given)
  return make(given)


class _Folder(dict):
  """The specification of a folder; as a dictionary tensorstore takes it too."""

  def to_json(self) -> dict[str, str]:
    """Returns what tensorstore would."""
    return dict(self)


class _Over:
  """A namespace on top of another."""

  def __init__(self, below: Any, **names: Any):
    self.__dict__.update(names)
    self._below = below

  def __getattr__(self, name: str) -> Any:
    return getattr(self._below, name)
