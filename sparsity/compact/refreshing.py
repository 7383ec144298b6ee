"""Refresh of compact training: the next active sets, and the state on them.

The host writes the values of B back to the dense parameters and chooses the
sets. On an accelerator it receives the values and indices of B, 8 bytes an
entry, and sends what changed alone, at most 12 bytes an entry that enters or
leaves A or B; the device rearranges indices, parameters and optimizer state,
one layer at a time.

Shapes: k_B: entries of B; F: entries that enter or leave.
"""

import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsity import kernels
from sparsity import select
from sparsity import state as state_lib
from sparsity.compact import conversion
from sparsity.compact import entries as entries_lib
from sparsity.compact import packing
from sparsity.compact.conversion import CompactState
from sparsity.kernels.structure import is_traced
from sparsity.kernels.structure import matrix_shape
from sparsity.kernels.structure import on_cpu
from sparsity.kernels.structure import to_numpy


class Arranged(NamedTuple):
  """A layer after a refresh."""

  structure: kernels.Structure
  origin: Any  # int32 [k_B]: index of each entry among the old ones, or -1
  fresh: Any  # [k_B]: values of the entries without an origin


def make_refresh(method: state_lib.SparseMethod):
  """Returns the refresh function: write back, choose sets, move the state."""
  choose = on_cpu(
    jax.jit(
      functools.partial(_choose, method), static_argnames=('tree', 'shapes')
    )
  )
  move = functools.partial(_move_all, method)
  move_on_device = jax.jit(move)

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
    is_far = is_remote(rows)
    values, known = fetch(rows, entries)
    dense = {
      path: entries_lib.write_back(
        x, known[path].structure, values[path].reshape(-1)
      )
      for path, x in host_params.items()
    }
    shapes = conversion.dense_shapes(params, entries)
    leaves, tree = jax.tree.flatten(shapes)
    chosen, grown = choose(
      dense,
      select.pick(gradients or {}, entries),
      known,
      count,
      tree=tree,
      shapes=tuple(leaves),
    )
    dense = grown or dense
    arranged = {
      path: (_arrange_remotely if is_far else _arrange)(
        entries[path],
        known[path],
        (chosen.forward[path], chosen.backward[path]),
        dense[path],
      )
      for path in entries
    }
    params, inner = (move_on_device if is_far else move)(
      params, state.inner, arranged
    )
    new = {
      path: dataclasses.replace(entry, structure=arranged[path].structure)
      for path, entry in entries.items()
    }
    state = CompactState(count, _like(entries, new), inner)
    return params, state, conversion.to_host(method, dense)

  return refresh


def is_remote(tree: Any) -> bool:
  """Returns whether arrays are on a device with memory of its own."""
  if is_traced(tree):
    return False
  devices = {x for leaf in jax.tree.leaves(tree) for x in leaf.devices()}
  return any(device.platform != 'cpu' for device in devices)


def fetch(rows: Any, entries: Any) -> tuple[Any, Any]:
  """Returns values and entries on the host; without the transposed indices."""
  if is_traced((rows, entries)):
    return rows, entries

  def known(entry):
    s = entry.structure
    empty = (
      np.broadcast_to(np.int32(0), x.shape)
      for x in (s.t_cells, s.t_columns, s.t_entries)
    )
    cells, columns = to_numpy((s.cells, s.columns))
    return dataclasses.replace(
      entry, structure=kernels.Structure(cells, columns, *empty)
    )

  return to_numpy(rows), {path: known(entry) for path, entry in entries.items()}


def send(changes: Any) -> Any:
  """Returns the arguments of a program of the device."""
  return changes


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


def _arrange(old, known, masks, dense) -> Arranged:
  """Returns a layer with the entries of two masks, on the host or traced."""
  counts = old.num_forward, old.num_backward
  forward, backward = masks
  new = packing.make_entries(old.name, forward, backward, counts).structure
  origin = entries_lib.origins(known.structure, new, matrix_shape(old.shape))
  at = entries_lib.places(new, old.shape)
  return Arranged(new, origin, entries_lib.take(dense, at))


def _arrange_remotely(old, known, masks, dense) -> Arranged:
  """Returns the same, arranged on the device from what changed."""
  before = entries_lib.masks(known.structure, old.shape)
  flips = [
    np.flatnonzero(mask != was).astype(np.int32)
    for mask, was in zip(masks, before, strict=True)
  ]
  values = dense.reshape(-1)[flips[1]]
  changes = [_pad(x, dense.size) for x in flips], _pad(values, 0)
  return _follow(old.structure, *send(changes), shape=old.shape)


def _pad(x, fill):
  """Returns a vector padded to a power of two, so that few programs serve."""
  size = 1 << max(len(x) - 1, 0).bit_length()
  return np.concatenate([x, np.full(size - len(x), fill, x.dtype)])


@functools.partial(jax.jit, static_argnames='shape')
def _follow(old, flips, values, *, shape) -> Arranged:
  """Returns a layer whose masks are flipped at indices [F] of A and of B."""
  matrix = matrix_shape(shape)
  forward, backward = (
    _flip(jnp.asarray(mask).reshape(-1), at).reshape(matrix)
    for mask, at in zip(entries_lib.masks(old, shape), flips, strict=True)
  )
  counts = old.t_columns.size, old.columns.size
  new = kernels.from_masks(forward, backward, counts)
  dense = jnp.zeros(backward.size, values.dtype)
  dense = dense.at[flips[1]].set(values, mode='drop')
  origin = entries_lib.origins(old, new, matrix)
  return Arranged(new, origin, dense[entries_lib.places(new, shape)])


def _flip(mask, at):
  return mask.at[at].set(~mask[at], mode='drop')


def _move_all(method, params, inner, arranged):
  """Returns the parameters and the optimizer state of the new entries."""
  rows = {
    path: _move(x, arranged[path])
    for path, x in select.pick(params, arranged).items()
  }
  params = select.put(params, rows)

  def move(path, before, fresh):
    is_kept = before.size == arranged[path].origin.size
    if before.shape != fresh.shape or not is_kept:
      return before  # not kept per entry
    return _move(before, arranged[path]._replace(fresh=fresh))

  return params, conversion.map_sparse(method, move, inner, params, arranged)


def _move(x, layer: Arranged):
  """Returns the row [1, ..., 1, k_B] of the new entries."""
  moved = entries_lib.move(x.reshape(-1), layer.origin, layer.fresh.reshape(-1))
  return _like(x, moved.reshape(x.shape))


def _like(old: Any, new: Any) -> Any:
  """Returns copies of `new` with the dtypes and devices of `old`."""

  def place(old, new):
    if is_traced((old, new)) or getattr(new, 'sharding', None) == old.sharding:
      return new
    if not old.committed:
      return jnp.array(new, old.dtype)
    new = np.array(new, old.dtype)
    return jax.make_array_from_callback(
      new.shape, old.sharding, new.__getitem__
    )

  return jax.tree.map(place, old, new)
