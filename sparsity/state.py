"""Active sets, rules and the state of a sparse optimizer.

A sparse method is an Optax transformation whose state says which entries are
active; `sparsity.wrapper` makes it from a `Rule` and any optimizer.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import contextvars
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import drift
from sparsity import paths
from sparsity import schedules
from sparsity import select

Masks = dict[str, jax.Array]


class ActiveSets(NamedTuple):
  """Two trees of boolean masks like the parameters.

  A dense leaf, all of whose entries are active, has a single True, bool [], in
  place of its mask, unless Flax annotates it with the axes of a mesh.
  """

  forward: Any  # A: used by the network
  backward: Any  # B, a superset of A: reached by gradients and updates


class SparseState(NamedTuple):
  """State of a sparse optimizer."""

  # Updates made so far, int32 []; hides a method of tuples.
  count: jax.Array  # type: ignore[assignment]
  sets: ActiveSets
  inner: optax.OptState  # of the wrapped optimizer; as initialized outside B
  expected: drift.Expected  # parameters at the next update


class Refresh(NamedTuple):
  """Input of a rule that chooses the next sets, by layer path."""

  weights: Masks  # parameters of the next step
  gradients: Masks  # of the loss, dense, unmasked
  sets: ActiveSets  # in force until now
  # Updates made, including this one.
  count: jax.Array  # type: ignore[assignment]
  key: jax.Array  # unique to this refresh


class Rule(NamedTuple):
  """A sparse method: pure functions of the sparse layers, by path."""

  init: Callable[[Masks, counts_lib.Counts, jax.Array], ActiveSets]
  refresh: Callable[[Refresh, counts_lib.Counts], ActiveSets]
  # Maps a layer's parameters and gradients to the initial values of entries
  # that enter B; None keeps their values. With it A = B, and unless
  # scope='global' each layer is refreshed by itself.
  grow: Callable[[jax.Array, jax.Array], jax.Array] | None = None
  # If False, an update that refreshes is not a step; requires `grow`.
  steps: bool = True
  # Effect of a refresh: 'nothing', 'entries' (count unchanged), 'numbers'.
  changes: str = 'entries'


class SparseMethod(NamedTuple):
  """The arguments of `sparsify`."""

  inner: optax.GradientTransformationExtraArgs
  rule: Rule
  make_counts: Callable[[Any], counts_lib.Counts]
  is_due: schedules.Event
  make_key: Callable[[jax.Array], jax.Array]  # from the count of updates


class SparseTransformation(optax.GradientTransformationExtraArgs):
  """An Optax transformation that exposes its `method`."""

  method: SparseMethod


class Restriction(NamedTuple):
  """Sets and densities of the method around a link of the inner optimizer."""

  sets: ActiveSets
  forward_densities: dict[str, float]  # of every selected layer, by path


_restriction: contextvars.ContextVar[Restriction | None]
_restriction = contextvars.ContextVar('restriction', default=None)


def restriction() -> Restriction | None:
  """Returns the restriction of the update being made, or None outside of one.

  For links of an inner optimizer; an extra argument would reach every link.
  """
  return _restriction.get()


@contextlib.contextmanager
def restricted(sets: ActiveSets, densities: dict[str, float]) -> Iterator[None]:
  """Makes `restriction` return these sets and densities."""
  token = _restriction.set(Restriction(sets, densities))
  try:
    yield
  finally:
    _restriction.reset(token)


def active_sets(state: optax.OptState) -> ActiveSets:
  """Returns the sets in an optimizer state, however deeply nested.

  With several sparse transformations, as in `optax.partition`, an entry is
  active if it is in all of them. Parameters that are dense, or that none of
  them is given, have a single True in place of their mask.

  Raises:
    ValueError: If `state` holds no `SparseState`, or a stale one.
  """
  found = _sparse_states(state)
  if not found:
    raise ValueError(
      'expected an optimizer state with a SparseState, got '
      f'{type(state).__name__} with none'
    )
  sets = functools.reduce(_merge, (node.sets for node in found))
  return jax.tree.map(
    lambda mask: jnp.ones([], bool) if is_absent(mask) else mask,
    sets,
    is_leaf=is_absent,
  )


def sparse_state(state: optax.OptState) -> SparseState:
  """Returns the one `SparseState` in an optimizer state.

  Raises:
    ValueError: If there is none, or more than one, or it is stale.
  """
  found = _sparse_states(state)
  if len(found) != 1:
    raise ValueError(
      'expected an optimizer state with one SparseState, got '
      f'{type(state).__name__} with {len(found)}'
    )
  return found[0]


def _sparse_states(state) -> list[SparseState]:
  found = list(filter(is_sparse, jax.tree.leaves(state, is_leaf=is_sparse)))
  for node in found:
    drift.check(node.expected.is_stale)
  return found


def _merge(tree: Any, other: Any) -> Any:
  """Returns the intersection of masks; an absent part is that of the other."""
  if is_absent(tree) or is_absent(other):
    return other if is_absent(tree) else tree
  if jax.tree_util.all_leaves([tree]):
    return tree & other
  return jax.tree.map(_merge, tree, other, is_leaf=lambda x: x is not tree)


def is_sparse(node: Any) -> bool:
  """Returns True for a `SparseState`."""
  return isinstance(node, SparseState)


def is_absent(node: Any) -> bool:
  """Returns True in place of parameters that `optax.masked` leaves out."""
  return isinstance(node, optax.MaskedNode)


def map_like(
  fn: Callable[..., Any], state: optax.OptState, tree: Any, *states: Any
) -> optax.OptState:
  """Returns `state` with `fn` applied to leaves of subtrees like `tree`.

  Parts of a subtree may be absent, as in the states of `optax.masked`. Unlike
  `optax.tree.map_params` this takes states of any structure, and leaves alone
  all that is not shaped like the parameters' tree.

  Args:
    fn: maps a leaf, that of `tree` in its place, and those of `states`.
    states: of the structure of `state`.
  """

  def is_like(node):
    try:
      same = jax.tree.map(
        lambda x, y: is_absent(x) or jax.tree_util.all_leaves([y]),
        *(node, tree),
        is_leaf=is_absent,
      )
    except ValueError:
      return False
    return jax.tree.all(same)

  def apply(node, *others):
    if not is_like(node):
      return node
    return jax.tree.map(
      lambda x, *rest: x if is_absent(x) else fn(x, *rest),
      *(node, tree, *others),
      is_leaf=is_absent,
    )

  return jax.tree.map(apply, state, *states, is_leaf=is_like)


def forward_weights(params: Any, state: optax.OptState) -> Any:
  """Returns the weights of the network: `params` on A, zero elsewhere.

  `params` may be raw or reparameterized.

  Raises:
    ValueError: As in `active_sets`.
  """
  masks = active_sets(state).forward
  names, wanted = (
    [path for path, _ in select.path_leaves(tree)] for tree in (masks, params)
  )
  if names == wanted:  # in `nnx.Optimizer` the leaves are of another class
    masks = jax.tree.unflatten(
      jax.tree.structure(params), jax.tree.leaves(masks)
    )

  def apply(mask, tree):
    if not mask.ndim:
      return tree
    if jax.tree.map(jnp.shape, tree) != mask.shape:
      raise ValueError(
        f'expected parameters like the sets of the state, got a mask of shape '
        f'{mask.shape} for {jax.tree.map(jnp.shape, tree)}'
      )
    return masked(mask, tree)

  return jax.tree.map(apply, masks, params)


def masked(mask: jax.Array, x: jax.Array) -> jax.Array:
  """Returns `x` where the mask is True, zero elsewhere."""
  return jnp.where(mask, x, jnp.zeros_like(x))


def dense_sets(params: Any) -> ActiveSets:
  """Returns the sets of dense parameters: a single True for each.

  Those that are annotated with axes get masks, to which the axes apply.
  """

  def make(node):
    if paths.names_axes(node):
      return trues(node)
    return jnp.ones([], bool)

  return ActiveSets(
    *(jax.tree.map(make, params, is_leaf=paths.names_axes) for _ in range(2))
  )


def everything(weights: Masks) -> ActiveSets:
  """Returns sets of all entries, two copies so that both can be donated."""
  return ActiveSets(trues(weights), trues(weights))


def trues(params: Any) -> Any:
  """Returns a tree of masks that keep everything."""
  return jax.tree.map(lambda x: jnp.ones_like(x, bool), params)


def same_sets(masks: Masks) -> ActiveSets:
  """Returns A = B = `masks`, B as a copy so that both can be donated."""
  return ActiveSets(masks, jax.tree.map(jnp.copy, masks))
