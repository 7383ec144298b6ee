"""Boolean masks: the k best entries, exactly k, in each layer or over all.

Ties go to the lowest flat index, and over several layers to the first in the
order of the tree. NaN is kept only where numbers run out.
"""

from collections.abc import Sequence
import functools
from typing import Any
from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from sparsity import search
from sparsity import threshold

Scope = Literal['layer', 'global']


def topk_mask(
  scores: jax.Array, k: int | jax.Array, *, magnitude: bool = False
) -> jax.Array:
  """Returns the boolean mask of the k largest scores, always exactly k.

  To choose only within a set, score NaN outside of it.

  Example:
    >>> topk_mask(jnp.array([3.0, -9.0, 3.0, 3.0]), 2)
    Array([ True, False,  True, False], dtype=bool)

  Shapes:
    scores: any; the result has the same shape.

  Args:
    scores: float32, bfloat16 or float16.
    k: How many to keep. If it is an array it cannot be checked, and is clipped
      to [0, size].
    magnitude: Whether to rank |scores|, without an array that holds them.

  Raises:
    ValueError: If `k` is an integer outside [0, size].
    TypeError: If `k` is not an integer, or the scores of another dtype.
  """
  return topk_masks(scores, k, magnitude=magnitude)


def topk_masks(
  scores: Any,
  k: Any,
  scope: Scope = 'layer',
  *,
  magnitude: bool = False,
) -> Any:
  """Returns the masks of the k largest scores of a tree.

  Example:
    >>> scores = {'a': jnp.array([1.0, 2.0]), 'b': jnp.array([3.0, 4.0])}
    >>> topk_masks(scores, {'a': 1, 'b': 1})['a']
    Array([False,  True], dtype=bool)
    >>> topk_masks(scores, 2, scope='global')['a']
    Array([False, False], dtype=bool)

  Args:
    scores: A tree of arrays, each as in `topk_mask`.
    k: How many to keep: in each layer, a tree like `scores` (`scope='layer'`),
      or over all of them together, one number (`scope='global'`).
    scope: What is ranked together.
    magnitude: Whether to rank |scores|.

  Raises:
    ValueError: If `k` is not as above, or an integer outside [0, size].
    TypeError: If the scores are not float32, bfloat16 or float16.
  """
  [masks] = nested_topk_masks(scores, [k], scope, magnitude=magnitude)
  return masks


def nested_topk_masks(
  scores: Any,
  ks: Sequence[Any],
  scope: Scope = 'layer',
  *,
  magnitude: bool = False,
) -> tuple[Any, ...]:
  """Returns `topk_masks(scores, k)` for each k, in one search for all.

  The sets are nested: all break ties alike, so that a smaller one is part of a
  larger one. Two cost little more than one.

  Example:
    >>> forward, backward = nested_topk_masks(jnp.arange(4.0), [1, 3])
    >>> forward.astype(int), backward.astype(int)
    (Array([0, 0, 0, 1], dtype=int32), Array([0, 1, 1, 1], dtype=int32))

  Args:
    scores: As in `topk_masks`.
    ks: Several `k` of `topk_masks`.
    scope: As in `topk_masks`.
    magnitude: As in `topk_masks`.

  Raises:
    ValueError: If one of `ks` does not fit `scores`.
    TypeError: If the scores are not float32, bfloat16 or float16.
  """
  leaves, structure = jax.tree.flatten(scores)
  leaves = [jnp.asarray(leaf) for leaf in leaves]
  if scope == 'layer':
    groups = [[leaf] for leaf in leaves]
    layer_ks = zip(*(_layer_ks(k, structure) for k in ks), strict=True)
  elif scope == 'global':
    groups = [leaves] if leaves else []
    layer_ks = [ks] if leaves else []
  else:
    raise ValueError(f"expected scope 'layer' or 'global', got {scope!r}")
  kept = [[] for _ in ks]
  for group, group_ks in zip(groups, layer_ks, strict=True):
    for masks, more in zip(
      kept, _topk(group, group_ks, magnitude), strict=True
    ):
      masks.extend(more)
  return tuple(jax.tree.unflatten(structure, masks) for masks in kept)


def random_mask(
  key: jax.Array, shape: Sequence[int], k: int | jax.Array
) -> jax.Array:
  """Returns a mask with exactly k entries, every such mask as likely.

  Example:
    >>> random_mask(jax.random.key(0), (2, 3), 4).sum()
    Array(4, dtype=int32)

  Raises:
    ValueError: If `k` is an integer outside [0, size].
  """
  return topk_mask(random_scores(key, shape), k)


def random_scores(key: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Returns random float32 numbers whose order alone is of use.

  They are 2^31 numbers, to break ties among millions: `uniform` has 2^23.
  """
  bits = jax.random.bits(key, tuple(shape), jnp.uint32)
  # Without the lowest bit of the exponent, none is infinite or NaN.
  return lax.bitcast_convert_type(bits & np.uint32(0xFF7FFFFF), jnp.float32)


def density(masks: Any) -> jax.Array:
  """Returns the share of entries kept, of a mask or of a tree of them.

  Example:
    >>> density({'a': jnp.array([True, False]), 'b': jnp.ones(2, bool)})
    Array(0.75, dtype=float32)

  Raises:
    ValueError: If there are no entries.
  """
  size = sum(mask.size for mask in jax.tree.leaves(masks))
  if not size:
    raise ValueError('expected masks with at least one entry, got none')
  return _num_true(masks) / size


def overlap(a: Any, b: Any) -> jax.Array:
  """Returns the share of the entries of `a` that are in `b` too.

  It is symmetric for sets of the same count, and 1 if `a` is empty.

  Example:
    >>> overlap(jnp.array([True, True]), jnp.array([True, False]))
    Array(0.5, dtype=float32)

  Args:
    a: A mask or a tree of masks.
    b: One like it.
  """
  num_both = _num_true(jax.tree.map(jnp.logical_and, a, b))
  num_a = _num_true(a)
  return jnp.where(num_a > 0, num_both / jnp.maximum(num_a, 1), 1.0)


def num_kept(density: float, size: int) -> int:
  """Returns how many of `size` entries a density keeps: at least one.

  Example:
    >>> num_kept(0.1, 235_200), num_kept(0.1, 3)
    (23520, 1)

  Raises:
    ValueError: If `density` is outside (0, 1], or there are no entries.
  """
  if not 0 < density <= 1:
    raise ValueError(f'expected a density in (0, 1], got {density}')
  if size < 1:
    raise ValueError(f'expected at least one entry to keep, got size {size}')
  return max(1, round(density * size))


def _layer_ks(k: Any, structure: Any) -> list[Any]:
  leaves, k_structure = jax.tree.flatten(k)
  if k_structure != structure:
    raise ValueError(
      "expected k like the tree of scores (for one k of all, scope='global'): "
      f'{structure}, got {k_structure}'
    )
  return leaves


def _topk(group, ks, magnitude):
  total = sum(leaf.size for leaf in group)
  for k in ks:
    threshold.check_k(k, total)
  ks = jnp.stack([jnp.asarray(k, jnp.int32) for k in ks])
  return _topk_traced(group, ks, magnitude=magnitude)


# Compiled as a whole also when called outside of jit, and once for all k.
@functools.partial(jax.jit, static_argnames='magnitude')
def _topk_traced(group, ks, magnitude):
  """Returns for each k of `ks` [N] the masks of the arrays of `group`."""
  cuts = threshold.find(group, ks, magnitude)
  return [
    [
      threshold.keep(leaf, cut, offset, magnitude)
      for leaf, offset in zip(group, search.offsets(group), strict=True)
    ]
    for cut in cuts
  ]


def _num_true(masks: Any) -> jax.Array:
  """Returns the number of entries kept, as float32 since it may be large."""
  counts = (jnp.sum(mask, dtype=jnp.int32) for mask in jax.tree.leaves(masks))
  return sum((count.astype(jnp.float32) for count in counts), jnp.float32(0))
