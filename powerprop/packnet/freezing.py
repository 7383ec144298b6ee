"""Start and training of a task, with the weights of earlier tasks frozen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from powerprop.packnet import ownership
from sparsity import counts as counts_lib
from sparsity import drift
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import wrapper


def freeze(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` restricted to the sets that `with_sets` puts in its state.

  Entries outside the backward set are frozen, bitwise, whatever the momentum,
  weight decay or statistics of `inner`, and whether its state is kept between
  tasks or initialized again. A kept state is not reset, not even for entries
  drawn anew. Without `with_sets` everything is trained.

  The state is a `sparsity.SparseState`. Its sets are arrays, so that a compiled
  step accepts others. It must be outermost, see `sparsity.sparsify`.

  Example:
    >>> params = {'linear': {'w': jnp.array([[1.0, 2.0]])}}
    >>> tx = freeze(optax.sgd(1.0))
    >>> packed = ownership.init(params, num_tasks=1)
    >>> packed = ownership.claim(
    ...   params, packed, {'linear/w': jnp.array([[True, False]])})
    >>> state = with_sets(tx.init(params), training_sets(params, packed))
    >>> tx.update(params, state, params)[0]['linear']['w']
    Array([[ 0., -2.]], dtype=float32)
  """
  return wrapper.sparsify(
    inner,
    state_lib.Rule(
      init=lambda weights, counts, key: state_lib.everything(weights),
      refresh=lambda now, _: now.sets,
    ),
    _count_all,
    is_due=lambda count: jnp.zeros_like(count, bool),
  )


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
  ownership.check_alike('fresh parameters like params', fresh, params)
  check_capacity(state, min_free)
  return _start_task(params, state, fresh)


def check_capacity(state: ownership.PackState, min_free: int = 1) -> None:
  """Raises ValueError unless one more task fits, with `min_free` entries."""
  ownership.check_room(state)
  free = ownership.free_by_layer(state)
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


def training_sets(
  params: Any, state: ownership.PackState
) -> state_lib.ActiveSets:
  """Returns the sets for training the next task.

  The network uses all weights. Free weights and per-task parameters are
  trained, the rest by the first task only. Unlike in the sparse methods, the
  forward set is therefore not a subset of the backward set.
  """
  return state_lib.ActiveSets(
    state_lib.trues(params),
    _trained(params, state, owner=0, is_first=state.num_tasks == 0),
  )


def retraining_sets(
  params: Any, state: ownership.PackState
) -> state_lib.ActiveSets:
  """Returns the sets for retraining the last task after its `claim`.

  The network uses the weights in the task's mask. Weights it owns and per-task
  parameters are trained, the rest by the first task only.

  Raises:
    ValueError: If no task has been claimed.
  """
  masks = ownership.task_masks(state, state.num_tasks)
  return state_lib.ActiveSets(
    select_lib.put(state_lib.trues(params), masks),
    _trained(
      params, state, owner=state.num_tasks, is_first=state.num_tasks == 1
    ),
  )


def with_sets(
  opt_state: optax.OptState, sets: state_lib.ActiveSets
) -> optax.OptState:
  """Returns a state of `freeze`, also a nested one, with its sets replaced.

  The next update takes any parameters, such as those of `start_task`.

  Raises:
    ValueError: If `opt_state` does not hold exactly one `SparseState`, or the
      structure or shapes differ.
  """
  held = state_lib.sparse_state(opt_state).sets
  ownership.check_alike('sets like those in the state', sets, held)

  def replace(node):
    if not state_lib.is_sparse(node):
      return node
    return node._replace(sets=sets, expected=drift.forget(node.expected))

  return jax.tree.map(replace, opt_state, is_leaf=state_lib.is_sparse)


@jax.jit
def _start_task(params, state, fresh):
  drawn = select_lib.pick(fresh, [*state.owner, *state.copies])
  for path, layer in select_lib.pick(params, state.owner).items():
    drawn[path] = jnp.where(state.owner[path] == 0, drawn[path], layer)
  return select_lib.put(params, drawn)


def _trained(params, state, owner, is_first):
  """Returns masks of the trained entries: of `owner` in packed layers."""
  trained = {}
  for path, x in select_lib.path_leaves(params):
    if path in state.owner:
      trained[path] = state.owner[path] == owner
    else:
      is_trained = True if path in state.copies else is_first
      trained[path] = jnp.full(np.shape(x), is_trained)
  return select_lib.put(params, trained)


def _count_all(params) -> counts_lib.Counts:
  sizes = {path: int(np.size(x)) for path, x in select_lib.path_leaves(params)}
  return counts_lib.Counts(sizes, sizes, sizes, 'layer', {})
