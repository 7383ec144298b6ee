"""Training in which only the active entries exist, from any sparse method.

Between refreshes there are vectors of k_B for each sparse layer, parameters,
gradients and the optimizer's state, and the integers that say where they
belong. The dense parameters lie on the host, and a refresh alone touches them.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsity import select
from sparsity import state as state_lib
from sparsity.compact import conversion
from sparsity.compact import layout
from sparsity.compact import refreshing
from sparsity.compact import weights as weights_lib


class CompactTraining(NamedTuple):
  """Pure functions that train compact parameters; see `compact`."""

  init: Callable[[Any], tuple[Any, conversion.CompactState, conversion.Stored]]
  update: Callable[..., tuple[Any, conversion.CompactState]]
  is_due: Callable[[int], bool]
  refresh: Callable[..., tuple[Any, conversion.CompactState, conversion.Stored]]
  pack: Callable[
    [Any, Any], tuple[Any, conversion.CompactState, conversion.Stored]
  ]
  unpack: Callable[
    [Any, conversion.CompactState, conversion.Stored], tuple[Any, Any]
  ]
  # Whether a refresh needs the gradient of dense weights, and is an update.
  needs_gradients: bool


def compact(tx: state_lib.SparseTransformation) -> CompactTraining:
  """Returns `tx` for parameters of which only the entries of B exist.

  Parameters, gradients, updates and the optimizer's state keep their trees; an
  array of a sparse layer has shape [1, ..., 1, k_B] in place of the dense one.
  A step is that of masked training, word by word, with `sparsity.grad`, which
  takes both, for `jax.grad`:

  Example:
    >>> import sparsity
    >>> tx = sparsity.set_(optax.sgd(0.1), density=0.25, refresh_every=1)
    >>> training = compact(tx)
    >>> params = {'linear': {'w': jnp.ones((4, 4))}}
    >>> params, state, stored = training.init(params)
    >>> params['linear']['w'].shape
    (1, 4)
    >>> loss = lambda w, x: sparsity.matmul(x, w['linear']['w']).sum()
    >>> weights = sparsity.forward_weights(params, state)
    >>> gradients = sparsity.grad(loss)(weights, jnp.ones((1, 4)))
    >>> updates, state = training.update(gradients, state, params)
    >>> params = optax.apply_updates(params, updates)
    >>> if training.is_due(1):
    ...   params, state, stored = training.refresh(params, state, stored)

  - `init(params)` returns what training starts from: parameters, state, and
    the dense parameters of the sparse layers, which lie on the host as NumPy
    arrays and are given to nothing but `refresh`.
  - `update(gradients, state, params)` is Optax's; it never refreshes.
  - `is_due(n)`: whether to refresh after n updates have been made. Where
    `needs_gradients` (RigL), the n-th update is the refresh: in place of the
    step call `refresh(..., gradients)`, the gradients those of the loss at
    `compact.unpack(weights)`, dense.
  - `refresh(params, state, stored)` writes the parameters back into the dense
    ones, has the method choose the next sets, and returns all three for them.
    The optimizer's state of entries that stay in B moves with them; that of
    those that enter is as `inner.init` makes it. It works on the host, where a
    device other than the CPU never holds anything dense, or under jit.
  - `pack(params, state)` makes compact of masked training, at any moment, and
    `unpack(params, state, stored)` masked of compact.

  Raises:
    ValueError: If `tx` is not one of this package's methods itself, or changes
      how many entries are active; from `init`, if a layer cannot be compact
      (names it).
  """
  if not isinstance(tx, state_lib.SparseTransformation):
    raise ValueError(
      'expected a sparse method such as topkast.topkast(...) or '
      f'sparsity.rigl(...), got {type(tx).__name__}: it has to be the '
      'outermost transformation'
    )
  method = tx.method
  if method.rule.changes == 'numbers':
    raise ValueError(
      'expected a method whose number of active entries never changes, got '
      'one that prunes on the way: use masked storage, which serves it'
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


def compact_state(state: optax.OptState) -> conversion.CompactState | None:
  """Returns the `CompactState` in an optimizer's state, or None."""

  def is_state(node):
    return isinstance(node, conversion.CompactState)

  found = filter(is_state, jax.tree.leaves(state, is_leaf=is_state))
  return next(found, None)


def forward_weights(params: Any, state: optax.OptState) -> Any:
  """Returns what the network sees: `params` on A, zero elsewhere.

  Of a `CompactState`, the sparse layers are `CompactWeights`.

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
  """Returns the sets in force as masks of the dense weights' shapes.

  Args:
    state: of a sparse optimizer, masked or compact.
    params: compact parameters, needed of a compact state, where the arrays of
      layers that are not sparse are not known otherwise.

  Raises:
    ValueError: If `state` is not that of one sparse optimizer, or compact and
      without parameters.
  """
  found = compact_state(state)
  if found is None:
    return state_lib.active_sets(state)
  if params is None:
    raise ValueError('expected the parameters of a compact state, got None')
  return conversion.unpack_sets(params, found.entries)


def _update(method, gradients, state, params=None, **extra):
  if params is None:
    raise ValueError(
      'expected parameters, got None: call update(gradients, state, params)'
    )
  counts = method.make_counts(conversion.dense_shapes(params, state.entries))
  trues = jax.tree.map(lambda x: jnp.ones(x.shape, bool), params)
  member = {
    path: weights_lib.row(
      layout.in_forward(entries.structure), len(entries.shape)
    )
    for path, entries in state.entries.items()
  }
  updates, inner = method.inner.update(
    gradients,
    state.inner,
    params,
    active_sets=state_lib.ActiveSets(select.put(trues, member), trues),
    forward_densities=counts.forward_densities,
    **extra,
  )
  count = optax.safe_increment(state.count)
  return updates, conversion.CompactState(count, state.entries, inner)
