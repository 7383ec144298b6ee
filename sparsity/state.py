"""The one wrapper: a rule and any optimizer become a sparse optimizer.

A sparse method is an Optax transformation whose state says which entries are
active. All methods share what is written here: gradients and updates on the
backward set only, a refresh when it is due, a fresh start for the optimizer's
state of entries that leave or enter. A method adds a `Rule`: which sets to
begin with, and which come next.
"""

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple
import zlib

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import schedules
from sparsity import select

Masks = dict[str, jax.Array]


class ActiveSets(NamedTuple):
  """Two trees of boolean masks shaped like the parameters."""

  forward: Any  # A: what the network sees; True everywhere on dense leaves
  backward: Any  # B, a superset of A: what gradients and updates reach


class SparseState(NamedTuple):
  """State of a sparse optimizer."""

  count: jax.Array  # int32 [], updates made so far
  sets: ActiveSets
  inner: optax.OptState  # of the wrapped optimizer; initial outside B


class Refresh(NamedTuple):
  """What a rule may look at when it chooses the next sets, by layer path."""

  weights: Masks  # parameters of the next step
  gradients: Masks  # of the loss, dense, before any masking
  sets: ActiveSets  # in force until now
  count: jax.Array  # int32 [], updates made, this one included
  key: jax.Array  # of this refresh alone


class Rule(NamedTuple):
  """A sparse method: pure functions of the sparse layers, by path."""

  init: Callable[[Masks, counts_lib.Counts, jax.Array], ActiveSets]
  refresh: Callable[[Refresh, counts_lib.Counts], ActiveSets]
  # From a layer's parameters and gradients to where entries that enter B start,
  # entry by entry; None: where they are.
  grow: Callable[[jax.Array, jax.Array], jax.Array] | None = None
  # Whether an update that refreshes is also a step of the optimizer.
  steps: bool = True
  # What a refresh changes: 'nothing', 'entries' (as many as before), 'numbers'.
  changes: str = 'entries'


class SparseMethod(NamedTuple):
  """What `sparsify` was given."""

  inner: optax.GradientTransformationExtraArgs
  rule: Rule
  make_counts: Callable[[Any], counts_lib.Counts]
  is_due: schedules.Event
  make_key: Callable[[jax.Array], jax.Array]  # of the count of updates


class SparseTransformation(optax.GradientTransformationExtraArgs):
  """An Optax transformation that can tell what it is made of."""

  method: SparseMethod


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
    backward = select.pick(state.sets.backward, counts.sizes)
    count = optax.safe_increment(state.count)
    due = is_due(count)
    updates, inner_state = inner.update(
      _mask(gradients, backward),
      state.inner,
      _mask(params, backward),
      active_sets=state.sets,
      forward_densities=counts.forward_densities,
      **extra,
    )
    updates = _mask(updates, backward)
    if not counts.sizes:
      return updates, SparseState(count, state.sets, inner_state)
    if not rule.steps:
      updates = jax.tree.map(lambda x: jnp.where(due, 0, x), updates)
      inner_state = jax.tree.map(
        lambda old, new: jnp.where(due, old, new), state.inner, inner_state
      )

    weights, slopes, changes = (
      select.pick(tree, counts.sizes) for tree in (params, gradients, updates)
    )
    # Outside of the branch, so that the compiler finds it to be the very sum
    # that the caller makes: no second copy, and not a bit of difference. Where
    # grown entries come after it, it is not that sum, and needed only inside.
    following = None if rule.grow else optax.apply_updates(weights, changes)

    def grown():
      return {
        path: rule.grow(x, slopes[path]).astype(x.dtype)
        for path, x in weights.items()
      }

    def refresh(carry):
      _, sets, inner_state, enters = carry
      backward = select.pick(sets.backward, counts.sizes)
      now = Refresh(
        following or optax.apply_updates(weights, changes),
        slopes,
        ActiveSets(select.pick(sets.forward, counts.sizes), backward),
        count,
        make_key(count),
      )
      chosen = rule.refresh(now, counts)
      stays = jax.tree.map(jnp.logical_and, backward, dict(chosen.backward))
      started = params
      if rule.grow:
        enters = jax.tree.map(_without, dict(chosen.backward), backward)
        values = jax.tree.map(jnp.where, enters, grown(), weights)
        started = select.put(params, values)
      return (
        jnp.zeros_like(due),
        ActiveSets(*map(select.put, sets, chosen)),
        _reset(inner, inner_state, started, stays),
        enters,
      )

    # A loop of no or one round, and not a cond: what a loop carries stays in
    # place, whereas a cond whose one branch reads the old sets copies them in
    # every step. Under vmap, too, it computes nothing until one is due.
    enters = jax.tree.map(jnp.zeros_like, backward) if rule.grow else None
    _, sets, inner_state, enters = jax.lax.while_loop(
      lambda carry: carry[0], refresh, (due, state.sets, inner_state, enters)
    )
    if rule.grow:
      changes = jax.tree.map(_start, enters, grown(), weights, changes)
      updates = select.put(updates, changes)
    return updates, SparseState(count, sets, inner_state)

  tx = SparseTransformation(init, update)
  tx.method = SparseMethod(inner, rule, make_counts, is_due, make_key)
  return tx


def layer_keys(key: jax.Array, paths: Iterable[str]) -> dict[str, jax.Array]:
  """Returns a random key for each layer, which its path alone decides."""
  return {
    path: jax.random.fold_in(key, zlib.crc32(path.encode())) for path in paths
  }


def active_sets(state: optax.OptState) -> ActiveSets:
  """Returns the sets in an optimizer's state, wherever it is nested.

  Raises:
    ValueError: If `state` does not hold exactly one `SparseState`.
  """
  return sparse_state(state).sets


def sparse_state(state: optax.OptState) -> SparseState:
  """Returns the one `SparseState` in an optimizer's state.

  Raises:
    ValueError: If there is none, or more than one.
  """

  def is_sparse(node):
    return isinstance(node, SparseState)

  found = list(filter(is_sparse, jax.tree.leaves(state, is_leaf=is_sparse)))
  if len(found) != 1:
    raise ValueError(
      'expected an optimizer state with one SparseState, got '
      f'{type(state).__name__} with {len(found)}'
    )
  return found[0]


def forward_weights(params: Any, state: optax.OptState) -> Any:
  """Returns what the network sees: `params` on A, zero elsewhere.

  Shapes:
    params: a tree like the one the optimizer was initialized with, raw or
      reparameterized; the result has the same shapes and dtypes.

  Raises:
    ValueError: If `state` does not hold exactly one `SparseState`.
  """
  return jax.tree.map(_where, active_sets(state).forward, params)


def _where(mask, x):
  return jnp.where(mask, x, jnp.zeros_like(x))


def _trues(params):
  return jax.tree.map(lambda x: jnp.ones(jnp.shape(x), bool), params)


def _mask(tree, masks: Masks):
  """Returns `tree`, on the layers of `masks` zero where the mask is False."""
  layers = select.pick(tree, masks)
  return select.put(
    tree, {path: _where(masks[path], x) for path, x in layers.items()}
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
