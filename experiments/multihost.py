"""Stand-in (processes.py, less flags). Several processes that make one run, each with its devices and its data.

All of them run the same program in the same order; the first alone writes the
files. What they could see differently (a signal, an error in a file, the bits
of an array) is exchanged here before any of them acts upon it.

P: processes; D: devices of a process; L: arrays.
"""

from collections.abc import Callable
import itertools
import os
import re
import sys
import traceback
from typing import Any
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import multihost

CLUSTERS = {'auto': None, 'slurm': 'slurm'}  # as JAX calls them

HEARTBEAT = 20  # seconds without a sign of life that end a run
_CONNECT = 300  # seconds in which all processes have to be there
_PREPARE = 3600  # seconds in which each has read its data
_TEXT = 2048  # bytes of a message that are exchanged

# What collectives and the coordinator say, in errors of many types.
_OF_OTHERS = re.compile('Gloo|NCCL|heartbeat|[Cc]oordination|Connection reset')
_numbers = itertools.count()  # of barriers, the same on every process


class LostError(RuntimeError):
  """The processes of a run cannot go on together; the message says why."""


class Placement(NamedTuple):
  """How the processes of a run find each other; None: JAX finds out."""

  coordinator: str | None  # 'host:port' of the first process
  process_count: int | None
  process_index: int | None
  cluster: str | None  # one of CLUSTERS


def start(place: Placement | None) -> None:
  """Makes this process one of several, before JAX is used for anything else.

  Raises:
    ValueError: If the others cannot be found.
  """
  if place is None or jax.distributed.is_initialized():
    return
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # It would swallow SIGTERM; the loop exchanges signals itself.
  jax.config.update('jax_enable_preemption_service', False)
  known = place.cluster is None
  method = 'deactivate' if known else CLUSTERS[place.cluster]
  try:
    jax.distributed.initialize(
      place.coordinator,
      place.process_count,
      place.process_index,
      cluster_detection_method=method,
      initialization_timeout=_CONNECT,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=_CONNECT,
    )
  except (RuntimeError, ValueError) as error:
    asked = f'--coordinator={place.coordinator}' if known else place.cluster
    raise ValueError(
      f'expected to find the other processes of the run ({asked}), but: {error}'
    ) from error


def is_first() -> bool:
  """Returns whether this process is the one that writes files."""
  return jax.process_index() == 0


def together(function: Callable[..., Any], *args: Any) -> Any:
  """Returns `function(*args)`; an error of one process is one of all.

  Raises:
    ValueError: If the function raised it, or an `OSError`, in some process.
  """
  if jax.process_count() == 1:
    return function(*args)
  result, problem = None, ''
  try:
    result = function(*args)
  except (ValueError, OSError) as error:
    problem = str(error) or type(error).__name__
  problems = _exchange(problem)
  if len(set(problems)) == 1 and problem:
    raise ValueError(problem)
  for index, text in enumerate(problems):
    if text:
      raise ValueError(f'process {index} of {len(problems)}: {text}')
  return result


def in_first(function: Callable[..., Any], *args: Any) -> Any:
  """Returns `function(*args)` in the first process, in others None.

  Raises:
    ValueError: In every process, if the function raised it or an `OSError`.
  """
  return together(lambda: function(*args) if is_first() else None)


def largest(number: int) -> int:
  """Returns the largest of the processes' numbers."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.process_allgather(np.int32(number)).max())


def total(number: float) -> float:
  """Returns the sum of the processes' numbers."""
  if jax.process_count() == 1:
    return number
  return float(multihost_utils.process_allgather(np.float32(number)).sum())


def is_true_of_all(flag: bool) -> bool:
  """Returns whether the flag is set in every process."""
  return not largest(not flag)


def explained(error: BaseException) -> BaseException:
  """Returns a `LostError` for what is raised when a process is lost."""
  if jax.process_count() == 1 or isinstance(error, LostError):
    return error
  link = error
  while link is not None:
    text = str(link)
    if 'RESOURCE_EXHAUSTED' in text:  # memory, of this process
      return error
    if isinstance(link, jax.errors.JaxRuntimeError) or _OF_OTHERS.search(text):
      return LostError(
        'another process of this run cannot be reached, so all end: '
        + text.partition('\n')[0][:200]
      )
    link = link.__cause__ or link.__context__
  return error


def leave(code: int) -> int:
  """Returns `code`; with several processes, ends this one with it at once.

  For errors that the others may not share: a process that ends as usual waits
  for all others to do so too.
  """
  if jax.process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code


def crash() -> None:
  """Ends one of several processes at once, for an error at hand."""
  if jax.process_count() > 1:
    traceback.print_exc()
    leave(1)


def wait() -> None:
  """Returns when all processes are here."""
  if jax.process_count() > 1:
    _barrier(_PREPARE)


def check_same(tree: Any) -> None:
  """Checks that every device has the same copy of each array.

  Whoever trains on several devices counts on it: a mask that differs on one of
  them is an error that no figure shows. A copy is read once and summed up to 32
  bits, different ones pass for the same once in 4 billion.

  Args:
    tree: of arrays. Those that are divided among devices are not looked at.

  Raises:
    LostError: If one differs; in every process.
  """
  if jax.process_count() == 1:
    return
  names, own = _digests(tree)
  everywhere = multihost_utils.process_allgather(own)  # [P, D, L]
  differs = (everywhere != everywhere[0, 0]).any(1)  # [P, L]
  if differs.any():
    leaf = int(np.argmax(differs.any(0)))
    where = np.flatnonzero(differs[:, leaf]).tolist()
    raise LostError(
      f'expected the same arrays in every process, but {names[leaf]} of '
      f'process(es) {where} is not that of process 0; the last checkpoint is '
      'from before'
    )


class Silent:
  """Takes what the first process writes, and writes nothing."""

  def __enter__(self) -> 'Silent':
    return self

  def __exit__(self, *exception: object) -> None:
    del exception

  def write(self, *values: Any, **fields: Any) -> None:
    """Does nothing."""

  update = write


def _exchange(text: str) -> list[str]:
  """Returns the texts of all processes; they may be late by an hour."""
  _barrier(_PREPARE)
  content = text.encode()[: _TEXT - 1]
  padded = np.zeros(_TEXT, np.uint8)
  padded[: len(content)] = np.frombuffer(content, np.uint8)
  return [
    row.tobytes().rstrip(b'\0').decode(errors='replace')
    for row in multihost_utils.process_allgather(padded)
  ]


def _barrier(seconds: int) -> None:
  # The barrier of the coordinator waits as long as is asked; collectives of
  # devices may give up earlier.
  multihost.get_barrier_sync_fn()(
    key=f'sparse-training-{next(_numbers)}', timeout_ms=1000 * seconds
  )


def _digests(tree: Any) -> tuple[list[str], np.ndarray]:
  """Returns the names of arrays that are not divided, and [D, L] digests."""
  names, columns = [], []
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated and leaf.size:
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
      names.append(jax.tree_util.keystr(path))
      columns.append([shard.data for shard in leaf.addressable_shards])
  rows = [jax.device_get(_digest(row)) for row in zip(*columns, strict=True)]
  return names, np.array(rows or [[]], np.uint32)


@jax.jit
def _digest(arrays: tuple[jax.Array, ...]) -> list[jax.Array]:
  return [_hash(x) for x in arrays]


def _hash(x: jax.Array) -> jax.Array:
  """Returns the sum over all entries of what their bits and place mix to.

  The mixing is that of MurmurHash3's last step, by Austin Appleby.
  """
  x = jnp.ravel(x)
  if jnp.issubdtype(x.dtype, jnp.floating):
    x = jax.lax.bitcast_convert_type(x, f'uint{8 * x.dtype.itemsize}')
  place = jnp.arange(x.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
  y = x.astype(jnp.uint32) ^ place
  y = (y ^ (y >> 16)) * jnp.uint32(0x85EBCA6B)
  y = (y ^ (y >> 13)) * jnp.uint32(0xC2B2AE35)
  return jnp.sum(y ^ (y >> 16), dtype=jnp.uint32)
