"""An update of a sparse optimizer: its step, and the refresh of the sets.

XLA updates an array in place if nothing reads the old one afterwards. Hence the
order of operations here: an ordinary step copies no array.
"""

from collections.abc import Callable
import functools
import itertools
from typing import Any
from typing import NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import select
from sparsity import state as state_lib
from sparsity.state import ActiveSets
from sparsity.state import Masks
from sparsity.state import SparseState


class Update(NamedTuple):
  """The arguments of an update."""

  method: state_lib.SparseMethod
  counts: counts_lib.Counts
  gradients: Any
  params: Any
  state: SparseState  # with the count of this update
  stale: jax.Array  # bool []
  extra: dict[str, Any]  # further arguments of the optimizer

  def pick(self, tree: Any) -> Masks:
    """Returns the leaves of the sparse layers, by path."""
    return select.pick(tree, self.counts.sizes)

  @property
  def is_due(self) -> jax.Array:
    """True if this update refreshes the sets, bool []."""
    return self.method.is_due(self.state.count)

  def choose(self, weights: Masks, sets: ActiveSets) -> ActiveSets:
    """Returns the next sets of the layers in `weights`."""
    gradients = self.pick(self.gradients)
    now = state_lib.Refresh(
      weights,
      {path: gradients[path] for path in weights},
      sets,
      self.state.count,
      self.method.make_key(self.state.count),
    )
    counts = self.counts
    if counts.scope == 'layer':
      numbers: Any = counts.sizes, counts.forward, counts.backward
      sizes, forward, backward = (
        {path: x[path] for path in weights} for x in numbers
      )
      counts = counts._replace(sizes=sizes, forward=forward, backward=backward)
    return self.method.rule.refresh(now, counts)


def make_update(given: Update) -> tuple[Any, SparseState]:
  """Returns the updates and the state, with sets refreshed if due."""
  refresh = _grow if given.method.rule.grow else _refresh
  return refresh(given)


def step(given: Update) -> tuple[Any, SparseState]:
  """Returns updates on B and the state after a step of the optimizer."""
  state, backward = given.state, given.pick(given.state.sets.backward)
  with state_lib.restricted(state.sets, given.counts.forward_densities):
    updates, inner = given.method.inner.update(
      mask(given.gradients, backward),
      state.inner,
      mask(given.params, backward),
      **given.extra,
    )
  return mask(updates, backward, given.stale), state._replace(inner=inner)


def _refresh(given: Update) -> tuple[Any, SparseState]:
  """Returns a step, after which the sets are refreshed if due."""
  method, params = given.method, given.params
  updates, state = step(given)
  # Computed outside the loop so that XLA merges it with the caller's
  # `apply_updates`: no copy, bitwise identical.
  following = optax.apply_updates(given.pick(params), given.pick(updates))

  def refresh(carry):
    _, sets, inner = carry
    before = ActiveSets(*map(given.pick, sets))
    chosen = given.choose(following, before)
    stays = jax.tree.map(jnp.logical_and, before.backward, chosen.backward)
    fresh = method.inner.init(mask(params, dict(chosen.backward)))
    return (
      jnp.zeros_like(given.is_due),
      ActiveSets(*map(select.put, sets, chosen)),
      _reset(inner, fresh, params, stays),
    )

  _, sets, inner = _if_due(refresh, (given.is_due, state.sets, state.inner))
  return updates, state._replace(sets=sets, inner=inner)


def _grow(given: Update) -> tuple[Any, SparseState]:
  """Returns a step and refresh of a rule that gives entering weights values.

  First the optimizer's state, then A, part by part, then the updates, which
  depend on both. The state returned has the old B: see `settle`.
  """
  method, params, due = given.method, given.params, given.is_due
  before = given.pick(given.state.sets.backward)

  def correct(inner):
    if method.rule.steps:
      return inner
    return jax.tree.map(
      lambda old, new: jnp.where(due, old, new), given.state.inner, inner
    )

  args = (
    mask(given.gradients, before), given.state.inner, mask(params, before),
  )  # fmt: skip
  with state_lib.restricted(given.state.sets, given.counts.forward_densities):
    inner, make_updates = _split(
      functools.partial(method.inner.update, **given.extra), correct, *args
    )

  def following(flag):
    if not method.rule.steps:
      return given.pick(params)
    # Tied to a value of the loop, or XLA computes them outside, in every step.
    weights, state, values = jax.tree.map(
      lambda x: jax.lax.optimization_barrier((x, flag))[0],
      (given.pick(params), inner, args),
    )
    updates = mask(make_updates(state, *values), before)
    return optax.apply_updates(weights, given.pick(updates))

  def choose(paths, carry):
    flag, forward = carry
    weights = following(flag)
    chosen = given.choose(
      {path: weights[path] for path in paths}, ActiveSets(forward, forward)
    )
    return jnp.zeros_like(due), dict(chosen.forward)

  old: Masks = given.pick(given.state.sets.forward)
  after: Masks = {}
  groups = [list(old)]
  if given.counts.scope == 'layer':
    groups = _parts({path: x.size for path, x in old.items()})
  for paths in groups:
    carry = due, {path: old[path] for path in paths}
    after |= _if_due(functools.partial(choose, paths), carry)[1]
  updates = mask(make_updates(inner, *args), before, given.stale)
  if not method.rule.steps:
    updates = jax.tree.map(lambda x: jnp.where(due, 0, x), updates)
  weights, gradients = given.pick(params), given.pick(given.gradients)
  grow: Any = method.rule.grow
  changes = {}
  for path, x in given.pick(updates).items():
    start = grow(weights[path], gradients[path]).astype(x.dtype)
    enters = after[path] & ~before[path]
    changes[path] = jnp.where(enters, start - weights[path], x)
  sets = given.state.sets
  sets = sets._replace(forward=select.put(sets.forward, after))
  state = given.state._replace(sets=sets, inner=inner)
  return select.put(updates, changes), state


def _parts(sizes: dict[str, int]) -> list[list[str]]:
  """Returns the layers in parts of one search each: few, as each takes time.

  A part may have half of all entries, or little more than the largest layer.
  """
  parts: list[list[str]] = []
  total, limit = 0, max(sum(sizes.values()) / 2, 1.2 * max(sizes.values()))
  for path, size in sizes.items():
    if not parts or total + size > limit:
      parts.append([])
      total = 0
    parts[-1].append(path)
    total += size
  return parts


def settle(given: Update, following: Masks, state: SparseState) -> SparseState:
  """Returns the state after `_grow`, with B = A and entries reset.

  The updates read both. Only a loop whose condition depends on the parameters
  of the next step, `following`, may overwrite them without a copy.
  """
  values = state.expected.values
  integer = jnp.dtype(f'int{8 * values.dtype.itemsize}')
  bits = jax.lax.bitcast_convert_type(values, integer)
  is_any = jnp.bitwise_or.reduce(bits) | 1 != 0  # true, as XLA cannot see
  due = given.is_due & is_any
  after = given.pick(state.sets.forward)

  def refresh(carry):
    _, before, inner = carry
    params = select.put(given.params, following)
    fresh = given.method.inner.init(mask(params, after))
    stays = jax.tree.map(jnp.logical_and, before, after)
    return jnp.zeros_like(due), after, _reset(inner, fresh, params, stays)

  carry = due, given.pick(state.sets.backward), state.inner
  _, backward, inner = _if_due(refresh, carry)
  backward = select.put(state.sets.backward, backward)
  return state._replace(
    sets=state.sets._replace(backward=backward), inner=inner
  )


def _split(
  fn: Callable[..., tuple[Any, Any]], correct: Callable[[Any], Any], *args: Any
) -> tuple[Any, Callable[..., Any]]:
  """Returns a corrected state, and a function from it to the updates.

  With `updates, state = fn(*args)`, the state is `correct(state)`, and
  `make_updates(corrected, *args)` returns the updates that `fn` makes of the
  corrected arrays. A correction after `fn` would make XLA compute the new state
  twice, for itself and for the updates, and so copy the old one.
  """
  closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
  jaxpr, num_updates = closed.jaxpr, len(jax.tree.leaves(shapes[0]))
  outputs = jaxpr.outvars[num_updates:]
  made = {x for eqn in jaxpr.eqns if len(eqn.outvars) == 1 for x in eqn.outvars}
  given = [isinstance(x, core.Var) and x in made for x in outputs]
  variables = list(itertools.compress(outputs, given))
  rest = [x for x in jaxpr.eqns if not set(variables) & set(x.outvars)]

  def evaluate(inputs, outputs, eqns, values):
    part = jaxpr.replace(
      invars=[*jaxpr.invars, *inputs],
      outvars=outputs,
      eqns=eqns,
      debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return jax.core.eval_jaxpr(part, closed.consts, *jax.tree.leaves(values))

  def make_updates(state, *args):
    known = list(itertools.compress(jax.tree.leaves(state), given))
    outputs = jaxpr.outvars[:num_updates]
    updates = evaluate(variables, outputs, rest, (args, known))
    return jax.tree.unflatten(jax.tree.structure(shapes[0]), updates)

  state = evaluate([], outputs, jaxpr.eqns, args)
  state = jax.tree.unflatten(jax.tree.structure(shapes[1]), state)
  return correct(state), make_updates


def _if_due(body: Callable[[Any], Any], carry: Any) -> Any:
  """Returns `body(carry)` if the first element of the carry, `carry` else.

  A loop of at most one round instead of a cond: loop carries are updated in
  place, whereas a cond with one branch that reads the old sets copies them in
  every step. Under vmap, too, nothing is computed until a refresh is due.
  """
  return jax.lax.while_loop(lambda carry: carry[0], body, carry)


def mask(tree, masks: Masks, is_stale=False):
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
