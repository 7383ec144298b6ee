"""What is left for the next task, and what the tasks so far made of theirs."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from powerprop.packnet import ownership
from sparsity import select as select_lib


class Usage(NamedTuple):
  """Shares of the entries of a layer, after some task."""

  owned: float  # by this task or an earlier one
  free: float  # 1 - owned
  new: float  # owned by this task
  reused: float  # used by this task, owned by an earlier one


def start_task(
  params: Any, state: ownership.PackState, fresh: Any, *, min_free: int = 1
) -> Any:
  """Returns the parameters with which to begin the next task.

  Entries that no task owns, and the parameters of which each task has its own,
  are taken from `fresh`; the others stay, bit for bit.

  Args:
    params: Parameters at the end of the last task.
    state: The state.
    fresh: Newly drawn parameters, raw if `params` are:
      `from_weights(net.init(...), alpha)`. Zeros go on from the pruned network,
      but not with Powerpropagation, which cannot leave them.
    min_free: How many free entries the task needs. With 0 a task goes on
      without: it can choose among the weights there are, and train what each
      task has of its own.

  Raises:
    ValueError: If there is no room for another task, fewer entries are free
      than needed (lists who owns what), or `fresh` is not like `params`.
  """
  _check_alike(params, fresh)
  check_capacity(state, min_free)
  return _start_task(params, state, fresh)


def usage(
  state: ownership.PackState, task: int | None = None
) -> dict[str, Usage]:
  """Returns for each packed layer, and for `'all'`, what is owned and reused.

  Example:
    >>> params = {'linear': {'w': jnp.ones((2, 2))}}
    >>> state = ownership.init(params, num_tasks=2)
    >>> for mask in [[[1, 0], [0, 0]], [[1, 1], [0, 0]]]:
    ...   masks = {'linear/w': jnp.array(mask, bool)}
    ...   state = ownership.claim(params, state, masks)
    >>> usage(state)['linear/w']
    Usage(owned=0.5, free=0.5, new=0.25, reused=0.25)

  Args:
    state: The state.
    task: After which task; None: after the last one, if there is one.

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
  """Returns how many entries no task owns; 0 if the network is exhausted."""
  return sum(free for free, _ in _free_and_size(state).values())


def check_capacity(state: ownership.PackState, min_free: int = 1) -> None:
  """Raises unless there is room for one more task, and enough that is free.

  Raises:
    ValueError: Otherwise; says for each layer how much is owned.
  """
  ownership.check_room(state)
  if num_free(state) >= min_free:
    return
  figures = '\n  '.join(
    f'{path}: {size - free} of {size} owned, {free} free'
    for path, (free, size) in _free_and_size(state).items()
  )
  raise ValueError(
    f'expected at least {min_free} free entries for task '
    f'{int(state.num_tasks) + 1}, got {num_free(state)}; keep less for each '
    f'task, or ask for less with min_free:\n  {figures}'
  )


@jax.jit
def _start_task(params, state, fresh):
  drawn = select_lib.pick(fresh, [*state.owner, *state.copies])
  for path, layer in select_lib.pick(params, state.owner).items():
    drawn[path] = jnp.where(state.owner[path] == 0, drawn[path], layer)
  return select_lib.put(params, drawn)


@jax.jit
def _count(state, task):
  """Returns by path [owned, new, reused], int32 [3], after a task."""
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
  def describe(tree):
    return {
      select_lib.join(module, name): (tuple(np.shape(x)), jnp.result_type(x))
      for module, name, x in select_lib.named_leaves(tree)
    }

  expected, given = describe(params), describe(fresh)
  if expected != given:
    differing = dict(expected.items() ^ given.items())
    raise ValueError(
      'expected fresh parameters with the paths, shapes and dtypes of params, '
      f'got others for {sorted(differing)}'
    )
