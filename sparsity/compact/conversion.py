"""Compact training states from dense parameters or masked states, and back."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsity import counts as counts_lib
from sparsity import drift
from sparsity import select
from sparsity import state as state_lib
from sparsity.compact import entries as entries_lib
from sparsity.compact import packing
from sparsity.compact import weights as weights_lib
from sparsity.kernels.structure import is_traced
from sparsity.kernels.structure import to_numpy

# Dense parameters of the sparse layers by path; stale on the active entries.
HostParams = dict[str, np.ndarray]


class CompactState(NamedTuple):
  """State of a sparse optimizer over compact parameters."""

  # int32 []: number of updates; hides a method of tuples.
  count: jax.Array  # type: ignore[assignment]
  entries: dict[str, weights_lib.Entries]  # of the sparse layers, by path
  inner: optax.OptState  # of the wrapped optimizer, over [1, ..., 1, k_B]


def init(method: state_lib.SparseMethod, params: Any):
  """Returns compact parameters, their state, and the host parameters."""
  counts = method.make_counts(params)
  dense = select.pick(params, counts.sizes)
  counts_lib.warn_of_thin(dense, counts)
  sets = state_lib.ActiveSets({}, {})
  if dense:
    key = method.make_key(jnp.zeros([], jnp.int32))
    sets = method.rule.init(dense, counts, key)
  rows, entries = _shrink(method, params, counts, sets)
  count = jnp.zeros([], jnp.int32)
  state = CompactState(count, entries, method.inner.init(rows))
  return rows, state, to_host(method, dense)


def from_masked(method: state_lib.SparseMethod, params: Any, state: Any):
  """Returns the same as `init`, from any state of masked training."""
  state = state_lib.sparse_state(state)
  counts = method.make_counts(params)
  sets = state_lib.ActiveSets(
    *(select.pick(masks, counts.sizes) for masks in state.sets)
  )
  rows, entries = _shrink(method, params, counts, sets)

  def shrink(path, old, new):
    return (
      packing.row_of(old, entries[path])
      if old.shape == entries[path].shape
      else new
    )

  inner = map_sparse(method, shrink, state.inner, rows, entries)
  state = CompactState(state.count, entries, inner)
  return rows, state, to_host(method, select.pick(params, counts.sizes))


def to_masked(
  method: state_lib.SparseMethod,
  params: Any,
  state: CompactState,
  host_params: HostParams,
) -> tuple[Any, state_lib.SparseState]:
  """Returns dense parameters and the state of masked training."""
  entries = state.entries

  def grow(path, old, new):
    if old.size != entries[path].num_backward:
      return new
    structure = entries[path].structure
    return jnp.asarray(entries_lib.write_back(new, structure, old.reshape(-1)))

  rows = select.pick(params, entries)
  dense = {
    path: grow(path, x, host_params.get(path, jnp.zeros(entries[path].shape)))
    for path, x in rows.items()
  }
  params = select.put(params, dense)
  inner = map_sparse(method, grow, state.inner, params, entries)
  sets = unpack_sets(params, entries)
  expected = drift.init(select.pick(params, entries))
  return params, state_lib.SparseState(state.count, sets, inner, expected)


def to_sets(entries: dict[str, weights_lib.Entries]) -> state_lib.ActiveSets:
  """Returns the masks of A and B by path."""
  pairs = {
    path: entries_lib.masks(e.structure, e.shape) for path, e in entries.items()
  }
  return state_lib.ActiveSets(
    *({path: pair[i] for path, pair in pairs.items()} for i in (0, 1))
  )


def unpack_sets(params: Any, entries: Any) -> state_lib.ActiveSets:
  """Returns the masks of A and B of sparse layers, True for all others."""
  sets = jax.tree.map(jnp.asarray, to_sets(entries))
  dense = state_lib.dense_sets(params)
  return state_lib.ActiveSets(*map(select.put, dense, sets))


def to_host(
  method: state_lib.SparseMethod, dense: dict[str, Any]
) -> HostParams:
  """Returns dense parameters as the host keeps them until the next refresh."""
  return {} if method.rule.changes == 'nothing' else to_numpy(dense)


def dense_shapes(params: Any, entries: dict[str, Any]) -> Any:
  """Returns the shapes and dtypes of the dense parameters."""
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
  )
  dense = {
    path: jax.ShapeDtypeStruct(entries[path].shape, x.dtype)
    for path, x in select.pick(params, entries).items()
  }
  return select.put(shapes, dense)


def map_sparse(
  method: state_lib.SparseMethod,
  fn: Callable[[str, jax.Array, jax.Array], jax.Array],
  state: optax.OptState,
  params: Any,
  paths: Any,
) -> optax.OptState:
  """Maps those arrays of an optimizer's state that belong to sparse layers.

  Args:
    method: holds the optimizer.
    fn: maps a layer's path, an array, and the array that `inner.init` makes for
      `params` in its place, to the new array.
    state: of the optimizer.
    params: parameters of the new state.
    paths: of the sparse layers.
  """

  names = jax.tree.unflatten(
    jax.tree.structure(params),
    [path for path, _ in select.path_leaves(params)],
  )
  return state_lib.map_like(
    lambda old, name, new: fn(name, old, new) if name in paths else old,
    *(state, names, method.inner.init(params)),
  )


def _shrink(method, params, counts, sets: state_lib.ActiveSets):
  """Returns compact parameters, and the entries of their sparse layers."""
  if counts.scope == 'global' and method.rule.changes != 'nothing':
    raise ValueError(
      "expected scope='layer', got 'global' with a method that moves entries: "
      'in compact storage each layer keeps its number of entries; use masked '
      'storage'
    )
  unnamed = [path for path in sets.forward if path]  # '': a bare array
  if unnamed and not select.has_names(params):
    raise ValueError(
      f'expected weights named {", ".join(select.NAMES)} for compact storage, '
      f'got {", ".join(unnamed)}: by its shape a compact weight would be taken '
      "for a bias, with alpha 1; name them, as in {'layer': {'w': ...}}"
    )
  entries = {}
  for path, forward in sets.forward.items():
    backward, numbers = sets.backward[path], None
    if counts.scope == 'layer' and counts.sizes[path] == forward.size:
      numbers = counts.forward[path], counts.backward[path]
    elif is_traced((forward, backward)):
      raise ValueError(
        f'{path}: expected concrete sets, whose entries can be counted, got '
        'traced sets of unknown size: call it outside of jit'
      )
    made = packing.make_entries(path, forward, backward, numbers)
    entries[path] = jax.tree.map(jnp.array, made)
  dense = select.pick(params, entries)
  rows = {path: packing.row_of(x, entries[path]) for path, x in dense.items()}
  return select.put(params, rows), entries
