"""Weights that store active entries only, as pytrees.

Shapes: k_A, k_B: number of entries of the forward set A and of the backward set
B. Values have the dense weight's rank, [1, ..., 1, k_B], so that code which
selects by rank (weights, weight decay) still works.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsity import kernels
from sparsity import masked


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Entries:
  """Indices of the active entries of a dense weight, without values."""

  structure: kernels.Structure
  shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})
  name: str = dataclasses.field(metadata={'static': True})  # 'module/name'

  @property
  def num_forward(self) -> int:
    """The number of entries in A."""
    return self.structure.t_columns.shape[-1]

  @property
  def num_backward(self) -> int:
    """The number of entries in B."""
    return self.structure.columns.shape[-1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CompactWeights(masked.Weights):
  """Active entries of a dense weight, for `sparsity.matmul` and `conv`.

  Represents the weight on A, zero elsewhere; its gradient covers all of B.
  Shape and dtype are those of the dense weight, as `hk.get_parameter` expects.
  Take gradients with `sparsity.grad`: the indices are leaves of the tree too.
  """

  values: jax.Array  # [1, ..., 1, k_B]
  entries: Entries

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the dense weight."""
    return self.entries.shape

  def reshape(self, *shape: int) -> 'CompactWeights':
    """Returns these weights with other input axes; outputs stay last.

    Raises:
      ValueError: If the size or the last axis changes.
    """
    if len(shape) == 1 and not isinstance(shape[0], int):
      shape = tuple(shape[0])
    known = math.prod(n for n in shape if n != -1)
    full = tuple(self.size // known if n == -1 else n for n in shape)
    if math.prod(full) != self.size or full[-1] != self.shape[-1]:
      raise ValueError(
        f'{self.entries.name}: expected a shape of {self.size} entries whose '
        f'last axis is {self.shape[-1]}, got {shape}'
      )
    entries = dataclasses.replace(self.entries, shape=full)
    return CompactWeights(row(self.values, len(full)), entries)

  def __repr__(self):
    return f'CompactWeights({self.entries.name}, {self.shape})'

  def _unsupported(self, *_):
    raise ValueError(
      f'{self.entries.name} {self.shape}: expected a layer that takes compact '
      'weights (sparsity.matmul, sparsity.conv or sparsity.modules), got an '
      'operation on the dense weight: build the layer from these, deselect it, '
      'or use masked storage'
    )

  # Called by JAX before it rejects an unknown type.
  __jax_array__ = _unsupported
  __add__ = __radd__ = __sub__ = __rsub__ = _unsupported
  __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _unsupported
  __matmul__ = __rmatmul__ = __pow__ = __neg__ = __getitem__ = _unsupported
  T = property(_unsupported)


def is_compact(x: Any) -> bool:
  """Returns whether `x` is a `CompactWeights`."""
  return isinstance(x, CompactWeights)


def _has_values(x: Any) -> bool:
  return isinstance(x, masked.Weights)


def values(weights: Any) -> Any:
  """Returns a tree of arrays: the values of compact and masked weights."""
  return jax.tree.map(
    lambda w: w.values if _has_values(w) else w, weights, is_leaf=_has_values
  )


def _with_values(weights: Any, new: Any) -> Any:
  """Returns `weights` with other values; the inverse of `values`."""
  return jax.tree.map(
    lambda w, x: dataclasses.replace(w, values=x) if _has_values(w) else x,
    weights,
    new,
    is_leaf=_has_values,
  )


def value_and_grad(fun: Callable, has_aux: bool = False) -> Callable:
  """Returns `jax.value_and_grad(fun)` for dense, masked or compact weights.

  The gradient of `CompactWeights` or `MaskedWeights` in the first argument is
  an array like their values. Without any it is `jax.value_and_grad`. If `fun`
  raises an error with `MaskedWeights`, as `hk.Conv2D` does, it is called again
  with masked arrays.

  Example:
    >>> from sparsity import compact
    >>> import sparsity
    >>> mask = jnp.eye(2, dtype=bool)
    >>> w = compact.pack({'w': jnp.ones((2, 2))}, {'w': mask}, {'w': mask})
    >>> loss = lambda w, x: sparsity.matmul(x, w['w']).sum()
    >>> value_and_grad(loss)(w, jnp.array([[2.0, 3.0]]))
    (Array(5., dtype=float32), {'w': Array([[2., 3.]], dtype=float32)})
  """

  def wrapped(weights, *args, **kwargs):
    def differentiate(convert):
      def of_values(new, *args, **kwargs):
        return fun(convert(_with_values(weights, new)), *args, **kwargs)

      both = jax.value_and_grad(of_values, has_aux=has_aux)
      return both(values(weights), *args, **kwargs)

    try:
      return differentiate(lambda weights: weights)
    except (AttributeError, TypeError, ValueError):
      leaves = jax.tree.leaves(weights, is_leaf=_has_values)
      if not any(map(masked.is_masked, leaves)):
        raise
    return differentiate(masked.write_out)

  return wrapped


def grad(fun: Callable, has_aux: bool = False) -> Callable:
  """Returns `jax.grad(fun)` for dense, masked or compact weights.

  See `value_and_grad`.
  """
  both = value_and_grad(fun, has_aux)

  def wrapped(*args, **kwargs):
    value, gradients = both(*args, **kwargs)
    return (gradients, value[1]) if has_aux else gradients

  return wrapped


def row(vector: jax.Array, rank: int) -> jax.Array:
  """Returns a vector [k] as [1, ..., 1, k] of the given rank."""
  return vector.reshape((1,) * (rank - 1) + (-1,))


def num_bytes(tree: Any) -> int:
  """Returns the total size in bytes of a tree's arrays, indices included.

  Example:
    >>> num_bytes({'w': jnp.zeros((2, 3)), 'n': jnp.zeros([], jnp.int32)})
    28
  """
  return sum(
    math.prod(x.shape) * jnp.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )
