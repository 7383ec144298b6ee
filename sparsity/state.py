"""Active sets, rules and the state of a sparse optimizer.

A sparse method is an Optax transformation whose state says which entries are
active; `sparsity.wrapper` makes it from a `Rule` and any optimizer.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsity import counts as counts_lib
from sparsity import schedules
from sparsity import select

Masks = dict[str, jax.Array]


class ActiveSets(NamedTuple):
  """Two trees of boolean masks shaped like the parameters."""

  forward: Any  # A: used by the network; True everywhere on dense leaves
  backward: Any  # B, a superset of A: reached by gradients and updates


class SparseState(NamedTuple):
  """State of a sparse optimizer."""

  count: jax.Array  # int32 [], updates made so far
  sets: ActiveSets
  inner: optax.OptState  # of the wrapped optimizer; as initialized outside B


class Refresh(NamedTuple):
  """Input of a rule that chooses the next sets, by layer path."""

  weights: Masks  # parameters of the next step
  gradients: Masks  # of the loss, dense, unmasked
  sets: ActiveSets  # in force until now
  count: jax.Array  # int32 [], updates made, including this one
  key: jax.Array  # unique to this refresh


class Rule(NamedTuple):
  """A sparse method: pure functions of the sparse layers, by path."""

  init: Callable[[Masks, counts_lib.Counts, jax.Array], ActiveSets]
  refresh: Callable[[Refresh, counts_lib.Counts], ActiveSets]
  # Maps a layer's parameters and gradients to the initial values of entries
  # that enter B; None keeps their values.
  grow: Callable[[jax.Array, jax.Array], jax.Array] | None = None
  # If False, an update that refreshes is not a step of the optimizer.
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


def active_sets(state: optax.OptState) -> ActiveSets:
  """Returns the sets in an optimizer state, however deeply nested.

  Raises:
    ValueError: If `state` does not hold exactly one `SparseState`.
  """
  return sparse_state(state).sets


def sparse_state(state: optax.OptState) -> SparseState:
  """Returns the one `SparseState` in an optimizer state.

  Raises:
    ValueError: If there is none, or more than one.
  """
  found = list(filter(is_sparse, jax.tree.leaves(state, is_leaf=is_sparse)))
  if len(found) != 1:
    raise ValueError(
      'expected an optimizer state with one SparseState, got '
      f'{type(state).__name__} with {len(found)}'
    )
  return found[0]


def is_sparse(node: Any) -> bool:
  """Returns True for a `SparseState`."""
  return isinstance(node, SparseState)


def forward_weights(params: Any, state: optax.OptState) -> Any:
  """Returns the weights of the network: `params` on A, zero elsewhere.

  `params` may be raw or reparameterized.

  Raises:
    ValueError: If `state` does not hold exactly one `SparseState`.
  """
  masks = active_sets(state).forward
  names, wanted = (
    [path for path, _ in select.path_leaves(tree)] for tree in (masks, params)
  )
  if names == wanted:  # in `nnx.Optimizer` the leaves are of another class
    masks = jax.tree.unflatten(
      jax.tree.structure(params), jax.tree.leaves(masks)
    )
  return jax.tree.map(masked, masks, params)


def masked(mask: jax.Array, x: jax.Array) -> jax.Array:
  """Returns `x` where the mask of the same shape is True, zero elsewhere."""
  return jnp.where(mask, x, jnp.zeros_like(x))


def everything(weights: Masks) -> ActiveSets:
  """Returns sets of all entries, two copies so that both can be donated."""
  return ActiveSets(trues(weights), trues(weights))


def trues(params: Any) -> Any:
  """Returns a tree of masks that keep everything."""
  return jax.tree.map(lambda x: jnp.ones_like(x, bool), params)


def same_sets(masks: Masks) -> ActiveSets:
  """Returns A = B = `masks`, B as a copy so that both can be donated."""
  return ActiveSets(masks, jax.tree.map(jnp.copy, masks))
