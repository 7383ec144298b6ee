"""Checkpoints over Orbax, with checksums.

A checkpoint is a state (any tree of arrays) and metadata (JSON), committed
atomically. A state is restored only into the structure it was saved with, bit
for bit; if the newest checkpoint is unreadable, the one before it is used.
"""

from collections.abc import Mapping
import itertools
import json
import logging
import os
import pathlib
import shutil
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments import multihost
from experiments import rundir

FORMAT = 4  # version of the files; raise it when a state's form changes

_ITEM = 'default'  # subfolder of the arrays
_DELETED = 'deleted-'  # prefix of a checkpoint during its deletion
_logger = logging.getLogger(__name__)


class SaveError(OSError):
  """A checkpoint could not be written; the ones before it are unchanged."""


class Checkpoints:
  """The checkpoints in one folder; open in one run at a time.

  Example:
    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp(), max_to_keep=2)
    >>> for step in (100, 200, 300):
    ...   checkpoints.save(step, {'w': jnp.ones(2) * step}, {'loss': 0.5})
    >>> checkpoints.steps()
    [200, 300]
    >>> checkpoints.restore({'w': jax.ShapeDtypeStruct((2,), jnp.float32)})
    ({'w': Array([300., 300.], dtype=float32)}, {'loss': 0.5, 'step': 300})
  """

  def __init__(
    self, directory: str | os.PathLike[str], max_to_keep: int | None
  ):
    """Opens a folder, created by the first `save` if absent.

    Keeps the newest `max_to_keep` and those saved with `keep_always`; None:
    read-only, even while a run trains there.
    """
    self._directory = pathlib.Path(directory).absolute()
    self._max_to_keep = max_to_keep
    self._kept: set[int] = set()  # never deleted; unreadable ones included
    if max_to_keep is None:
      return
    if multihost.is_first():  # remains of a killed process
      for pattern in ('*.orbax-checkpoint-tmp*', f'{_DELETED}*'):
        for path in self._directory.glob(pattern):
          _delete(path)
    for step in self.steps():
      contents = self._attempt({}, self._describe, step)
      if contents is None or contents['keep_always']:
        self._kept.add(step)

  def steps(self) -> list[int]:
    """Returns the saved steps in ascending order."""
    names = [path.name for path in self._directory.glob('*')]
    return sorted(int(name) for name in names if name.isdecimal())

  def latest(self) -> int | None:
    """Returns the newest step, or None if there is none."""
    return max(self.steps(), default=None)

  def save(
    self,
    step: int,
    state: Any,
    metadata: Mapping[str, Any],
    keep_always: bool = False,
  ) -> None:
    """Saves a state; the checkpoint is complete on return.

    `restore` returns the metadata, and the step, as JSON has them. With
    `keep_always` the checkpoint is never deleted. Raises SaveError if it
    cannot be written, or there is one of this step.
    """
    arrays = _by_path(state)
    described = {
      'keep_always': keep_always,
      'version': rundir.VERSION,
      'types': _types(arrays),
      'crc32': _checksum(arrays),
      'metadata': {**metadata, 'step': step},
    }
    contents = rundir.to_json(described)
    crc32 = zlib.crc32(contents.encode())
    handler = ocp.PyTreeCheckpointHandler()
    saver = ocp.Checkpointer(ocp.CompositeCheckpointHandler(**{_ITEM: handler}))
    arguments = ocp.args.PyTreeSave(_without_empty(arrays))
    try:
      saver.save(
        self._directory / str(step),
        args=ocp.args.Composite(**{_ITEM: arguments}),
        custom_metadata={
          'format': FORMAT, 'contents': contents, 'crc32': crc32
        },
      )  # fmt: skip
      if keep_always:
        self._kept.add(step)
      self._rotate()
    except Exception as error:  # Orbax raises many types for a full disk.
      raise SaveError(
        f'expected to write checkpoint {step} in {self._directory}, but: '
        f'{_first_line(error)}; make room there'
      ) from error

  def _rotate(self) -> None:
    """Deletes all but the newest checkpoints and the kept ones."""
    if multihost.is_first():
      older = set(self.steps()[: -self._max_to_keep])
      for step in older - self._kept:
        deleted = self._directory / f'{_DELETED}{step}'
        _delete((self._directory / str(step)).rename(deleted))
    multihost.wait()

  def restore(
    self, like: Any, step: int | None = None
  ) -> tuple[Any, dict[str, Any]]:
    """Returns `(state, metadata)`; the state as saved, bit for bit.

    `like` is a tree of arrays or `jax.ShapeDtypeStruct`s: the structure and the
    shardings to restore to; without a sharding, the first device. Step None is
    the newest readable one; unreadable checkpoints that are newer are renamed
    to `unreadable-STEP` and logged.

    Raises FolderError if none is readable, or it does not fit `like`.
    """
    steps = self.steps()
    if not steps or (step is not None and step not in steps):
      wanted = '' if step is None else f' of step {step}'
      raise rundir.FolderError(
        f'expected a checkpoint{wanted} in {self._directory}; got {steps}'
      )
    types, failures = _types(_by_path(like)), {}
    for candidate in reversed(steps) if step is None else [step]:
      contents = self._attempt(failures, self._describe, candidate)
      if contents is None:
        continue
      _check_types(contents, types, self._directory / str(candidate))
      crc32 = contents['crc32']
      state = self._attempt(failures, self._read, candidate, like, crc32)
      if state is not None:
        self._set_aside(failures)
        return state, contents['metadata']
    reasons = '\n  '.join(f'step {s}: {why}' for s, why in failures.items())
    raise rundir.FolderError(
      f'expected a readable checkpoint in {self._directory}; got\n  {reasons}'
    )

  def _describe(self, step: int) -> dict[str, Any]:
    """Returns the description that `save` wrote beside the arrays."""
    path = self._directory / str(step)
    if path.is_symlink() or not path.is_dir():
      raise ValueError('it is a link or a file, not a folder')
    description = ocp.metadata.get_step_metadata(path).custom_metadata
    text = description['contents']
    if description['format'] != FORMAT:
      raise ValueError(
        f'expected format {FORMAT}, got {description["format"]} of version '
        f'{json.loads(text).get("version", "0.2.0")}; go on with that version'
      )
    if zlib.crc32(text.encode()) != description['crc32']:
      raise ValueError('the description of its contents is altered')
    contents = json.loads(text)
    if contents['metadata']['step'] != step:
      raise ValueError(f'it was saved at step {contents["metadata"]["step"]}')
    return contents

  def _read(self, step: int, like: Any, crc32: int | None) -> Any:
    """Returns the state of a checkpoint, in the structure of `like`."""
    shapes = _by_path(like)
    target = jax.tree.map(_with_sharding, _without_empty(shapes))
    path = self._directory / str(step) / _ITEM
    restored = ocp.PyTreeCheckpointHandler().restore(
      path,
      args=ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
      ),
    )
    arrays = {
      path: restored[path] if x.size else jnp.zeros(x.shape, x.dtype)
      for path, x in shapes.items()
    }
    if _checksum(arrays) != crc32:
      raise ValueError('the checksum of its arrays differs from the saved one')
    return jax.tree.unflatten(jax.tree.structure(like), arrays.values())

  def _attempt(self, failures, function, step, *args):
    """Returns `function(step, *args)`, or None if it fails in any process."""
    result = None
    try:
      result = function(step, *args)
    except Exception as error:  # Orbax raises many types for a broken file.
      failures[step] = _first_line(error)
    if not multihost.largest(result is None):
      return result
    failures.setdefault(step, 'another process cannot read it')
    return None

  def _set_aside(self, failures: dict[int, str]) -> None:
    """Renames unreadable checkpoints, so that their steps are free again."""
    is_read_only = self._max_to_keep is None
    for step, why in failures.items():
      name, aside = self._directory / str(step), f'unreadable-{step}'
      for number in itertools.count(2):
        if not os.path.lexists(self._directory / aside):
          break
        aside = f'unreadable-{step}-{number}'
      if not is_read_only and multihost.is_first():
        name.rename(self._directory / aside)
      self._kept.discard(step)
      _logger.warning(
        'Checkpoint %s cannot be read; %sgoing back to the one before it. (%s)',
        name, '' if is_read_only else f'renamed to {aside}, ', why,
      )  # fmt: skip
    if failures and not is_read_only:
      multihost.wait()


def _delete(path: pathlib.Path) -> None:
  """Deletes a folder, or a file or link in its place."""
  if path.is_symlink() or not path.is_dir():
    path.unlink()
  else:
    shutil.rmtree(path)


def _first_line(error: Exception) -> str:
  line = str(error).strip().partition('\n')[0]
  return f'{type(error).__name__}: {line[:200]}'


def _without_empty(arrays: dict[str, Any]) -> dict[str, Any]:
  """Returns the arrays that have entries; Orbax refuses the others."""
  return {path: x for path, x in arrays.items() if x.size}


def _with_sharding(leaf: Any) -> Any:
  if not isinstance(leaf, jax.ShapeDtypeStruct) or leaf.sharding is not None:
    return leaf
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _by_path(tree: Any) -> dict[str, Any]:
  """Returns the arrays of a tree by path: `{"['linear']['w']": ...}`."""
  arrays = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): x for path, x in arrays}


def _types(arrays: Mapping[str, Any]) -> dict[str, str]:
  """Returns dtype and shape by path: `{"['w']": 'float32[300,100]'}`."""
  return {
    path: f'{x.dtype}[{",".join(map(str, x.shape))}]'
    for path, x in arrays.items()
  }


def _check_types(contents: Mapping, expected: Mapping, name: os.PathLike):
  saved, version = contents['types'], contents.get('version', 'unknown')
  for path in [*expected, *saved]:
    there, here = saved.get(path, 'absent'), expected.get(path, 'absent')
    if there != here:
      raise rundir.FolderError(
        f'checkpoint {name} (version {version}, now {rundir.VERSION}) does not '
        f'fit: {path or "the state"} is {there} there, {here} expected'
      )


def _checksum(arrays: Mapping[str, Any]) -> int | None:
  """Returns the CRC-32 of all bytes; None if some are on other hosts."""
  value = 0
  for leaf in arrays.values():
    if isinstance(leaf, jax.Array):
      if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        return None
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    value = zlib.crc32(array.reshape(-1).view(np.uint8), value)
  return value
