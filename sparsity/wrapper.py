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
from sparsity import drift
from sparsity import masked
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
  step. It must therefore be the outermost transformation, or see `chain`:
  `update` raises if the parameters are not those that it expects, and under
  jit makes the updates NaN. `optax.MultiSteps`, `apply_if_finite`, `masked`
  and `partition` work on either side.

  While an entry is outside B its optimizer state is as `inner.init` makes it,
  so it starts afresh on return. Statistics not kept per entry (Adafactor's rows
  and columns) are left alone. `inner.init` gets parameters masked to B.

  A link of `inner` finds the sets in `sparsity.restriction()`.

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

  return restrict(
    state_lib.SparseMethod(
      inner, _on_auto_axes(rule), make_counts, is_due, make_key
    )
  )


def chain(
  tx: SparseTransformation, *links: optax.GradientTransformation
) -> SparseTransformation:
  """Returns a sparse method with `links` after its optimizer, inside.

  `optax.chain(tx, *links)` would change updates after the restriction to B,
  and move entries outside of it.

  Example:
    >>> import sparsity
    >>> tx = chain(
    ...   sparsity.static(optax.scale_by_adam(), density=0.1),
    ...   optax.add_decayed_weights(1e-4),
    ...   optax.scale_by_learning_rate(1e-3))

  Raises:
    ValueError: If `tx` is not one of this package's methods itself.
  """
  masked.check_method(tx)
  inner = optax.chain(tx.method.inner, *links)
  return restrict(tx.method._replace(inner=inner))


def restrict(method: state_lib.SparseMethod) -> SparseTransformation:
  """Returns the transformation of a method; see `sparsify`."""
  inner, rule = method.inner, method.rule

  def init(params):
    counts = method.make_counts(params)
    sets = state_lib.everything(params)
    layers = select.pick(params, counts.sizes)
    start = params
    counts_lib.warn_of_thin(layers, counts)
    if layers:
      chosen = rule.init(layers, counts, method.make_key(0))
      distributions.warn_of_empty(chosen.forward)
      sets = ActiveSets(*map(select.put, sets, chosen))
      start = _mask(params, dict(chosen.backward))
    count = jnp.zeros([], jnp.int32)
    return SparseState(count, sets, inner.init(start), drift.init(layers))

  def update(gradients, state, params=None, **extra):
    if params is None:
      raise ValueError(
        'expected parameters, got None: call update(gradients, state, params)'
      )
    counts = method.make_counts(params)
    layers = select.pick(params, counts.sizes)
    backward = select.pick(state.sets.backward, counts.sizes)
    count = optax.safe_increment(state.count)
    due = method.is_due(count)
    stale = drift.is_stale(state.expected, layers)
    with state_lib.restricted(state.sets, counts.forward_densities):
      updates, inner_state = inner.update(
        _mask(gradients, backward),
        state.inner,
        _mask(params, backward),
        **extra,
      )
    new = state._replace(count=count, inner=inner_state)
    if not layers:
      return updates, new
    updates = _mask(updates, backward, stale)
    if not rule.steps:
      updates = jax.tree.map(lambda x: jnp.where(due, 0, x), updates)
      inner_state = jax.tree.map(
        lambda old, new: jnp.where(due, old, new), state.inner, inner_state
      )
      new = new._replace(inner=inner_state)
    updates, new = _refresh_if(
      due, method, counts, params, gradients, updates, new
    )
    expected = drift.expect(
      state.expected,
      stale,
      optax.apply_updates(layers, select.pick(updates, layers)),
      select.pick(new.sets.backward, layers),
    )
    return updates, new._replace(expected=expected)

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
    inside = dict(chosen.backward)
    stays = jax.tree.map(jnp.logical_and, backward, inside)
    started = params
    if grow:
      enters = jax.tree.map(lambda new, old: new & ~old, inside, backward)
      values = jax.tree.map(jnp.where, enters, grown(), weights)
      started = select.put(params, values)
    fresh = method.inner.init(_mask(started, inside))
    return (
      jnp.zeros_like(due),
      ActiveSets(*map(select.put, sets, chosen)),
      _reset(inner_state, fresh, params, stays),
      enters,
    )

  # A loop of at most one round instead of a cond: loop carries are updated in
  # place, whereas a cond with one branch that reads the old sets copies them in
  # every step. Under vmap, too, nothing is computed until a refresh is due.
  enters = jax.tree.map(jnp.zeros_like, backward if grow else {})
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
  return updates, state._replace(sets=sets, inner=inner_state)


def _on_auto_axes(rule: state_lib.Rule) -> state_lib.Rule:
  """Returns the rule for parameters sharded over Explicit axes, too."""

  def init(weights, counts, key):
    first = rule.init
    if not isinstance(first, jax.tree_util.Partial):
      first = jax.tree_util.Partial(first)
    choose = topk.on_auto_axes(
      lambda first, weights, key: first(weights, counts, key),
      ActiveSets(weights, weights),
    )
    return choose(first, weights, key)

  def refresh(now, counts):
    choose = topk.on_auto_axes(
      lambda now: rule.refresh(now, counts),
      ActiveSets(now.weights, now.weights),
    )
    return choose(now)

  return rule._replace(init=init, refresh=refresh)


def _mask(tree, masks: Masks, is_stale=False):
  """Returns `tree` with the layers of `masks` masked, and NaN if stale."""

  def apply(mask, x):
    if is_stale is not False:
      x = jnp.where(is_stale, jnp.full_like(x, jnp.nan), x)
    return state_lib.masked(mask, x)

  layers = select.pick(tree, masks)
  return select.put(
    tree, {path: apply(masks[path], x) for path, x in layers.items()}
  )


def _reset(state, fresh, params, stays: Masks):
  """Returns `state`, but `fresh` wherever `stays` is False.

  Only trees like the parameters are kept per entry.
  """

  def reset(old, stay, new):
    if jnp.shape(stay) != jnp.shape(old):
      return old
    return jnp.where(stay, old, new)

  found: Any = jax.tree.structure(state)
  if found != jax.tree.structure(fresh):
    raise ValueError(
      'expected an optimizer whose state keeps the structure that it has after '
      'init, got one that changes it: leave this link out'
    )
  everywhere = jax.tree.map(lambda _: True, params)
  return state_lib.map_like(reset, state, select.put(everywhere, stays), fresh)
