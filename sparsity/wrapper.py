"""The wrapper that makes any optimizer sparse by a rule.

A method adds a `Rule`: the initial sets, and the next ones. All else is shared.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import distributions
from sparsity import schedules
from sparsity import select
from sparsity import state as state_lib
from sparsity import topk
from sparsity.state import ActiveSets
from sparsity.state import Masks
from sparsity.state import SparseState
from sparsity.state import SparseTransformation


def sparsify(
  inner: optax.GradientTransformation,
  rule: state_lib.Rule,
  make_counts: Callable[[Any], counts_lib.Counts],
  *,
  is_due: schedules.Event,
  seed: int = 0,
) -> SparseTransformation:
  """Returns `inner` restricted to the active sets of `rule`.

  Each update masks gradients and parameters to B, so that decay and norms are
  over B alone, applies `inner`, and masks its updates again. When `is_due`, the
  rule chooses new sets from `params + updates`, the parameters of the next
  step. It must therefore be the outermost transformation: a change of the
  updates after it makes the sets stale. `optax.MultiSteps` works on either
  side.

  While an entry is outside B its optimizer state is as `inner.init` makes it,
  so it starts afresh on return. Statistics not kept per entry (Adafactor's rows
  and columns) are left alone.

  `inner` gets two extra arguments: `active_sets`, an `ActiveSets`, and
  `forward_densities`, the density of every selected layer by path.

  Args:
    rule: the method. With `steps=False` a refresh leaves `inner` untouched.
    make_counts: maps parameters to the number of active entries by layer.
    is_due: event after whose updates the sets are refreshed.

  Returns:
    A transformation whose state is a `SparseState`; its update needs `params`.
  """
  inner = optax.GradientTransformationExtraArgs(
    inner.init, optax.with_extra_args_support(inner).update
  )

  def make_key(count):
    return jax.random.fold_in(jax.random.key(seed), count)

  rule = _on_auto_axes(rule)
  method = state_lib.SparseMethod(inner, rule, make_counts, is_due, make_key)

  def init(params):
    counts = make_counts(params)
    sets = state_lib.everything(params)
    if counts.sizes:
      weights = select.pick(params, counts.sizes)
      chosen = rule.init(weights, counts, make_key(0))
      distributions.warn_of_empty(chosen.forward)
      sets = ActiveSets(*map(select.put, sets, chosen))
    return SparseState(jnp.zeros([], jnp.int32), sets, inner.init(params))

  def update(gradients, state, params=None, **extra):
    if params is None:
      raise ValueError(
        'expected parameters, got None: call update(gradients, state, params)'
      )
    counts = make_counts(params)
    backward = select.pick(state.sets.backward, counts.sizes)
    updates, inner_state = inner.update(
      _mask(gradients, backward),
      state.inner,
      _mask(params, backward),
      active_sets=state.sets,
      forward_densities=counts.forward_densities,
      **extra,
    )
    updates = _mask(updates, backward)
    count = optax.safe_increment(state.count)
    if not counts.sizes:
      return updates, SparseState(count, state.sets, inner_state)
    due = is_due(count)
    if not rule.steps:
      updates = jax.tree.map(lambda x: jnp.where(due, 0, x), updates)
      inner_state = jax.tree.map(
        lambda old, new: jnp.where(due, old, new), state.inner, inner_state
      )
    state = SparseState(count, state.sets, inner_state)
    return _refresh_if(due, method, counts, params, gradients, updates, state)

  tx = SparseTransformation(init, update)
  tx.method = method
  return tx


def _refresh_if(
  due, method: state_lib.SparseMethod, counts, params, gradients, updates, state
) -> tuple[Any, SparseState]:
  """Returns the updates and the state, refreshed if due."""
  weights, slopes, changes, backward = (
    select.pick(tree, counts.sizes)
    for tree in (params, gradients, updates, state.sets.backward)
  )
  grow = method.rule.grow
  # Computed outside the loop so that XLA merges it with the caller's
  # `apply_updates`: no copy, bitwise identical. With grown entries the caller's
  # sum differs, and this one is needed inside the loop only.
  following = None if grow else optax.apply_updates(weights, changes)

  def grown():
    return {
      path: grow(x, slopes[path]).astype(x.dtype) for path, x in weights.items()
    }

  def refresh(carry):
    _, sets, inner_state, enters = carry
    backward = select.pick(sets.backward, counts.sizes)
    now = state_lib.Refresh(
      following or optax.apply_updates(weights, changes),
      slopes,
      ActiveSets(select.pick(sets.forward, counts.sizes), backward),
      state.count,
      method.make_key(state.count),
    )
    chosen = method.rule.refresh(now, counts)
    stays = jax.tree.map(jnp.logical_and, backward, dict(chosen.backward))
    started = params
    if grow:
      enters = jax.tree.map(
        lambda new, old: new & ~old, dict(chosen.backward), backward
      )
      values = jax.tree.map(jnp.where, enters, grown(), weights)
      started = select.put(params, values)
    return (
      jnp.zeros_like(due),
      ActiveSets(*map(select.put, sets, chosen)),
      _reset(method.inner, inner_state, started, stays),
      enters,
    )

  # A loop of at most one round instead of a cond: loop carries are updated in
  # place, whereas a cond with one branch that reads the old sets copies them in
  # every step. Under vmap, too, nothing is computed until a refresh is due.
  enters = jax.tree.map(jnp.zeros_like, backward) if grow else None
  _, sets, inner_state, enters = jax.lax.while_loop(
    lambda carry: carry[0], refresh, (due, state.sets, state.inner, enters)
  )
  if grow:
    # Entering weights move to their initial value.
    starts = jax.tree.map(jnp.subtract, grown(), weights)
    changes = {
      path: jnp.where(enters[path], starts[path].astype(x.dtype), x)
      for path, x in changes.items()
    }
    updates = select.put(updates, changes)
  return updates, SparseState(state.count, sets, inner_state)


def _on_auto_axes(rule: state_lib.Rule) -> state_lib.Rule:
  """Returns the rule for parameters sharded over Explicit axes, too."""

  def init(weights, counts, key):
    choose = topk.on_auto_axes(
      lambda weights, key: rule.init(weights, counts, key),
      ActiveSets(weights, weights),
    )
    return choose(weights, key)

  def refresh(now, counts):
    choose = topk.on_auto_axes(
      lambda now: rule.refresh(now, counts),
      ActiveSets(now.weights, now.weights),
    )
    return choose(now)

  return rule._replace(init=init, refresh=refresh)


def _mask(tree, masks: Masks):
  """Returns `tree` with the layers of `masks` masked."""
  layers = select.pick(tree, masks)
  return select.put(
    tree, {path: state_lib.masked(masks[path], x) for path, x in layers.items()}
  )


def _reset(inner, state, params, stays: Masks):
  """Returns `state` as `inner.init` makes it wherever `stays` is False."""

  def is_absent(node):
    return isinstance(node, optax.MaskedNode)

  everywhere = jax.tree.map(lambda _: True, params)
  stays = optax.tree.map_params(
    inner,
    lambda old, stays: old if is_absent(old) else stays,
    state,
    select.put(everywhere, stays),
    transform_non_params=lambda _: True,
    is_leaf=is_absent,
  )
  return jax.tree.map(
    lambda stay, old, new: (
      jnp.where(stay, old, new) if jnp.shape(stay) == jnp.shape(old) else old
    ),
    stays,
    state,
    inner.init(params),
  )
