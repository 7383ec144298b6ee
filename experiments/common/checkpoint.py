"""Checkpoints over Orbax: the newest few, and some for ever.

A checkpoint is a state (any tree of arrays) and metadata (JSON). Orbax makes it
appear as a whole or not at all. What this adds: a state comes back only into
the structure it had, with an error that names the first difference; and where
the newest checkpoint cannot be read, the one before it is used.
"""

from collections.abc import Mapping
import json
import logging
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from experiments.common import lean
from experiments.common import processes
from experiments.common import quiet
from experiments.common import run
from experiments.common import stored

FORMAT = 1  # Of what is saved beside the state; raise it when that changes.

_logger = logging.getLogger(__name__)


class SaveError(OSError):
  """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
  """The checkpoints in one folder; for one process at a time.

  Example:
    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp(), keep=2)
    >>> for step in (100, 200, 300):
    ...   checkpoints.save(step, {'w': jnp.ones(2) * step}, {'loss': 0.5})
    >>> checkpoints.steps()
    [200, 300]
    >>> checkpoints.restore({'w': jax.ShapeDtypeStruct((2,), jnp.float32)})
    ({'w': Array([300., 300.], dtype=float32)}, {'loss': 0.5})
  """

  def __init__(self, directory: str | os.PathLike[str], keep: int | None):
    """Opens the folder, and creates it if absent.

    Args:
      directory: Where the checkpoints are, each a folder named by its step.
      keep: How many of those that may rotate are kept. None: they are only
        read, and nothing in the folder is touched, whoever trains there.

    Raises:
      ValueError: If `keep` is less than 1.
    """
    if keep is not None and keep < 1:
      raise ValueError(f'expected keep >= 1, got {keep}')
    self._directory = pathlib.Path(directory).absolute()
    self._read_only = keep is None
    self._policy = _KeepNewest(keep or 0)
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False,
        read_only=self._read_only,
        save_interval_steps=0 if self._read_only else 1,
        create=not self._read_only,
        cleanup_tmp_directories=not self._read_only,
        preservation_policy=self._policy,
      ),
      item_handlers=ocp.PyTreeCheckpointHandler(),
    )
    for step in self.steps():
      try:
        rotates = not self._describe(step)['keep_always']
      except Exception:  # Of whatever kind: what cannot be read is not deleted.
        rotates = False
      if not rotates:
        self._policy.kept.add(step)

  def steps(self) -> list[int]:
    """Returns the steps that are saved, in ascending order."""
    return sorted(self._manager.all_steps())

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
    """Saves a state; when it returns, the checkpoint is complete.

    Args:
      step: Later than every step that is saved.
      state: A tree of arrays; other leaves are errors.
      metadata: Plain data, returned by `restore` as JSON has it.
      keep_always: Whether this one never rotates.

    Raises:
      ValueError: If the step is not later, or a leaf is not an array.
      TypeError: If `metadata` is not plain data.
      SaveError: If it could not be written.
    """
    latest = self.latest()
    if latest is not None and step <= latest:
      raise ValueError(
        f'expected a step later than {latest}, the newest in '
        f'{self._directory}; got {step}'
      )
    description = {
      'format': FORMAT,
      'keep_always': keep_always,
      'leaves': stored.leaves(state),
      'checksum': stored.checksum(state),
      'metadata': json.loads(run.to_json(metadata)),
    }
    if keep_always:
      self._policy.kept.add(step)
    try:
      with quiet.quiet(), lean.lean():
        self._manager.save(
          step,
          args=ocp.args.PyTreeSave(_without_empty(state)),
          custom_metadata=description,
          force=True,
        )
    except Exception as error:  # Orbax raises many kinds for a full disk.
      lost = processes.explained(error)
      if lost is not error:
        raise lost from error
      raise SaveError(
        f'expected to write checkpoint {step} in {self._directory}, but: '
        f'{_first_line(error)}; make room there'
      ) from error

  def restore(
    self, like: Any, step: int | None = None
  ) -> tuple[Any, dict[str, Any]]:
    """Returns `(state, metadata)` as they were saved, bit for bit.

    Args:
      like: A tree of arrays or `jax.ShapeDtypeStruct`s: the structure, and
        where the arrays go. Without a sharding that is the first device.
      step: Which one; None is the newest that can be read. Newer ones that
        cannot are set aside as `unreadable-STEP`, and logged.

    Raises:
      ValueError: If there is none, none can be read (one of another format
        cannot), or it does not fit `like`; the first difference is named.
    """
    steps = self.steps()
    if not steps or (step is not None and step not in steps):
      asked = 'a checkpoint' if step is None else f'a checkpoint of step {step}'
      raise run.FolderError(
        f'expected {asked} in {self._directory}; got {steps}'
      )
    failures: dict[int, str] = {}
    for candidate in reversed(steps) if step is None else [step]:
      description = self._attempt(failures, candidate, self._describe)
      if description is None:
        continue
      _check(
        description, like, f'checkpoint {self._directory / str(candidate)}'
      )
      state = self._attempt(failures, candidate, self._read, like, description)
      if state is not None:
        self._set_aside(failures)
        return state[0], description['metadata']
    reasons = '\n  '.join(f'step {s}: {why}' for s, why in failures.items())
    raise run.FolderError(
      f'expected a readable checkpoint in {self._directory}; got\n  {reasons}'
    )

  def _describe(self, step: int) -> dict[str, Any]:
    """Returns what `save` wrote beside the state."""
    description = self._manager.metadata(step).custom_metadata
    if not description or 'format' not in description:
      raise ValueError('the description of its contents is missing')
    if description['format'] != FORMAT:
      raise ValueError(
        f'expected format {FORMAT}, got {description["format"]}; another '
        'version of this program saved it'
      )
    return description

  def _read(self, step: int, like: Any, description: dict) -> tuple[Any]:
    target = jax.tree.map(_with_sharding, _without_empty(like))
    stored.check_sizes(self._manager.item_metadata(step).tree, target)
    restored = self._manager.restore(
      step,
      args=ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
      ),
    )
    state = _with_empty(restored, like)
    if stored.checksum(state) != description['checksum']:
      raise ValueError('its checksum is not the one saved')
    return (state,)  # Not the state itself, which may be None.

  def _attempt(self, failures, step, function, *args):
    """Returns `function(step, *args)`, or None and a note in `failures`.

    With several processes all get the one or all get the other.
    """
    result = None
    try:
      with quiet.quiet(), lean.lean():
        result = function(step, *args)
    except Exception as error:  # Orbax raises many kinds for a broken file.
      failures[step] = _first_line(error)
    if not processes.is_true_of_all(result is not None):
      failures.setdefault(step, 'another process cannot read it')
      return None
    return result

  def _set_aside(self, failures: dict[int, str]) -> None:
    """Renames checkpoints that cannot be read, so that they are not found."""
    if not failures:
      return
    if self._read_only:
      _logger.warning('Going back before what cannot be read: %s', failures)
      return
    for step, why in failures.items():
      aside = self._directory / f'unreadable-{step}'
      if processes.is_first():
        shutil.rmtree(aside, ignore_errors=True)
        (self._directory / str(step)).rename(aside)
      self._policy.kept.discard(step)
      _logger.warning(
        'Checkpoint %d cannot be read and is now %s; going back to the one '
        'before it. (%s)', step, aside, why,
      )  # fmt: skip
    if failures:
      processes.wait()
      self._manager.reload()


class _KeepNewest(ocp.checkpoint_managers.PreservationPolicy):
  """Keeps the newest `num` that may rotate, and all that may not."""

  def __init__(self, num: int):
    self.num = num
    self.kept: set[int] = set()  # These never rotate.

  def should_preserve(self, checkpoints, *, context):
    """Returns a flag for each checkpoint: is it kept?"""
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    rotating = sorted(set(steps) - self.kept)
    newest = set(rotating[-self.num :])
    return [step in self.kept or step in newest for step in steps]


def _check(description: dict[str, Any], like: Any, name: str) -> None:
  """Checks that a checkpoint fits `like`."""
  there = description['leaves']
  expected = stored.leaves(like)
  for path in [*expected, *there]:
    if there.get(path) != expected.get(path):
      raise run.FolderError(
        f'{name} does not fit: {path or "the state"} is '
        f'{there.get(path, "absent")} there, '
        f'{expected.get(path, "absent")} expected'
      )


def _first_line(error: Exception) -> str:
  line = str(error).strip().partition('\n')[0]
  return f'{type(error).__name__}: {line[:200]}'


def _without_empty(tree: Any) -> Any:
  """Returns `tree` with None for arrays of no entries, which Orbax refuses."""
  return jax.tree.map(lambda x: x if x.size else None, tree)


def _with_empty(tree: Any, like: Any) -> Any:
  leaves = iter(jax.tree.leaves(tree))
  return jax.tree.map(
    lambda x: next(leaves) if x.size else jnp.zeros(x.shape, x.dtype), like
  )


def _with_sharding(leaf: Any) -> Any:
  if not isinstance(leaf, jax.ShapeDtypeStruct) or leaf.sharding is not None:
    return leaf
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
