"""Boolean masks of the k largest scores: exactly k, per layer or globally.

Ties are broken by the lowest flat index, across layers by tree order. NaN ranks
below every number.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import functools
import itertools
from typing import Any
import zlib

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from sparsity import schedules
from sparsity import search
from sparsity import threshold


def topk_mask(
  scores: jax.Array,
  k: int | jax.Array,
  *,
  magnitude: bool = False,
  exclude: jax.Array | None = None,
) -> jax.Array:
  """Returns the boolean mask of the k largest scores, always exactly k.

  Example:
    >>> topk_mask(jnp.array([3.0, -9.0, 3.0, 3.0]), 2)
    Array([ True, False,  True, False], dtype=bool)

  Args:
    k: an array is not checked but clipped to [0, size].
    magnitude: rank |scores|, without materializing them.
    exclude: mask of scores that rank as NaN, likewise.

  Raises:
    ValueError: If `k` is an integer outside [0, size].
    TypeError: If `k` is not an integer, or the scores have another dtype.
  """
  return topk_masks(scores, k, magnitude=magnitude, exclude=exclude)


def topk_masks(
  scores: Any,
  k: Any,
  scope: str = 'layer',
  *,
  magnitude: bool = False,
  exclude: Any | None = None,
) -> Any:
  """Returns the masks of the k largest scores of a tree, from one search.

  Example:
    >>> scores = {'a': jnp.array([1.0, 2.0]), 'b': jnp.array([3.0, 4.0])}
    >>> topk_masks(scores, {'a': 1, 'b': 1})['a']
    Array([False,  True], dtype=bool)
    >>> topk_masks(scores, 2, scope='global')['a']
    Array([False, False], dtype=bool)

  Args:
    k: a tree like `scores`, or one total with `scope='global'`.
    scope: 'layer' ranks each layer by itself, 'global' all layers together.
    exclude: a tree like `scores`, of masks as in `topk_mask`.

  Raises:
    ValueError, TypeError: As in `topk_mask`, or if `k` does not fit the tree.
  """
  [masks] = nested_topk_masks(
    scores, [k], scope, magnitude=magnitude, exclude=exclude
  )
  return masks


def nested_topk_masks(
  scores: Any,
  ks: Sequence[Any],
  scope: str = 'layer',
  *,
  magnitude: bool = False,
  exclude: Any | None = None,
) -> tuple[Any, ...]:
  """Returns `topk_masks(scores, k)` for each k, from one shared search.

  The masks are nested, and two cost little more than one.

  Example:
    >>> forward, backward = nested_topk_masks(jnp.arange(4.0), [1, 3])
    >>> forward.astype(int), backward.astype(int)
    (Array([0, 0, 0, 1], dtype=int32), Array([0, 1, 1, 1], dtype=int32))

  Raises:
    ValueError, TypeError: As in `topk_masks`.
  """
  leaves, structure = jax.tree.flatten(scores)
  if scope not in ('layer', 'global'):
    raise ValueError(f"expected scope 'layer' or 'global', got {scope!r}")
  if not leaves:
    return (scores,) * len(ks)
  leaves = [
    threshold.Scores(jnp.asarray(x), taken)
    for x, taken in zip(leaves, _leaves_like(exclude, structure), strict=True)
  ]
  if scope == 'global':
    found = _search([leaves], [ks], magnitude)
  else:
    by_layer = zip(*(_layer_ks(k, structure) for k in ks), strict=True)
    found = _search([[x] for x in leaves], list(by_layer), magnitude)
  return tuple(
    jax.tree.unflatten(structure, itertools.chain(*masks)) for masks in found
  )


def random_mask(
  key: jax.Array,
  shape: Sequence[int],
  k: int | jax.Array,
  *,
  exclude: jax.Array | None = None,
) -> jax.Array:
  """Returns a mask of exactly k entries, drawn uniformly, and not stored.

  Example:
    >>> random_mask(jax.random.key(0), (2, 3), 4).sum()
    Array(4, dtype=int32)

  Args:
    exclude: mask of entries that are drawn only if no others are left.

  Raises:
    ValueError: If `k` is an integer outside [0, size].
  """
  like = jnp.zeros(shape, bool) if exclude is None else exclude
  return random_masks(key, like, k, exclude=exclude)


def random_masks(
  keys: Any, like: Any, k: Any, *, exclude: Any | None = None
) -> Any:
  """Returns `random_mask` for each layer of a tree, from one search.

  Args:
    keys: a tree like `like`, of random keys.
    like: a tree of arrays, for their shapes.
    k: a tree like `like`.
    exclude: a tree like `like`, of masks as in `random_mask`.

  Raises:
    ValueError: As in `random_mask`, or if `k` does not fit the tree.
  """
  leaves, structure = jax.tree.flatten(like)
  trees = (_leaves_like(tree, structure) for tree in (exclude, keys))
  layers = [
    [threshold.Scores(x, taken, jax.random.bits(key, (2,), jnp.uint32))]
    for x, taken, key in zip(leaves, *trees, strict=True)
  ]
  ks = [[k] for k in _layer_ks(k, structure)]
  [found] = _search(layers, ks, magnitude=False)
  return jax.tree.unflatten(structure, itertools.chain(*found))


def random_scores(key: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Returns random float32 scores for ranking; only their order is meaningful.

  They take 2^31 values, enough to avoid ties among millions of entries;
  `jax.random.uniform` has 2^23.
  """
  bits = jax.random.bits(key, tuple(shape), jnp.uint32)
  # Clearing the lowest bit of the exponent excludes infinity and NaN.
  return lax.bitcast_convert_type(bits & np.uint32(0xFF7FFFFF), jnp.float32)


def layer_keys(key: jax.Array, paths: Iterable[str]) -> dict[str, jax.Array]:
  """Returns a random key for each layer, derived from its path alone."""
  return {
    path: jax.random.fold_in(key, zlib.crc32(path.encode())) for path in paths
  }


def num_kept(density: float, size: int) -> int:
  """Returns the number of entries kept at a density: at least one.

  Example:
    >>> num_kept(0.1, 235_200), num_kept(0.1, 3)
    (23520, 1)

  Raises:
    ValueError: If `density` is outside (0, 1], or `size` less than 1.
  """
  schedules.check_density('a density', density)
  if size < 1:
    raise ValueError(f'expected at least one entry to keep, got size {size}')
  return max(1, round(density * size))


def on_auto_axes(fn: Callable[..., Any], like: Any) -> Callable[..., Any]:
  """Returns `fn` for arrays sharded over the Explicit axes of a mesh.

  There operations demand equal shardings, which a choice of k has not. Results
  are sharded like the tree `like`; without Explicit axes it is `fn` itself.
  """
  shardings = jax.tree.map(lambda x: jax.typeof(x).sharding, like)
  explicit = jax.sharding.AxisType.Explicit
  leaves = jax.tree.leaves(shardings)
  if not any(explicit in sharding.mesh.axis_types for sharding in leaves):
    return fn
  return jax.sharding.auto_axes(fn, out_sharding=shardings)


def _search(
  groups: list[list[threshold.Scores]],
  ks: Sequence[Sequence[Any]],
  magnitude: bool,
) -> list[list[list[jax.Array]]]:
  """Returns for each k, `ks` by group, the masks of the arrays by group."""
  like = [[scores.values for scores in group] for group in groups]
  for own, group in zip(ks, like, strict=True):
    for k in own:
      _check_k(k, sum(x.size for x in group))
  stacked = jnp.stack([jnp.asarray(k, jnp.int32) for own in ks for k in own])
  stacked = stacked.reshape(len(groups), -1)
  choose = functools.partial(_jit_topk, magnitude=magnitude)
  return on_auto_axes(choose, [like] * stacked.shape[1])(groups, stacked)


def _leaves_like(tree: Any, structure: Any) -> list[Any]:
  """Returns the leaves of a tree, or None for each."""
  if tree is None:
    return [None] * structure.num_leaves
  return structure.flatten_up_to(tree)


def _layer_ks(k: Any, structure: Any) -> list[Any]:
  leaves, k_structure = jax.tree.flatten(k)
  if k_structure != structure:
    raise ValueError(
      f'expected k like the tree of scores, {structure}, got {k_structure}: '
      "give one k for each layer, or use scope='global' for one total"
    )
  return leaves


def _check_k(k: int | jax.Array, size: int) -> None:
  if not jnp.issubdtype(jnp.result_type(k), jnp.integer):
    raise TypeError(f'expected an integer k, got {k!r}')
  if isinstance(k, (int, np.integer)) and not 0 <= k <= size:
    raise ValueError(
      f'expected k between 0 and the number of scores, {size}, got {k}'
    )


# One program, also outside jit, and the same one for every k.
@functools.partial(jax.jit, static_argnames='magnitude')
def _jit_topk(groups, ks, magnitude):
  """Returns for each k of `ks` [G, N] the masks of the arrays in `groups`."""
  cuts = threshold.find(groups, ks, magnitude)
  return [
    [
      [
        threshold.keep(scores, cut, offset, magnitude)
        for scores, offset in zip(group, search.offsets(group), strict=True)
      ]
      for cut, group in zip(own, groups, strict=True)
    ]
    for own in zip(*cuts, strict=True)
  ]
