"""Free capacity for the next task, and its use by earlier ones."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from powerprop.packnet import ownership
from sparsity import select as select_lib


class Usage(NamedTuple):
  """Fractions of the entries of a layer, after some task."""

  owned: float  # by this task or an earlier one
  free: float  # 1 - owned
  new: float  # owned by this task
  reused: float  # used by this task, owned by an earlier one


def start_task(
  params: Any, state: ownership.PackState, fresh: Any, *, min_free: int = 1
) -> Any:
  """Returns the initial parameters of the next task.

  Free entries and per-task parameters are taken from `fresh`; the others stay
  bitwise unchanged.

  Args:
    params: parameters at the end of the last task.
    state: ownership so far.
    fresh: newly initialized parameters, raw like `params`:
      `from_weights(net.init(...), alpha)`. Zeros continue from the pruned
      network, except with Powerpropagation, where zero is a fixed point.
    min_free: minimum number of free entries. With 0 a task may start without
      any: it selects among owned weights and trains its own parameters.

  Raises:
    ValueError: If there is no room for another task, too few entries are free
      (lists the usage by layer), or `fresh` is not like `params`.
  """
  _check_alike(params, fresh)
  check_capacity(state, min_free)
  return _start_task(params, state, fresh)


def usage(
  state: ownership.PackState, task: int | None = None
) -> dict[str, Usage]:
  """Returns the usage of each packed layer by path, and in total as `'all'`.

  Example:
    >>> params = {'linear': {'w': jnp.ones((2, 2))}}
    >>> state = ownership.init(params, num_tasks=2)
    >>> for mask in [[[1, 0], [0, 0]], [[1, 1], [0, 0]]]:
    ...   masks = {'linear/w': jnp.array(mask, bool)}
    ...   state = ownership.claim(params, state, masks)
    >>> usage(state)['linear/w']
    Usage(owned=0.5, free=0.5, new=0.25, reused=0.25)

  Args:
    state: ownership so far.
    task: usage after this task; by default the last one.

  Raises:
    ValueError: If there is no such task.
  """
  if task is None:
    task = int(state.num_tasks)
  if task:
    ownership.check_task(state, task)
  counts = jax.device_get(_count(state, task))
  sizes = {path: owner.size for path, owner in state.owner.items()}
  counts['all'] = np.sum([counts[path] for path in sizes], 0, np.int64)
  sizes['all'] = sum(sizes.values())
  return {path: _usage(counts[path], sizes[path]) for path in sizes}


def num_free(state: ownership.PackState) -> int:
  """Returns the number of entries without an owner."""
  return sum(free for free, _ in _free_and_size(state).values())


def check_capacity(state: ownership.PackState, min_free: int = 1) -> None:
  """Checks that one more task fits.

  Raises:
    ValueError: If there is no room for a task, or fewer than `min_free` entries
      are free; lists the usage by layer.
  """
  ownership.check_room(state)
  if num_free(state) >= min_free:
    return
  layers = '\n  '.join(
    f'{path}: {size - free} of {size} owned, {free} free'
    for path, (free, size) in _free_and_size(state).items()
  )
  raise ValueError(
    f'expected at least {min_free} free entries for task '
    f'{int(state.num_tasks) + 1}, got {num_free(state)}; keep fewer for each '
    f'task, or lower min_free:\n  {layers}'
  )


@jax.jit
def _start_task(params, state, fresh):
  drawn = select_lib.pick(fresh, [*state.owner, *state.copies])
  for path, layer in select_lib.pick(params, state.owner).items():
    drawn[path] = jnp.where(state.owner[path] == 0, drawn[path], layer)
  return select_lib.put(params, drawn)


@jax.jit
def _count(state, task):
  """Returns [owned, new, reused] by path, int32 [3], after a task."""
  counts = {}
  for path, mask in ownership.task_masks(state, jnp.maximum(task, 1)).items():
    owner = state.owner[path]
    is_owned = (owner > 0) & (owner <= task)
    is_new = is_owned & (owner == task)
    sets = (is_owned, is_new, is_owned & ~is_new & mask)
    counts[path] = jnp.stack([jnp.sum(s, dtype=jnp.int32) for s in sets])
  return counts


def _usage(counts, size) -> Usage:
  owned, new, reused = (int(count) / size for count in counts)
  return Usage(owned, 1 - owned, new, reused)


def _free_and_size(state) -> dict[str, tuple[int, int]]:
  free = {path: jnp.sum(owner == 0) for path, owner in state.owner.items()}
  return {
    path: (int(count), state.owner[path].size)
    for path, count in jax.device_get(free).items()
  }


def _check_alike(params, fresh) -> None:
  expected, given = (
    {
      path: (tuple(np.shape(x)), jnp.result_type(x))
      for path, x in select_lib.path_leaves(tree)
    }
    for tree in (params, fresh)
  )
  if expected != given:
    differing = dict(expected.items() ^ given.items())
    raise ValueError(
      'expected fresh parameters with the paths, shapes and dtypes of params, '
      f'got others for {sorted(differing)}'
    )
