"""Ownership of weights by tasks, their parameters, and what is free.

Tasks are numbered 1, 2, ... in the order of their claims.

Shapes:
  T: maximum number of tasks.
"""

from collections.abc import Mapping
import operator
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from sparsity import select as select_lib
from sparsity import state as state_lib

Layers = dict[str, jax.Array]


class PackState(NamedTuple):
  """Owner and users of every weight; the shapes are fixed.

  A parameter is packed if its path is in `owner`, per-task if it is in
  `copies`, and otherwise trained by the first task only.
  """

  num_tasks: jax.Array  # int32 [], tasks claimed so far
  owner: Layers  # by path, shaped like the layer: the owning task; 0 is free
  masks: Layers  # uint8 [T, ceil(size / 8)] by path: one bit per entry
  copies: Layers  # [T, ...] by path: values of the per-task parameters


class Usage(NamedTuple):
  """Fractions of the entries of a layer, after some task."""

  owned: float  # by this task or an earlier one
  free: float  # 1 - owned
  new: float  # owned by this task
  reused: float  # used by this task, owned by an earlier one


def init(
  params: Any,
  *,
  num_tasks: int,
  select: select_lib.Predicate = select_lib.is_weight,
  is_head: select_lib.Predicate | None = None,
  per_task_heads: bool = True,
  per_task_biases: bool = False,
) -> PackState:
  """Returns the state before the first task, with everything free.

  Heads are never packed: each task has its own, or all share that of the first
  task. The same choice exists for biases and normalization.

  Example:
    >>> params = {'linear': {'w': jnp.ones((4, 4)), 'b': jnp.ones(4)}}
    >>> state = init(params, num_tasks=10)
    >>> state.owner['linear/w'].dtype, state.masks['linear/w'].shape
    (dtype('uint8'), (10, 2))

  Args:
    select: predicate for the packed parameters, heads excepted.
    per_task_biases: give each task its own copy of all parameters that are
      neither packed nor heads.

  Raises:
    ValueError: If `num_tasks` is less than 1, no parameter is packed, or
      `is_head` selects none.
  """
  if operator.index(num_tasks) < 1:
    raise ValueError(f'expected at least one task, got num_tasks={num_tasks}')
  heads = select_lib.selected_paths(params, is_head) if is_head else {}
  packed = select_lib.selected_paths(
    params,
    select_lib.all_of(
      select,
      lambda module, name, _: select_lib.join(module, name) not in heads,
    ),
  )
  copied = {
    path: value
    for path, value in select_lib.selected_paths(
      params, select_lib.is_any
    ).items()
    if path not in packed
    and (per_task_heads if path in heads else per_task_biases)
  }
  dtype = np.min_scalar_type(num_tasks)
  return PackState(
    jnp.zeros([], jnp.int32),
    {path: jnp.zeros(x.shape, dtype) for path, x in packed.items()},
    {
      path: jnp.zeros((num_tasks, -(-x.size // 8)), jnp.uint8)
      for path, x in packed.items()
    },
    {
      path: jnp.zeros((num_tasks, *x.shape), x.dtype)
      for path, x in copied.items()
    },
  )


def claim(params: Any, state: PackState, masks: Mapping[str, Any]) -> PackState:
  """Returns the state after the next task, which uses the entries in `masks`.

  The task becomes the owner of the free ones among them. Its copies of the
  per-task parameters are taken from `params`.

  Raises:
    ValueError: If there is no room for another task, or the masks do not fit.
  """
  check_room(state)
  shapes = {path: owner.shape for path, owner in state.owner.items()}
  given = {path: np.shape(mask) for path, mask in masks.items()}
  dtypes = {jnp.result_type(mask) for mask in masks.values()}
  if given != shapes or dtypes != {jnp.dtype(bool)}:
    raise ValueError(
      f'expected a boolean mask for each packed layer, of {shapes}, got {given}'
      f' of {sorted(map(str, dtypes))}'
    )
  return _claim(params, state, dict(masks))


@jax.jit
def store_copies(params: Any, state: PackState) -> PackState:
  """Returns the state with the last task's copies taken from `params`.

  Call it after retraining a claimed task.
  """
  values = select_lib.pick(params, state.copies)
  return state._replace(
    copies={
      path: copies.at[state.num_tasks - 1].set(values[path])
      for path, copies in state.copies.items()
    }
  )


def task_masks(state: PackState, task: int | jax.Array) -> Layers:
  """Returns the boolean masks of the entries a task uses, by path.

  A traced task is not checked; a later one than claimed uses nothing.

  Raises:
    ValueError: If there is no such task.
  """
  check_task(state, task)
  masks = {}
  for path, packed in state.masks.items():
    owner = state.owner[path]
    bits = lax.dynamic_index_in_dim(packed, task - 1, keepdims=False)
    flat = jnp.unpackbits(bits, count=owner.size)
    masks[path] = flat.reshape(owner.shape).astype(bool)
  return masks


def task_params(params: Any, state: PackState, task: int | jax.Array) -> Any:
  """Returns the parameters of a task, zero outside its mask.

  They are bitwise independent of the training of later tasks. Raw parameters
  give raw parameters: masks and Powerpropagation commute.

  Raises:
    ValueError: If there is no such task.
  """
  masks = task_masks(state, task)
  masked = {
    path: state_lib.masked(masks[path], layer)
    for path, layer in select_lib.pick(params, masks).items()
  }
  own = {
    path: lax.dynamic_index_in_dim(copies, task - 1, keepdims=False)
    for path, copies in state.copies.items()
  }
  return select_lib.put(params, masked | own)


def check_room(state: PackState) -> None:
  """Raises ValueError unless there is room for one more task."""
  if int(state.num_tasks) >= _room(state):
    raise ValueError(
      f'expected at most {_room(state)} tasks, as given to init, got one '
      'more: raise num_tasks'
    )


def check_task(state: PackState, task: int | jax.Array) -> None:
  """Raises ValueError unless a task, if not traced, has been claimed."""
  if isinstance(task, jax.core.Tracer):
    return
  claimed = state.num_tasks
  is_traced = isinstance(claimed, jax.core.Tracer)
  last = _room(state) if is_traced else int(claimed)
  if not 1 <= int(task) <= last:
    raise ValueError(
      f'expected one of the {last} tasks claimed so far, counted from 1, got '
      f'{int(task)}'
    )


def usage(state: PackState, task: int | None = None) -> dict[str, Usage]:
  """Returns the usage of each packed layer by path, and in total as `'all'`.

  After `task`, by default the last one.

  Example:
    >>> params = {'linear': {'w': jnp.ones((2, 2))}}
    >>> state = init(params, num_tasks=2)
    >>> for mask in [[[1, 0], [0, 0]], [[1, 1], [0, 0]]]:
    ...   masks = {'linear/w': jnp.array(mask, bool)}
    ...   state = claim(params, state, masks)
    >>> usage(state)['linear/w']
    Usage(owned=0.5, free=0.5, new=0.25, reused=0.25)

  Raises:
    ValueError: If there is no such task.
  """
  if task is None:
    task = int(state.num_tasks)
  if task:
    check_task(state, task)
  masks = jax.device_get(task_masks(state, task)) if task else {}
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


def num_free(state: PackState) -> int:
  """Returns the number of entries without an owner."""
  return sum(free_by_layer(state).values())


def free_by_layer(state: PackState) -> dict[str, int]:
  """Returns `num_free` of each packed layer, by path."""
  free = {path: jnp.sum(owner == 0) for path, owner in state.owner.items()}
  return {path: int(n) for path, n in jax.device_get(free).items()}


@jax.jit
def _claim(params, state, masks):
  task = state.num_tasks + 1
  owner, packed = {}, {}
  for path, mask in masks.items():
    now = state.owner[path]
    is_new = mask & (now == 0)
    owner[path] = jnp.where(is_new, task.astype(now.dtype), now)
    packed[path] = state.masks[path].at[task - 1].set(jnp.packbits(mask))
  return store_copies(params, PackState(task, owner, packed, state.copies))


def _room(state) -> int:
  return next(iter(state.masks.values())).shape[0]


def check_alike(name: str, given: Any, expected: Any) -> None:
  """Raises ValueError unless trees have the same paths, shapes and dtypes."""
  given, expected = (
    {
      path: (tuple(np.shape(x)), jnp.result_type(x))
      for path, x in select_lib.path_leaves(tree)
    }
    for tree in (given, expected)
  )
  if differing := dict(given.items() ^ expected.items()):
    raise ValueError(
      f'expected {name}, with the same paths, shapes and dtypes, got others '
      f'for {sorted(differing)}'
    )
