"""Numbers that describe masks: density and overlap."""

from typing import Any

import jax
import jax.numpy as jnp


def density(masks: Any, params: Any | None = None) -> jax.Array:
  """Returns the fraction of entries kept, over a mask or a tree of masks.

  Example:
    >>> density({'a': jnp.array([True, False]), 'b': jnp.ones(2, bool)})
    Array(0.75, dtype=float32)

  Args:
    params: a tree like `masks`, for the sizes of leaves that have a single True
      in place of a mask.

  Raises:
    ValueError: If there are no entries, or a single True without `params`.
  """
  sizes = _sizes(masks, params)
  if not sum(sizes):
    raise ValueError('expected masks with at least one entry, got none')
  return _num_true(masks, sizes) / sum(sizes)


def overlap(a: Any, b: Any, params: Any | None = None) -> jax.Array:
  """Returns the fraction of the entries of `a` that are also in `b`.

  For masks or trees of masks. Symmetric for equal counts; 1 if `a` is empty.
  `params` is that of `density`.

  Example:
    >>> overlap(jnp.array([True, True]), jnp.array([True, False]))
    Array(0.5, dtype=float32)
  """
  both, sizes = jax.tree.map(jnp.logical_and, a, b), _sizes(a, params)
  num_both, num_a = (_num_true(masks, sizes) for masks in (both, a))
  return jnp.where(num_a > 0, num_both / jnp.maximum(num_a, 1), 1.0)


def _sizes(masks: Any, params: Any | None) -> list[int]:
  """Returns the number of entries of each leaf."""
  leaves = jax.tree.leaves(masks)
  if params is not None:
    own = jax.tree.leaves(params)
    pairs = zip(leaves, own, strict=True)
    return [mask.size if mask.ndim else x.size for mask, x in pairs]
  if any(not mask.ndim for mask in leaves):
    raise ValueError(
      'expected params with a single True in place of a mask, got None'
    )
  return [mask.size for mask in leaves]


def _num_true(masks: Any, sizes: list[int]) -> jax.Array:
  """Returns the number of entries kept; float32, as it may exceed int32."""
  pairs = zip(jax.tree.leaves(masks), sizes, strict=True)
  counts = (
    jnp.sum(mask, dtype=jnp.int32).astype(jnp.float32) * (size / mask.size)
    for mask, size in pairs
    if size
  )
  return sum(counts, jnp.float32(0))
