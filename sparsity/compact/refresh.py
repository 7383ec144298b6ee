"""Refreshes of compact training: write back, choose new sets, move the state.

Shapes: k_B: entries of B, the same before and after.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsity import select
from sparsity import state as state_lib
from sparsity.compact import conversion
from sparsity.compact import entries as entries_lib
from sparsity.compact import packing
from sparsity.kernels import structure as structure_lib


def make_refresh(method: state_lib.SparseMethod) -> Callable[..., Any]:
  """Returns the refresh function described at `compact.compact`."""
  choose = structure_lib.on_cpu(
    jax.jit(
      functools.partial(_choose, method), static_argnames=('tree', 'shapes')
    )
  )

  def refresh(params, state, host_params, gradients=None):
    if method.rule.changes == 'nothing':
      return params, state, host_params
    if method.rule.steps == (gradients is not None):
      raise ValueError(
        'expected dense gradients if the method grows entries by them, else '
        f'None, got {"None" if gradients is None else "gradients"}'
      )
    count, entries = state.count, state.entries
    if not method.rule.steps:
      count = optax.safe_increment(count)
    rows = select.pick(params, entries)
    dense = {
      path: entries_lib.write_back(
        x, entries[path].structure, rows[path].reshape(-1)
      )
      for path, x in host_params.items()
    }
    shapes = conversion.dense_shapes(params, entries)
    leaves, tree = jax.tree.flatten(shapes)
    chosen, grown = choose(
      dense,
      select.pick(gradients or {}, entries),
      entries,
      count,
      tree=tree,
      shapes=tuple(leaves),
    )
    dense = grown or dense
    new, origins = {}, {}
    for path, old in entries.items():
      new[path] = packing.make_entries(
        path,
        chosen.forward[path],
        chosen.backward[path],
        (old.num_forward, old.num_backward),
      )
      origins[path] = entries_lib.origins(
        old.structure, new[path].structure, old.matrix_shape
      )
      at = entries_lib.places(new[path].structure, old.shape)
      fresh = entries_lib.take(dense[path], at)
      rows[path] = _move(rows[path], origins[path], fresh)
    params = select.put(params, rows)
    inner = _move_state(method, state.inner, params, origins)
    state = conversion.CompactState(count, _like(entries, new), inner)
    return params, state, conversion.to_host(method, dense)

  return refresh


def _choose(method, dense, gradients, entries, count, *, tree, shapes):
  """Returns the next sets, and the dense parameters if entries grow."""
  rule = method.rule
  counts = method.make_counts(jax.tree.unflatten(tree, shapes))
  sets = conversion.to_sets(entries)
  now = state_lib.Refresh(dense, gradients, sets, count, method.make_key(count))
  chosen = rule.refresh(now, counts)
  if not rule.grow:
    return chosen, None
  grown = {
    path: jnp.where(
      chosen.backward[path] & ~sets.backward[path],
      rule.grow(x, gradients.get(path, jnp.zeros_like(x))).astype(x.dtype),
      x,
    )
    for path, x in dense.items()
  }
  return chosen, grown


def _move(x, origin, fresh):
  """Returns the row [1, ..., 1, k_B] of the new entries."""
  moved = entries_lib.move(x.reshape(-1), origin, fresh.reshape(-1))
  return _like(x, moved.reshape(x.shape))


def _move_state(method, state, params, origins):
  """Returns the optimizer state of the new entries."""

  def move(path, before, fresh):
    if before.shape != fresh.shape or before.size != origins[path].size:
      return before  # not kept per entry
    return _move(before, origins[path], fresh)

  return conversion.map_sparse(method, move, state, params, origins)


def _like(old: Any, new: Any) -> Any:
  """Returns copies of `new` with the dtypes and devices of `old`."""

  def place(old, new):
    if structure_lib.is_traced((old, new)):
      return new
    new = jnp.array(new, old.dtype)
    return jax.device_put(new, old.sharding) if old.committed else new

  return jax.tree.map(place, old, new)
