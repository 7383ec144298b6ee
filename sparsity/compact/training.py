"""Compact training with any sparse method: only active entries are stored.

Between refreshes, each sparse layer is a vector of k_B parameters, gradients
and optimizer state, plus integer indices. The dense parameters stay on the host
and only refreshes access them.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
import optax

from sparsity import masked
from sparsity import select
from sparsity import state as state_lib
from sparsity.compact import conversion
from sparsity.compact import entries as entries_lib
from sparsity.compact import refreshing
from sparsity.compact import weights as weights_lib
from sparsity.compact.conversion import CompactState
from sparsity.compact.conversion import HostParams


class CompactTraining(NamedTuple):
  """Pure functions that train compact parameters; see `compact`."""

  init: Callable[[Any], tuple[Any, CompactState, HostParams]]
  update: Callable[..., tuple[Any, CompactState]]
  is_due: Callable[[int], bool]
  refresh: Callable[..., tuple[Any, CompactState, HostParams]]
  pack: Callable[[Any, Any], tuple[Any, CompactState, HostParams]]
  unpack: Callable[[Any, CompactState, HostParams], tuple[Any, Any]]
  # True if a refresh takes the dense gradient and replaces an update (RigL).
  needs_gradients: bool


def compact(tx: state_lib.SparseTransformation) -> CompactTraining:
  """Returns `tx` for parameters of which only the entries of B exist.

  Parameters, gradients, updates and optimizer state keep their tree structure;
  arrays of sparse layers have shape [1, ..., 1, k_B]. A step is written as in
  masked training, with `sparsity.grad`, which takes both kinds of weights:

  Example:
    >>> import jax.numpy as jnp
    >>> import sparsity
    >>> tx = sparsity.set_(optax.sgd(0.1), density=0.25, refresh_every=1)
    >>> training = compact(tx)
    >>> params = {'linear': {'w': jnp.ones((4, 4))}}
    >>> params, state, host_params = training.init(params)
    >>> params['linear']['w'].shape
    (1, 4)
    >>> loss = lambda w, x: sparsity.matmul(x, w['linear']['w']).sum()
    >>> weights = sparsity.forward_weights(params, state)
    >>> gradients = sparsity.grad(loss)(weights, jnp.ones((1, 4)))
    >>> updates, state = training.update(gradients, state, params)
    >>> params = optax.apply_updates(params, updates)
    >>> if training.is_due(1):
    ...   params, state, host_params = training.refresh(
    ...     params, state, host_params)

  - `init(params)` returns compact parameters, their state, and the host
    parameters: the dense parameters of the sparse layers as NumPy arrays, an
    argument of `refresh` and `unpack` only.
  - `update(gradients, state, params)` is Optax's; it never refreshes.
  - `is_due(n)`: bool; True where a refresh follows n completed updates. If
    `needs_gradients` (RigL), the refresh replaces the n-th update: call
    `refresh(..., gradients)` instead of the step, with the dense gradients of
    the loss at `compact.unpack(weights)`.
  - `refresh(params, state, host_params)` writes the parameters back to the host
    parameters, lets the method choose the next sets, and returns all three for
    these sets. The optimizer state of entries that stay in B moves with them;
    entries that enter have the state that `inner.init` makes. It runs on the
    host, so that an accelerator never holds dense arrays, or under jit.
  - `pack(params, state)` converts masked training at any step, and
    `unpack(params, state, host_params)` converts it back.

  Raises:
    ValueError: If `tx` is not one of this package's methods itself, or changes
      the number of active entries; from `init`, if a layer cannot be compact
      (names it).
  """
  masked.check_method(tx)
  method = tx.method
  if method.rule.changes == 'numbers':
    raise ValueError(
      'expected a method whose number of active entries never changes, got '
      'one that prunes during training: use masked storage'
    )
  return CompactTraining(
    init=functools.partial(conversion.init, method),
    update=functools.partial(_update, method),
    is_due=lambda count: bool(method.is_due(np.int32(count))),
    refresh=refreshing.make_refresh(method),
    pack=functools.partial(conversion.from_masked, method),
    unpack=functools.partial(conversion.to_masked, method),
    needs_gradients=not method.rule.steps,
  )


def compact_state(state: optax.OptState) -> CompactState | None:
  """Returns the `CompactState` in an optimizer's state, or None."""
  nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, CompactState))
  return next((x for x in nodes if isinstance(x, CompactState)), None)


def forward_weights(params: Any, state: optax.OptState) -> Any:
  """Returns the weights of the forward pass: `params` on A, zero elsewhere.

  With a `CompactState`, the sparse layers are `CompactWeights`.

  Shapes:
    params: a tree like the one the optimizer was initialized with, raw or
      reparameterized; the result has the same shapes and dtypes.

  Raises:
    ValueError: If `state` is not that of one sparse optimizer.
  """
  found = compact_state(state)
  if found is None:
    return state_lib.forward_weights(params, state)
  rows = select.pick(params, found.entries)
  return select.put(
    params,
    {
      path: weights_lib.CompactWeights(rows[path], entries)
      for path, entries in found.entries.items()
    },
  )


def active_sets(state: optax.OptState, params: Any | None = None) -> Any:
  """Returns the current sets as masks in the dense weights' shapes.

  Dense leaves have a single True, bool [], in place of a mask.

  Args:
    state: of a sparse optimizer, masked or compact.
    params: compact parameters, required with a compact state, which does not
      hold the tree of layers that are not sparse.

  Raises:
    ValueError: If `state` is not that of one sparse optimizer, or is compact
      and `params` is None.
  """
  found = compact_state(state)
  if found is None:
    return state_lib.active_sets(state)
  if params is None:
    raise ValueError(
      'expected the parameters of a compact state, got None: call '
      'active_sets(state, params)'
    )
  return conversion.unpack_sets(params, found.entries)


def _update(method, gradients, state, params=None, **extra):
  if params is None:
    raise ValueError(
      'expected parameters, got None: call update(gradients, state, params)'
    )
  counts = method.make_counts(conversion.dense_shapes(params, state.entries))
  in_forward = {
    path: weights_lib.row(
      entries_lib.in_forward(entries.structure), len(entries.shape)
    )
    for path, entries in state.entries.items()
  }
  sets = state_lib.dense_sets(params)
  sets = sets._replace(forward=select.put(sets.forward, in_forward))
  with state_lib.restricted(sets, counts.forward_densities):
    updates, inner = method.inner.update(
      gradients, state.inner, params, **extra
    )
  count = optax.safe_increment(state.count)
  return updates, CompactState(count, state.entries, inner)
