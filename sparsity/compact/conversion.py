"""From dense parameters, or masked training, to compact ones, and back."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsity import select
from sparsity import state as state_lib
from sparsity.compact import layout
from sparsity.compact import packing
from sparsity.compact import weights as weights_lib

# Dense parameters of the sparse layers, by path; old where they are active.
Stored = dict[str, np.ndarray]


class CompactState(NamedTuple):
  """State of a sparse optimizer over compact parameters."""

  count: jax.Array  # int32 [], updates made so far
  entries: dict[str, weights_lib.Entries]  # of the sparse layers, by path
  inner: optax.OptState  # of the wrapped optimizer, on [1, ..., 1, k_B]


def init(method: state_lib.SparseMethod, params: Any):
  """Returns compact parameters, their state, and what a refresh needs."""
  counts = method.make_counts(params)
  dense = select.pick(params, counts.sizes)
  if not dense:
    sets = state_lib.ActiveSets({}, {})
  else:
    key = method.make_key(jnp.zeros([], jnp.int32))
    sets = method.rule.init(dense, counts, key)
  entries = make_all_entries(method, counts, sets)
  rows = select.put(params, take_rows(dense, entries))
  count = jnp.zeros([], jnp.int32)
  state = CompactState(count, entries, method.inner.init(rows))
  return rows, state, keep(method, dense)


def from_masked(method: state_lib.SparseMethod, params: Any, state: Any):
  """Returns what `init` does, of masked training at any moment."""
  state = state_lib.sparse_state(state)
  counts = method.make_counts(params)
  dense = select.pick(params, counts.sizes)
  sets = state_lib.ActiveSets(
    *(select.pick(masks, counts.sizes) for masks in state.sets)
  )
  entries = make_all_entries(method, counts, sets)
  rows = select.put(params, take_rows(dense, entries))

  def shrink(path, old, new):
    if old.shape != entries[path].shape:
      return new
    return take_rows({path: old}, entries)[path]

  inner = map_sparse(method, shrink, state.inner, rows, entries)
  return rows, CompactState(state.count, entries, inner), keep(method, dense)


def to_masked(
  method: state_lib.SparseMethod,
  params: Any,
  state: CompactState,
  stored: Stored,
) -> tuple[Any, state_lib.SparseState]:
  """Returns dense parameters and the state of masked training."""
  entries = state.entries
  places = {
    path: layout.places(e.structure, e.shape) for path, e in entries.items()
  }

  def grow(path, old, new):
    if old.size != entries[path].num_backward:
      return new
    return jnp.asarray(layout.put(new, places[path], old.reshape(-1)))

  rows = select.pick(params, entries)
  dense = {
    path: grow(path, x, stored.get(path, jnp.zeros(entries[path].shape)))
    for path, x in rows.items()
  }
  params = select.put(params, dense)
  inner = map_sparse(method, grow, state.inner, params, entries)
  sets = unpack_sets(params, entries)
  return params, state_lib.SparseState(state.count, sets, inner)


def unpack_sets(params: Any, entries: Any) -> state_lib.ActiveSets:
  """Returns the masks of A and B, True where a layer is not sparse."""
  pairs = {
    path: jax.tree.map(jnp.asarray, layout.masks(e.structure, e.shape))
    for path, e in entries.items()
  }
  trues = jax.tree.map(lambda x: jnp.ones(x.shape, bool), params)
  return state_lib.ActiveSets(
    *(
      select.put(
        trues, {path: jnp.asarray(pair[i]) for path, pair in pairs.items()}
      )
      for i in (0, 1)
    )
  )


def make_all_entries(method, counts, sets: state_lib.ActiveSets):
  """Returns the entries of each sparse layer, counted where they can be."""
  if counts.scope == 'global' and method.rule.changes != 'nothing':
    raise ValueError(
      "expected scope='layer', got 'global' of a method that moves entries: "
      'each layer must keep its number in compact storage, masked storage '
      'serves both'
    )
  entries = {}
  for path, forward in sets.forward.items():
    backward = sets.backward[path]
    if not layout.is_traced((forward, backward)):
      numbers = tuple(int(np.sum(np.asarray(x))) for x in (forward, backward))
    elif counts.scope == 'layer' and counts.sizes[path] == forward.size:
      numbers = counts.forward[path], counts.backward[path]
    else:
      raise ValueError(
        f'{path}: expected sets whose entries can be counted, got traced ones '
        'of a method that counts otherwise: call it outside of jit'
      )
    made = packing.make_entries(path, forward, backward, numbers)
    entries[path] = jax.tree.map(jnp.array, made)
  return entries


def take_rows(dense: dict[str, Any], entries: dict[str, Any]):
  """Returns by path the active entries of dense arrays, [1, ..., 1, k_B]."""
  return {
    path: weights_lib.row(
      jnp.array(
        layout.take(x, layout.places(entries[path].structure, x.shape))
      ),
      x.ndim,
    )
    for path, x in dense.items()
  }


def keep(method: state_lib.SparseMethod, dense: dict[str, Any]) -> Stored:
  """Returns dense parameters as they are kept until the next refresh."""
  if method.rule.changes == 'nothing':
    return {}
  if layout.is_traced(dense):
    return dense
  return {path: np.asarray(x) for path, x in dense.items()}


def dense_shapes(params: Any, entries: dict[str, Any]) -> Any:
  """Returns the shapes and dtypes that dense parameters would have."""
  rows = select.pick(params, entries)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
    select.put(
      params,
      {
        path: jax.ShapeDtypeStruct(entries[path].shape, x.dtype)
        for path, x in rows.items()
      },
    ),
  )


def map_sparse(
  method: state_lib.SparseMethod,
  fn: Callable[[str, jax.Array, jax.Array], jax.Array],
  state: optax.OptState,
  params: Any,
  paths: Any,
) -> optax.OptState:
  """Maps the arrays of an optimizer's state that belong to sparse layers.

  Args:
    method: with the optimizer.
    fn: from a layer's path, an array, and what `inner.init` makes in its place
      for `params`, to the new array.
    state: of the optimizer.
    params: those of the new state.
    paths: of the sparse layers.
  """

  def is_absent(node):
    return isinstance(node, optax.MaskedNode)

  names = jax.tree.unflatten(
    jax.tree.structure(params),
    [
      select.join(module, name)
      for module, name, _ in select.named_leaves(params)
    ],
  )
  names = optax.tree.map_params(
    method.inner,
    lambda old, name: old if is_absent(old) else name,
    state,
    names,
    transform_non_params=lambda _: '',
    is_leaf=is_absent,
  )
  return jax.tree.map(
    lambda name, old, new: fn(name, old, new) if name in paths else old,
    names,
    state,
    method.inner.init(params),
  )
