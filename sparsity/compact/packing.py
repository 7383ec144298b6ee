"""Dense weights and masks to compact weights, and back; inference."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsity import kernels
from sparsity import select as select_lib
from sparsity.compact import entries as entries_lib
from sparsity.compact import weights as weights_lib
from sparsity.kernels.structure import is_traced
from sparsity.kernels.structure import matrix_shape

# Denser layers are faster dense; measured by benchmarks/compact.py.
MAX_DENSITY = 0.3


def pack(weights: Any, forward: Any, backward: Any | None = None) -> Any:
  """Returns `weights` with `CompactWeights` wherever a mask is not all True.

  Example:
    >>> mask = jnp.array([[True, False], [False, True]])
    >>> weights = pack({'w': jnp.arange(4.0).reshape(2, 2)}, {'w': mask})
    >>> weights['w'].values
    Array([[0., 3.]], dtype=float32)
    >>> weights['w'].shape
    (2, 2)

  Args:
    forward: A, a tree of boolean masks like `weights`, such as
      `sparsity.active_sets(state).forward`; a single True keeps a layer dense.
    backward: B, likewise; None: the same as A.

  Raises:
    ValueError: If A is not a subset of B, a weight is neither a matrix nor a 2D
      convolution or has 2^31 entries or more, or under jit: the numbers of
      entries must be static.
  """
  backward = forward if backward is None else backward
  if is_traced((forward, backward)):
    raise ValueError(
      'expected concrete masks, whose entries can be counted, got traced '
      'masks: call pack outside of jit'
    )
  leaves = [
    _pack_leaf(select_lib.join(module, name), x, a, b)
    for (module, name, x), a, b in zip(
      select_lib.named_leaves(weights),
      jax.tree.leaves(forward),
      jax.tree.leaves(backward),
      strict=True,
    )
  ]
  return jax.tree.unflatten(jax.tree.structure(weights), leaves)


def unpack(weights: Any) -> Any:
  """Returns dense weights, zero outside A.

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


def check_model(apply: Callable[..., Any], weights: Any, *args: Any) -> None:
  """Checks by tracing that a model's layers take compact weights.

  Example:
    >>> mask = jnp.eye(2, dtype=bool)
    >>> weights = pack({'w': jnp.ones((2, 2))}, {'w': mask})
    >>> double = lambda weights, x: 2 * x * weights['w']
    >>> check_model(double, weights, 1.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected layers of sparsity.modules, ... got others for w: ...

  Raises:
    ValueError: If layers do not take compact weights; names them all.
  """
  try:
    jax.eval_shape(apply, weights, *args)
    return
  except Exception as found:  # whatever the model raises
    error = found
  leaves, tree = jax.tree.flatten(weights, is_leaf=weights_lib.is_compact)
  dense = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
  # Raises an error of the model itself.
  jax.eval_shape(apply, jax.tree.unflatten(tree, dense), *args)
  names = []
  for i, leaf in enumerate(leaves):
    if not weights_lib.is_compact(leaf):
      continue
    one = jax.tree.unflatten(tree, [*dense[:i], leaf, *dense[i + 1 :]])
    try:
      jax.eval_shape(apply, one, *args)
    except Exception:
      names.append(leaf.entries.name)
  if not names:
    raise error
  raise ValueError(
    'expected layers of sparsity.modules, which take compact weights, got '
    f'others for {", ".join(names)}: deselect these layers, or use masked '
    'storage, which takes any layer'
  ) from error


def compile_inference(
  apply: Callable[..., Any],
  weights: Any,
  masks: Any | None = None,
  *,
  max_density: float = MAX_DENSITY,
  select: select_lib.Predicate = select_lib.is_weight,
) -> Callable[..., Any]:
  """Returns `apply` bound to the weights of a pruned network, for the CPU.

  The network has to use the layers of `sparsity.modules`, or `sparsity.matmul`
  and `sparsity.conv`. It is compiled once per input shape.

  Example:
    >>> import haiku as hk
    >>> import sparsity
    >>> net = hk.without_apply_rng(
    ...   hk.transform(lambda x: sparsity.modules.Linear(2)(x)))
    >>> weights = {'linear': {'w': jnp.eye(4)[:, :2], 'b': jnp.zeros(2)}}
    >>> predict = compile_inference(net.apply, weights)
    >>> predict(jnp.arange(4.0)[None])
    Array([[0., 1.]], dtype=float32)

  Args:
    apply: pure function of weights and inputs.
    masks: a tree of boolean masks like `weights`, such as
      `sparsity.active_sets(state).forward`; None: where weights are nonzero.
    max_density: denser layers stay dense.

  Returns:
    A function of the inputs alone, whose attribute `weights` holds the packed
    weights.

  Raises:
    ValueError: If weights and masks do not match; on the first call, if a
      layer cannot be compact (names it: exclude it with `select`).
  """
  if masks is None:
    masks = jax.tree.map(lambda x: np.asarray(x) != 0, weights)
  structures: Any = [jax.tree.structure(tree) for tree in (weights, masks)]
  if structures[0] != structures[1]:
    raise ValueError(
      'expected masks like the weights, {}, got {}'.format(*structures)
    )
  chosen = select_lib.selected_paths(weights, select)
  active = {
    path: np.asarray(mask)
    for path, mask in select_lib.pick(masks, chosen).items()
    if np.mean(np.asarray(mask)) <= max_density
  }
  packed = pack(
    jax.tree.map(lambda x, mask: jnp.where(mask, x, 0), weights, masks),
    select_lib.put(jax.tree.map(lambda _: np.True_, weights), active),
  )
  # Committed to a CPU device, so that calls run there.
  packed = jax.device_put(packed, jax.local_devices(backend='cpu')[0])

  predict: Any = functools.partial(jax.jit(apply), packed)
  predict.weights = packed
  return predict


def make_entries(
  name: str,
  forward: jax.Array,
  backward: jax.Array,
  counts: tuple[int, int] | None = None,
) -> weights_lib.Entries:
  """Returns the entries of two masks, as in `kernels.from_masks`."""
  shape = tuple(forward.shape)
  if len(shape) not in (2, 4):
    raise ValueError(
      f'{name}: expected a matrix or a 2D convolution for compact storage, got '
      f'shape {shape}: deselect this layer, or use masked storage, which takes '
      'any layer'
    )
  matrix = matrix_shape(shape)
  try:
    structure = kernels.from_masks(
      forward.reshape(matrix), backward.reshape(matrix), counts
    )
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from error
  return weights_lib.Entries(structure, shape, name)


def _pack_leaf(name, x, forward, backward):
  forward, backward = np.asarray(forward), np.asarray(backward)
  if x.ndim and not forward.ndim and forward:
    return x
  if not forward.shape == backward.shape == tuple(x.shape):
    raise ValueError(
      f'{name}: expected masks of shape {tuple(x.shape)}, got '
      f'{forward.shape} and {backward.shape}'
    )
  if backward.all() and forward.all():
    return x
  entries = make_entries(name, forward, backward)
  entries = jax.tree.map(jnp.asarray, entries)
  return weights_lib.CompactWeights(row_of(x, entries), entries)


def row_of(x: jax.Array, entries: weights_lib.Entries) -> jax.Array:
  """Returns the active entries of a dense array, [1, ..., 1, k_B]."""
  at = entries_lib.places(entries.structure, x.shape)
  return weights_lib.row(jnp.array(entries_lib.take(x, at)), x.ndim)


def _unpack_leaf(w):
  s = w.entries.structure
  at = entries_lib.places(s, w.shape)
  values = jnp.where(entries_lib.in_forward(s), w.values.reshape(-1), 0)
  return jnp.asarray(entries_lib.put(jnp.zeros(w.shape, w.dtype), at, values))
