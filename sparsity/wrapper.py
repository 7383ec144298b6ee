"""The one wrapper: a rule and any optimizer become a sparse optimizer.

All sparse methods share what is written here: gradients and updates on the
backward set only, a refresh when it is due, a fresh start for the optimizer's
state of entries that leave or enter. A method adds a `Rule`: which sets to
begin with, and which come next.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import schedules
from sparsity import select
from sparsity import state as state_lib
from sparsity.state import ActiveSets
from sparsity.state import Masks
from sparsity.state import Refresh
from sparsity.state import Rule
from sparsity.state import SparseMethod
from sparsity.state import SparseState
from sparsity.state import SparseTransformation


def sparsify(
  inner: optax.GradientTransformation,
  rule: Rule,
  make_counts: Callable[[Any], counts_lib.Counts],
  *,
  is_due: schedules.Event,
  seed: int = 0,
) -> SparseTransformation:
  """Returns `inner` restricted to the sets that `rule` chooses.

  Each update masks gradients and parameters to B, so that decay and norms are
  of B alone, lets `inner` act, masks what it returns once more (it must not
  move what is outside), and, when `is_due`, chooses new sets from
  `params + updates`, the parameters of the next step. It must therefore be the
  outermost transformation: whatever changes the updates afterwards makes the
  sets stale. `optax.MultiSteps` may be on either side.

  A rule may say at which values entries that enter B start, and that an update
  that refreshes is no step: then `inner` is as if it had not been called.

  The optimizer's state of an entry is as `inner.init` makes it while the entry
  is outside B, so an entry that comes back starts afresh. Statistics that are
  not kept entry by entry (Adafactor's rows and columns) are left alone.

  `inner` gets two extra arguments: `active_sets`, an `ActiveSets`, and
  `forward_densities`, a dictionary from the path of each selected layer to its
  share of forward entries.

  Args:
    inner: the optimizer.
    rule: which sets to begin with, and which come next.
    make_counts: from parameters to how many entries of which layers.
    is_due: whether to refresh after that many updates.
    seed: of the rule's random choices.

  Returns:
    A transformation whose state is a `SparseState`; its update needs `params`.
  """
  inner = optax.GradientTransformationExtraArgs(
    inner.init, optax.with_extra_args_support(inner).update
  )

  def make_key(count):
    return jax.random.fold_in(jax.random.key(seed), count)

  method = SparseMethod(inner, rule, make_counts, is_due, make_key)

  def init(params):
    counts = make_counts(params)
    sets = ActiveSets(_trues(params), _trues(params))
    if counts.sizes:
      weights = select.pick(params, counts.sizes)
      chosen = rule.init(weights, counts, make_key(0))
      sets = ActiveSets(*map(select.put, sets, chosen))
    return SparseState(jnp.zeros([], jnp.int32), sets, inner.init(params))

  def update(gradients, state, params=None, **extra):
    if params is None:
      raise ValueError(
        'expected parameters, got None: call update(gradients, state, params)'
      )
    counts = make_counts(params)
    updates, inner_state = _inner_update(
      method, counts, gradients, state, params, extra
    )
    following = SparseState(
      optax.safe_increment(state.count), state.sets, inner_state
    )
    if not counts.sizes:
      return updates, following
    due = is_due(following.count)
    if not rule.steps:
      updates = jax.tree.map(lambda x: jnp.where(due, 0, x), updates)
      inner_state = jax.tree.map(
        lambda old, new: jnp.where(due, old, new), state.inner, inner_state
      )
      following = following._replace(inner=inner_state)
    return _refresh_if(
      due, method, counts, params, gradients, updates, following
    )

  tx = SparseTransformation(init, update)
  tx.method = method
  return tx


def _inner_update(method, counts, gradients, state, params, extra):
  """Returns the updates and the state of the optimizer, restricted to B."""
  backward = select.pick(state.sets.backward, counts.sizes)
  updates, inner_state = method.inner.update(
    _mask(gradients, backward),
    state.inner,
    _mask(params, backward),
    active_sets=state.sets,
    forward_densities=counts.forward_densities,
    **extra,
  )
  return _mask(updates, backward), inner_state


def _refresh_if(
  due, method: SparseMethod, counts, params, gradients, updates, state
) -> tuple[Any, SparseState]:
  """Returns updates and state, with new sets if it is due."""
  weights, slopes, changes = (
    select.pick(tree, counts.sizes) for tree in (params, gradients, updates)
  )
  grow = method.rule.grow
  # Outside of the loop, so that the compiler finds it to be the very sum that
  # the caller makes: no second copy, and not a bit of difference. Where grown
  # entries come after it, it is not that sum, and needed only inside.
  following = None if grow else optax.apply_updates(weights, changes)

  def grown():
    return {
      path: grow(x, slopes[path]).astype(x.dtype) for path, x in weights.items()
    }

  def refresh(carry):
    _, sets, inner_state, enters = carry
    backward = select.pick(sets.backward, counts.sizes)
    now = Refresh(
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
      enters = jax.tree.map(_without, dict(chosen.backward), backward)
      values = jax.tree.map(jnp.where, enters, grown(), weights)
      started = select.put(params, values)
    return (
      jnp.zeros_like(due),
      ActiveSets(*map(select.put, sets, chosen)),
      _reset(method.inner, inner_state, started, stays),
      enters,
    )

  # A loop of no or one round, and not a cond: what a loop carries stays in
  # place, whereas a cond whose one branch reads the old sets copies them in
  # every step. Under vmap, too, it computes nothing until one is due.
  backward = select.pick(state.sets.backward, counts.sizes)
  enters = jax.tree.map(jnp.zeros_like, backward) if grow else None
  _, sets, inner_state, enters = jax.lax.while_loop(
    lambda carry: carry[0], refresh, (due, state.sets, state.inner, enters)
  )
  if grow:
    changes = jax.tree.map(_start, enters, grown(), weights, changes)
    updates = select.put(updates, changes)
  return updates, SparseState(state.count, sets, inner_state)


def _trues(params):
  return jax.tree.map(lambda x: jnp.ones(jnp.shape(x), bool), params)


def _mask(tree, masks: Masks):
  """Returns `tree`, on the layers of `masks` zero where the mask is False."""
  layers = select.pick(tree, masks)
  return select.put(
    tree, {path: state_lib.masked(masks[path], x) for path, x in layers.items()}
  )


def _without(a, b):
  return a & ~b


def _start(enters, value, weight, update):
  """Returns the update that brings what enters from its weight to a value."""
  return jnp.where(enters, (value - weight).astype(update.dtype), update)


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
