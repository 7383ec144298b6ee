"""A refresh: the parameters written back, the next sets, the state moved.

Shapes: k_B: entries of B, the same before and after.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsity import select
from sparsity import state as state_lib
from sparsity.compact import conversion
from sparsity.compact import layout
from sparsity.compact import packing


def make_refresh(method: state_lib.SparseMethod) -> Callable[..., Any]:
  """Returns the function that refreshes; see `compact.compact`."""
  choose = jax.jit(
    functools.partial(_choose, method), static_argnames=('structure', 'shapes')
  )

  def refresh(params, state, stored, gradients=None):
    if method.rule.changes == 'nothing':
      return params, state, stored
    if method.rule.steps == (gradients is not None):
      raise ValueError(
        'expected gradients of the dense weights from a method that grows by '
        'them, and none otherwise, got '
        f'{"none" if gradients is None else "some"}'
      )
    count, entries = state.count, state.entries
    if not method.rule.steps:
      count = optax.safe_increment(count)
    gradients = select.pick(gradients or {}, entries)
    rows = select.pick(params, entries)
    dense = {
      path: layout.write_back(
        x, entries[path].structure, rows[path].reshape(-1)
      )
      for path, x in stored.items()
    }
    shapes = jax.tree.map(_Shape, conversion.dense_shapes(params, entries))
    leaves, structure = jax.tree.flatten(shapes)
    chosen, grown = _on_host(choose)(
      dense,
      gradients,
      entries,
      count,
      structure=structure,
      shapes=tuple(leaves),
    )
    dense = grown or dense
    new = {
      path: packing.make_entries(
        path,
        chosen.forward[path],
        chosen.backward[path],
        (e.num_forward, e.num_backward),
      )
      for path, e in entries.items()
    }
    origins = {
      path: layout.origins(entries[path].structure, e.structure, e.matrix_shape)
      for path, e in new.items()
    }
    rows = {
      path: _move(
        x, origins[path], _entering(dense[path], new[path], origins[path])
      )
      for path, x in rows.items()
    }
    params = select.put(params, rows)
    inner = _move_state(method, state.inner, params, origins)
    state = conversion.CompactState(count, _like(entries, new), inner)
    return params, state, conversion.keep(method, dense)

  return refresh


def _choose(method, dense, gradients, entries, count, *, structure, shapes):
  """Returns the next sets, and the dense parameters if any grow."""
  rule = method.rule
  counts = method.make_counts(jax.tree.unflatten(structure, shapes))
  pairs = {
    path: layout.masks(e.structure, e.shape) for path, e in entries.items()
  }
  sets = state_lib.ActiveSets(
    *({path: pair[i] for path, pair in pairs.items()} for i in (0, 1))
  )
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


class _Shape:
  """A shape and dtype that jit takes as a static argument."""

  def __init__(self, x):
    self.shape, self.dtype = tuple(x.shape), jnp.dtype(x.dtype)
    self.ndim, self.size = len(self.shape), int(np.prod(self.shape))

  def __hash__(self):
    return hash((self.shape, self.dtype))

  def __eq__(self, other):
    return (self.shape, self.dtype) == (other.shape, other.dtype)


def _entering(dense, entries, origin):
  """Returns [k_B], right where entries are new: what was stored of them."""
  places = layout.places(entries.structure, entries.shape)
  if layout.is_traced((dense, places)):
    return layout.take(dense, places)
  fresh = np.empty(places.shape, dense.dtype)
  enter = np.flatnonzero(origin < 0)
  fresh[enter] = layout.take(dense, places[enter])
  return fresh


def _move(x, origin, fresh):
  """Returns a row [1, ..., 1, k_B] of the entries that there are now."""
  moved = layout.move(x.reshape(-1), origin, fresh.reshape(-1))
  return _like(x, moved.reshape(x.shape))


def _move_state(method, state, params, origins):
  """Returns the optimizer's state of the entries that there are now."""

  def move(path, before, fresh):
    if before.shape != fresh.shape or before.size != origins[path].size:
      return before  # not kept entry by entry
    return _move(before, origins[path], fresh)

  return conversion.map_sparse(method, move, state, params, origins)


def _on_host(fn):
  """Returns `fn` computed by the CPU, whatever the parameters are on."""

  def on_host(*args, **kwargs):
    if layout.is_traced(args):
      return fn(*args, **kwargs)
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      return fn(*jax.tree.map(np.asarray, args), **kwargs)

  return on_host


def _like(old: Any, new: Any) -> Any:
  """Returns `new` as device arrays where `old` is; a copy if NumPy's."""

  def place(old, new):
    if layout.is_traced((old, new)):
      return new
    new = jnp.array(new, old.dtype)
    return jax.device_put(new, old.sharding) if old.committed else new

  return jax.tree.map(place, old, new)
