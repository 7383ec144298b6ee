"""From dense weights and masks to compact weights, and back."""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsity import kernels
from sparsity import select
from sparsity.compact import layout
from sparsity.compact import weights as weights_lib


def pack(weights: Any, forward: Any, backward: Any | None = None) -> Any:
  """Returns `weights`, compact where a mask leaves something out.

  Example:
    >>> mask = jnp.array([[True, False], [False, True]])
    >>> weights = pack({'w': jnp.arange(4.0).reshape(2, 2)}, {'w': mask})
    >>> weights['w'].values
    Array([[0., 3.]], dtype=float32)
    >>> weights['w'].shape
    (2, 2)

  Args:
    weights: a tree of dense arrays.
    forward: A, a tree of boolean masks like it, such as
      `sparsity.active_sets(state).forward`.
    backward: B, likewise; None: the same as A.

  Returns:
    A tree like `weights`; where the mask of B is all True, the array itself.

  Raises:
    ValueError: If A is not within B, a weight has fewer than two axes or 2^31
      entries or more, or masks are traced by jit: their counts must be known.
  """
  backward = forward if backward is None else backward
  if layout.is_traced((forward, backward)):
    raise ValueError(
      'expected masks whose entries can be counted, got traced ones: call '
      'pack outside of jit'
    )
  leaves = [
    _pack_leaf(select.join(module, name), x, a, b)
    for (module, name, x), a, b in zip(
      select.named_leaves(weights),
      jax.tree.leaves(forward),
      jax.tree.leaves(backward),
      strict=True,
    )
  ]
  return jax.tree.unflatten(jax.tree.structure(weights), leaves)


def unpack(weights: Any) -> Any:
  """Returns dense weights: those that the network sees, zero outside of A.

  Example:
    >>> mask = jnp.array([[True, False], [False, True]])
    >>> unpack(pack({'w': jnp.ones((2, 2))}, {'w': mask}))['w']
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
  """
  return jax.tree.map(
    lambda w: _unpack_leaf(w) if weights_lib.is_compact(w) else w,
    weights,
    is_leaf=weights_lib.is_compact,
  )


def check(weights: Any) -> None:
  """Checks every index of the compact weights of a tree, on the host.

  Kernels trust them, so weights that were not made here, such as those of a
  file, have to pass this once.

  Raises:
    ValueError: If values, indices, their order or shapes are not as they
      should be; names the layer.
  """
  for w in jax.tree.leaves(weights, is_leaf=weights_lib.is_compact):
    if not weights_lib.is_compact(w):
      continue
    entries = w.entries
    try:
      _check_entries(entries)
    except ValueError as error:
      raise ValueError(f'{entries.name}: {error}') from error
    expected = (1,) * (w.ndim - 1) + (entries.num_backward,)
    if tuple(w.values.shape) != expected:
      raise ValueError(
        f'{entries.name}: expected values of shape {expected}, got '
        f'{tuple(w.values.shape)}'
      )


def check_model(apply: Callable[..., Any], weights: Any, *args: Any) -> None:
  """Checks that a model can be computed with compact weights, before it is.

  Nothing is computed: `apply` is traced.

  Example:
    >>> mask = jnp.eye(2, dtype=bool)
    >>> weights = pack({'w': jnp.ones((2, 2))}, {'w': mask})
    >>> double = lambda weights, x: 2 * x * weights['w']
    >>> check_model(double, weights, 1.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected layers of sparsity.modules, ... got others for w: ...

  Args:
    apply: function of weights and further arguments.
    weights: a tree that may hold `CompactWeights`.
    *args: arrays, or their shapes.

  Raises:
    ValueError: If a layer does not take its weights compact; names all such.
  """
  try:
    jax.eval_shape(apply, weights, *args)
    return
  except Exception as found:  # whatever the model says of it
    error = found
  leaves, structure = jax.tree.flatten(weights, is_leaf=weights_lib.is_compact)
  names = []
  for i, leaf in enumerate(leaves):
    others = map(_dense_shape, leaves)
    one = [leaf if i == j else other for j, other in enumerate(others)]
    if weights_lib.is_compact(leaf):
      try:
        jax.eval_shape(apply, jax.tree.unflatten(structure, one), *args)
      except Exception:
        names.append(leaf.entries.name)
  if len(names) in (0, sum(map(weights_lib.is_compact, leaves))):
    dense = jax.tree.unflatten(structure, list(map(_dense_shape, leaves)))
    jax.eval_shape(apply, dense, *args)  # raises if it is not the storage
  if not names:
    raise error
  raise ValueError(
    'expected layers of sparsity.modules, which take compact weights, got '
    f'others for {", ".join(names)}: leave them out of the selection, or use '
    'masked storage, which serves every layer'
  ) from error


def make_entries(
  name: str, forward: jax.Array, backward: jax.Array, counts: tuple[int, int]
) -> weights_lib.Entries:
  """Returns the entries of two masks of a weight's shape.

  Args:
    name: path of the layer, for messages.
    forward: mask of A; may be traced.
    backward: mask of B.
    counts: how many entries they have.

  Raises:
    ValueError: If compact storage cannot hold the weight; names it.
  """
  shape = tuple(forward.shape)
  if len(shape) not in (2, 4):
    raise ValueError(
      f'{name}: expected a matrix or a 2D convolution of compact storage, got '
      f'shape {shape}: leave it out of the selection, or use masked storage, '
      'which serves every layer'
    )
  matrix = weights_lib.matrix_shape(shape)
  try:
    structure = layout.build(
      forward.reshape(matrix), backward.reshape(matrix), *counts
    )
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from error
  return weights_lib.Entries(structure, shape, name)


def _pack_leaf(name, x, forward, backward):
  forward, backward = np.asarray(forward), np.asarray(backward)
  if not forward.shape == backward.shape == tuple(x.shape):
    raise ValueError(
      f'{name}: expected masks of shape {tuple(x.shape)}, got '
      f'{forward.shape} and {backward.shape}'
    )
  if backward.all() and forward.all():
    return x
  counts = int(forward.sum()), int(backward.sum())
  entries = make_entries(name, forward, backward, counts)
  entries = jax.tree.map(jnp.asarray, entries)
  values = layout.take(x, layout.places(entries.structure, entries.shape))
  values = weights_lib.row(jnp.asarray(values), x.ndim)
  return weights_lib.CompactWeights(values, entries)


def _unpack_leaf(w):
  s = w.entries.structure
  at = layout.places(s, w.shape)
  seen = jnp.where(layout.in_forward(s), w.values.reshape(-1), 0)
  return jnp.asarray(layout.put(jnp.zeros(w.shape, w.dtype), at, seen))


def _dense_shape(x):
  if weights_lib.is_compact(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
  return x


def _check_entries(entries):
  size = math.prod(entries.shape)
  layout.check_size(entries.shape)
  if entries.num_backward > size:
    raise ValueError(
      f'expected at most {size} entries of a weight of shape {entries.shape}, '
      f'got {entries.num_backward}'
    )
  kernels.check(entries.structure, entries.matrix_shape)
