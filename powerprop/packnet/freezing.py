"""Owned weights stay as they are: sets given from outside to any optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from powerprop.packnet import ownership
from sparsity import counts as counts_lib
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import wrapper


def freeze(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` on the sets that `with_sets` puts into its state.

  What is outside of the backward set is frozen, bit for bit, whatever the
  momentum, weight decay or statistics of `inner`, and whether its state is kept
  from one task to the next or made afresh by `init`. A kept state holds what it
  held, also for entries that are drawn anew. Before `with_sets` everything is
  trained.

  The state is a `sparsity.SparseState`, and the sets are arrays in it: a
  compiled step goes on with others as it is.

  Example:
    >>> params = {'linear': {'w': jnp.array([[1.0, 2.0]])}}
    >>> tx = freeze(optax.sgd(1.0))
    >>> packed = ownership.init(params, num_tasks=1)
    >>> packed = ownership.claim(
    ...   params, packed, {'linear/w': jnp.array([[True, False]])})
    >>> state = with_sets(tx.init(params), training_sets(params, packed))
    >>> tx.update(params, state, params)[0]['linear']['w']
    Array([[ 0., -2.]], dtype=float32)

  Args:
    inner: Any optimizer; `powerprop.powerprop(...)` for Powerpropagation too.

  Returns:
    A transformation that has to be the outermost, see `sparsity.sparsify`.
  """
  return wrapper.sparsify(
    inner,
    state_lib.Rule(init=_everything, refresh=lambda now, _: now.sets),
    _count_all,
    is_due=lambda count: jnp.zeros_like(count, bool),
  )


def training_sets(
  params: Any, state: ownership.PackState
) -> state_lib.ActiveSets:
  """Returns the sets for training the next task.

  The network sees all weights. Those that are free are trained, and what each
  task has of its own; the rest in the first task alone. Unlike in the sparse
  methods, the forward set is therefore not a part of the backward set.
  """
  return state_lib.ActiveSets(
    jax.tree.map(lambda x: jnp.ones(np.shape(x), bool), params),
    _trained(params, state, owner=0, is_first=state.num_tasks == 0),
  )


def retraining_sets(
  params: Any, state: ownership.PackState
) -> state_lib.ActiveSets:
  """Returns the sets for training the last task on, after its `claim`.

  The network sees the weights of the task's masks. Those that it owns are
  trained, and what each task has of its own; the rest in the first task alone.

  Raises:
    ValueError: If no task has been claimed.
  """
  everywhere = jax.tree.map(lambda x: jnp.ones(np.shape(x), bool), params)
  masks = ownership.task_masks(state, state.num_tasks)
  return state_lib.ActiveSets(
    select_lib.put(everywhere, masks),
    _trained(
      params, state, owner=state.num_tasks, is_first=state.num_tasks == 1
    ),
  )


def with_sets(
  opt_state: optax.OptState, sets: state_lib.ActiveSets
) -> optax.OptState:
  """Returns an optimizer's state in which other sets are in force.

  Args:
    opt_state: A state of `freeze`, however nested.
    sets: Like those in it.

  Raises:
    ValueError: If `opt_state` does not hold exactly one `SparseState`, or the
      sets are of other shapes than those it holds.
  """
  held = _describe(state_lib.active_sets(opt_state))
  given = _describe(sets)
  if held != given:
    raise ValueError(
      f'expected sets like those in the state, {held}, got {given}'
    )

  def is_sparse(node):
    return isinstance(node, state_lib.SparseState)

  return jax.tree.map(
    lambda node: node._replace(sets=sets) if is_sparse(node) else node,
    opt_state,
    is_leaf=is_sparse,
  )


def _trained(params, state, owner, is_first):
  """Returns a tree of masks: packed layers where `owner` owns, and the rest."""
  trained = {}
  for module, name, x in select_lib.named_leaves(params):
    path = select_lib.join(module, name)
    if path in state.owner:
      trained[path] = state.owner[path] == owner
    else:
      is_trained = True if path in state.copies else is_first
      trained[path] = jnp.full(np.shape(x), is_trained)
  return select_lib.put(params, trained)


def _everything(weights, *_):
  def trues():
    return {path: jnp.ones(x.shape, bool) for path, x in weights.items()}

  return state_lib.ActiveSets(trues(), trues())


def _count_all(params) -> counts_lib.Counts:
  """Returns the counts that make all parameters subject to the sets."""
  sizes = {
    select_lib.join(module, name): int(np.size(x))
    for module, name, x in select_lib.named_leaves(params)
  }
  return counts_lib.Counts(sizes, sizes, sizes, 'layer', {})


def _describe(sets):
  return jax.tree.map(lambda x: (np.shape(x), jnp.result_type(x).name), sets)
