"""What a sparse optimizer consists of: active sets, rules, and its state.

A sparse method is an Optax transformation whose state says which entries are
active; `sparsity.wrapper` makes it of a `Rule` and any optimizer.
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
  return jax.tree.map(masked, active_sets(state).forward, params)


def masked(mask: jax.Array, x: jax.Array) -> jax.Array:
  """Returns `x` where the mask, of its shape, is True, and zero elsewhere."""
  return jnp.where(mask, x, jnp.zeros_like(x))
