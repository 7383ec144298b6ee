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

  After `task`, by default the last one.

  Example:
    >>> params = {'linear': {'w': jnp.ones((2, 2))}}
    >>> state = ownership.init(params, num_tasks=2)
    >>> for mask in [[[1, 0], [0, 0]], [[1, 1], [0, 0]]]:
    ...   masks = {'linear/w': jnp.array(mask, bool)}
    ...   state = ownership.claim(params, state, masks)
    >>> usage(state)['linear/w']
    Usage(owned=0.5, free=0.5, new=0.25, reused=0.25)

  Raises:
    ValueError: If there is no such task.
  """
  if task is None:
    task = int(state.num_tasks)
  if task:
    ownership.check_task(state, task)
  masks = jax.device_get(ownership.task_masks(state, task)) if task else {}
  counts = {}
  for path, owner in jax.device_get(state.owner).items():
    is_owned = (owner > 0) & (owner <= task)
    is_reused = is_owned & (owner < task) & masks.get(path, False)
    sets = (is_owned, is_owned & (owner == task), is_reused)
    counts[path] = np.array([owner.size, *map(np.count_nonzero, sets)])
  counts['all'] = np.sum(list(counts.values()), 0)
  shares = {path: (x[1:] / x[0]).tolist() for path, x in counts.items()}
  return {
    path: Usage(owned, 1 - owned, new, reused)
    for path, (owned, new, reused) in shares.items()
  }


def num_free(state: ownership.PackState) -> int:
  """Returns the number of entries without an owner."""
  return sum(_num_free(state).values())


def check_capacity(state: ownership.PackState, min_free: int = 1) -> None:
  """Checks that one more task fits.

  Raises:
    ValueError: If there is no room for a task, or fewer than `min_free` entries
      are free; lists the usage by layer.
  """
  ownership.check_room(state)
  free = _num_free(state)
  if sum(free.values()) >= min_free:
    return
  layers = '\n  '.join(
    f'{path}: {owner.size - free[path]} of {owner.size} owned, '
    f'{free[path]} free'
    for path, owner in state.owner.items()
  )
  raise ValueError(
    f'expected at least {min_free} free entries for task '
    f'{int(state.num_tasks) + 1}, got {sum(free.values())}; keep fewer for '
    f'each task, or lower min_free:\n  {layers}'
  )


@jax.jit
def _start_task(params, state, fresh):
  drawn = select_lib.pick(fresh, [*state.owner, *state.copies])
  for path, layer in select_lib.pick(params, state.owner).items():
    drawn[path] = jnp.where(state.owner[path] == 0, drawn[path], layer)
  return select_lib.put(params, drawn)


def _num_free(state) -> dict[str, int]:
  free = {path: jnp.sum(owner == 0) for path, owner in state.owner.items()}
  return {path: int(n) for path, n in jax.device_get(free).items()}


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
