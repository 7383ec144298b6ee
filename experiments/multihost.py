"""A run of several processes, each with its devices and its share of a batch.

All processes run the same program; only the first writes files. State that
could differ between them (a signal, an error in a file, the bits of an array)
is exchanged before any process acts on it.

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
import zlib

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import multihost

CLUSTERS = {'auto': None, 'slurm': 'slurm'}  # --distributed: JAX's name

HEARTBEAT = 20  # seconds without a sign of life that end a run
_CONNECT = 300  # timeout in seconds for all processes to connect
_PREPARE = 3600  # timeout in seconds for all processes to read their data
_TEXT = 2048  # maximum bytes of an exchanged message

# Messages of collectives and of the coordinator, raised as many types.
_LOST = re.compile('Gloo|NCCL|heartbeat|[Cc]oordination|Connection reset')
_barriers = itertools.count()  # the same sequence in every process


class LostError(RuntimeError):
  """The processes of a run cannot go on together; the message says why."""


class Placement(NamedTuple):
  """Arguments of `jax.distributed.initialize`; None: JAX finds out."""

  coordinator: str | None  # 'host:port' of the first process
  process_count: int | None
  process_index: int | None
  cluster: str | None


def placement(
  distributed: str | None,
  coordinator: str | None,
  process_count: int | None,
  process_index: int | None,
) -> Placement | None:
  """Returns the placement that the flags ask for; None for a single process."""
  flags = (coordinator, process_count, process_index)
  if distributed is not None and flags == (None, None, None):
    return Placement(None, None, None, CLUSTERS[distributed])
  if distributed is None and flags == (None, None, None):
    return None
  if distributed is not None or None in flags:
    raise ValueError(
      'expected --distributed alone, or --coordinator, --process_count and '
      f'--process_index, got --distributed={distributed} and {flags}'
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      'expected --process_index from 0 and less than --process_count='
      f'{process_count}, got {process_index}'
    )
  return Placement(*flags, 'deactivate')


def start(place: Placement | None) -> None:
  """Connects this process to the others; call before any other use of JAX."""
  if place is None or jax.distributed.is_initialized():
    return
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # The preemption service would swallow SIGTERM; the trainer handles signals.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      place.coordinator,
      place.process_count,
      place.process_index,
      cluster_detection_method=place.cluster,
      initialization_timeout=_CONNECT,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=_CONNECT,
    )
  except (RuntimeError, ValueError) as error:
    where = place.coordinator or 'the cluster'
    raise ValueError(
      f'expected the other processes of the run at {where}, but: {error}'
    ) from error


def is_first() -> bool:
  """Returns True in the process that writes files."""
  return jax.process_index() == 0


def together(function: Callable[..., Any], *args: Any) -> Any:
  """Returns `function(*args)`; ValueErrors and OSErrors are raised in all."""
  if jax.process_count() == 1:
    return function(*args)
  result, problem = None, ''
  try:
    result = function(*args)
  except (ValueError, OSError) as error:
    problem = str(error) or type(error).__name__
  problems = _gather_text(problem)
  if problem and len(set(problems)) == 1:
    raise ValueError(problem)
  for index, text in enumerate(problems):
    if text:
      raise ValueError(f'process {index} of {len(problems)}: {text}')
  return result


def in_first(function: Callable[..., Any], *args: Any) -> Any:
  """Returns `function(*args)` in the first process, None in the others."""
  return together(lambda: function(*args) if is_first() else None)


def largest(number: int) -> int:
  """Returns the maximum over processes."""
  return int(multihost_utils.process_allgather(np.int32(number)).max())


def total(number: float) -> float:
  """Returns the sum over processes."""
  return float(multihost_utils.process_allgather(np.float32(number)).sum())


def explained(error: BaseException) -> BaseException:
  """Returns a `LostError` for an error caused by the loss of a process."""
  if jax.process_count() == 1 or isinstance(error, LostError):
    return error
  link = error
  while link is not None:
    text = str(link)
    if 'RESOURCE_EXHAUSTED' in text:  # out of memory in this process
      return error
    if isinstance(link, jax.errors.JaxRuntimeError) or _LOST.search(text):
      return LostError(
        'another process of this run cannot be reached, so all end: '
        + text.partition('\n')[0][:200]
      )
    link = link.__cause__ or link.__context__
  return error


def leave(code: int) -> int:
  """Returns `code`; one of several processes exits with it at once.

  A regular exit would wait for processes that may not share the error.
  """
  if jax.process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code


def crash() -> None:
  """Prints the current exception and exits, if there are several processes."""
  if jax.process_count() > 1:
    traceback.print_exc()
    leave(1)


def wait() -> None:
  """Blocks until every process gets here."""
  # Collectives between devices would give up earlier.
  multihost.get_barrier_sync_fn()(
    key=f'sparse-training-{next(_barriers)}', timeout_ms=1000 * _PREPARE
  )


def check_same(tree: Any) -> None:
  """Checks that all devices of all processes hold the same replicated arrays.

  A mask that differs on one device would show in no metric.
  """
  if jax.process_count() == 1:
    return
  names, checksums = _checksums(tree)
  everywhere = multihost_utils.process_allgather(checksums)  # [P, D, L]
  differs = (everywhere != everywhere[0, 0]).any(1)  # [P, L]
  if differs.any():
    leaf = int(np.argmax(differs.any(0)))
    where = np.flatnonzero(differs[:, leaf]).tolist()
    raise LostError(
      f'expected the same arrays in every process, but {names[leaf]} of '
      f'process(es) {where} differs from that of process 0; the last '
      'checkpoint is from before'
    )


def _gather_text(text: str) -> list[str]:
  """Returns the texts of all processes, once each has read its data."""
  wait()
  content = text.encode()[: _TEXT - 1]
  padded = np.zeros(_TEXT, np.uint8)
  padded[: len(content)] = np.frombuffer(content, np.uint8)
  return [
    row.tobytes().rstrip(b'\0').decode(errors='replace')
    for row in multihost_utils.process_allgather(padded)
  ]


def _checksums(tree: Any) -> tuple[list[str], np.ndarray]:
  """Returns the names of replicated and host arrays, and CRC-32s [D, L]."""
  names, checksums = [], []
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    copies = [leaf] * jax.local_device_count()  # an array of the host
    if isinstance(leaf, jax.Array):
      if not leaf.is_fully_replicated or not leaf.size:
        continue
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
      copies = [shard.data for shard in leaf.addressable_shards]
    names.append(jax.tree_util.keystr(path))
    checksums.append([zlib.crc32(np.asarray(x).tobytes()) for x in copies])
  return names, np.array(checksums, np.uint32).T
