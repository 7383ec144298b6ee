"""Patterns: which entries of a layer may be kept together.

A pattern divides a layer into units, the least that is kept or dropped: single
entries, blocks, output channels. A method ranks units, each by the mean |score|
of its entries, and keeps exactly the number of units that its density says.

Shapes:
  I, O: the last two axes of a layer, input and output. G: groups along I.
"""

from collections.abc import Callable
import math
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from sparsity import masks
from sparsity import state as state_lib
from sparsity import threshold

OTHERWISE = ('error', 'dense', 'unstructured')
Shape = tuple[int, ...]


class Pattern(NamedTuple):
  """Units of a layer, and the choice of the best of them.

  `topk(scores, k, given)` returns the mask of the k units of largest |score|
  that are not in the mask `given`, and fit the pattern together with it.
  """

  name: str
  fits: Callable[[Shape], bool]
  num_units: Callable[[Shape], int]
  topk: Callable[[jax.Array, Any, jax.Array | None], jax.Array]
  most: float = 1.0  # density that the pattern allows at most
  otherwise: str = 'error'  # of layers that do not fit


def _entries(scores, k, given=None):
  if given is not None:
    scores = jnp.where(given, jnp.nan, scores)
  return masks.topk_mask(scores, k, magnitude=True)


UNSTRUCTURED = Pattern('unstructured', lambda shape: True, math.prod, _entries)


def unstructured() -> Pattern:
  """Returns the pattern that is none: single entries, anywhere."""
  return UNSTRUCTURED


def n_of_m(n: int, m: int, *, otherwise: str = 'error') -> Pattern:
  """Returns the pattern of at most n entries in m along the input axis.

  The axis is the last but one, in Haiku's linear layers and convolutions alike,
  and has to be a multiple of m. At density n/m each m consecutive entries have
  exactly n, below it at most n; above it (a gradual method on its way) those
  that will stay go first.

  Example:
    >>> pattern = n_of_m(1, 2)
    >>> scores = jnp.array([[1.0, 5.0], [-2.0, 4.0]])
    >>> topk_masks(pattern, {'w': scores}, {'w': 2})['w'].astype(int)
    Array([[0, 1],
           [1, 0]], dtype=int32)

  Args:
    n: entries kept, in [1, m].
    m: entries in a group.
    otherwise: what becomes of a layer whose axis does not fit: 'error' raises,
      'dense' leaves it out, 'unstructured' keeps its best entries anywhere; a
      warning names it.

  Raises:
    ValueError: If not 1 <= n <= m, or `otherwise` is unknown.

  Reference:
    Mishra et al., 2021, "Accelerating sparse deep neural networks".
    https://arxiv.org/abs/2104.08378
  """
  if not 1 <= n <= m:
    raise ValueError(f'expected 1 <= n <= m, got n={n}, m={m}')

  def topk(scores, k, given=None):
    first = _first_in_groups(scores, n, m, given)
    k = jnp.asarray(k, jnp.int32)
    num_first = jnp.sum(first, dtype=jnp.int32)
    best = masks.topk_mask(
      jnp.where(first, scores, jnp.nan),
      jnp.minimum(k, num_first),
      magnitude=True,
    )
    taken = first if given is None else first | given
    rest = _entries(scores, jnp.maximum(k - num_first, 0), taken)
    return best | rest

  return Pattern(
    f'{n} of {m}',
    lambda shape: len(shape) >= 2 and shape[-2] % m == 0,
    math.prod,
    topk,
    n / m,
    _check_otherwise(otherwise),
  )


def block(rows: int, columns: int, *, otherwise: str = 'error') -> Pattern:
  """Returns the pattern of whole blocks of [rows, columns] in [I, O].

  Each position of a convolution's kernel is a matrix by itself. Blocks at the
  edges may be smaller; since blocks are ranked by a mean, that is neither for
  nor against them, and they count as one block each. Layers with less than two
  axes do not fit.

  Example:
    >>> scores = jnp.array([[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]])
    >>> topk_masks(block(2, 2), {'w': scores}, {'w': 1})['w'].astype(int)
    Array([[0, 0, 1],
           [0, 0, 1]], dtype=int32)

  Raises:
    ValueError: If a side is less than 1, or `otherwise` is unknown.
  """
  if rows < 1 or columns < 1:
    raise ValueError(f'expected sides >= 1, got rows={rows}, columns={columns}')

  def reduced(x):  # [..., I, O] -> [..., I / rows, O / columns]
    *leading, i, o = x.shape
    pads = [(0, 0)] * len(leading) + [(0, -i % rows), (0, -o % columns)]
    x = jnp.pad(x, pads)
    shape = (x.shape[-2] // rows, rows, x.shape[-1] // columns, columns)
    return x.reshape(*leading, *shape).sum((-3, -1))

  def expanded(units, shape):
    units = jnp.repeat(jnp.repeat(units, rows, -2), columns, -1)
    return units[..., : shape[-2], : shape[-1]]

  return Pattern(
    f'blocks of {rows} x {columns}',
    lambda shape: len(shape) >= 2,
    lambda shape: (
      math.prod(shape[:-2]) * -(-shape[-2] // rows) * -(-shape[-1] // columns)
    ),
    _units(reduced, expanded),
    otherwise=_check_otherwise(otherwise),
  )


def channels(*, otherwise: str = 'error') -> Pattern:
  """Returns the pattern of whole output channels, the last axis.

  Layers with less than two axes do not fit.

  Example:
    >>> scores = jnp.array([[1.0, 3.0], [4.0, 3.0]])
    >>> topk_masks(channels(), {'w': scores}, {'w': 1})['w'].astype(int)
    Array([[0, 1],
           [0, 1]], dtype=int32)

  Raises:
    ValueError: If `otherwise` is unknown.

  Reference:
    Li et al., 2017, "Pruning filters for efficient ConvNets".
    https://arxiv.org/abs/1608.08710
  """
  return Pattern(
    'output channels',
    lambda shape: len(shape) >= 2,
    lambda shape: shape[-1],
    _units(
      lambda x: x.sum(tuple(range(x.ndim - 1))),
      lambda units, shape: jnp.broadcast_to(
        units[(None,) * (len(shape) - 1)], shape
      ),
    ),
    otherwise=_check_otherwise(otherwise),
  )


def topk_masks(
  pattern: Pattern,
  scores: dict[str, jax.Array],
  k: Any,
  scope: masks.Scope = 'layer',
  given: dict[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
  """Returns the masks of the k units of largest |score|, of layers by path.

  Args:
    pattern: what the units are.
    scores: any sign; NaN is chosen only where numbers run out.
    k: units to choose, by path, or of all (`scope='global'`); may be traced.
    scope: as in `sparsity.topk_masks`; 'global' without a pattern only.
    given: masks of what is kept already, and so is not chosen again.
  """
  if scope == 'global':
    return masks.topk_masks(scores, k, scope, magnitude=True)
  return {
    path: of_layer(pattern, x.shape).topk(x, k[path], given and given[path])
    for path, x in scores.items()
  }


def random_masks(
  pattern: Pattern,
  key: jax.Array,
  like: dict[str, jax.Array],
  k: dict[str, Any],
  given: dict[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
  """Returns the masks of k units of each layer of `like`, drawn at random."""
  keys = state_lib.layer_keys(key, like)
  lottery = {
    path: _random_scores(of_layer(pattern, x.shape), keys[path], x.shape)
    for path, x in like.items()
  }
  return topk_masks(pattern, lottery, k, given=given)


def of_layer(pattern: Pattern, shape: Shape) -> Pattern:
  """Returns the pattern, or none if it does not fit a layer of this shape."""
  return pattern if pattern.fits(shape) else UNSTRUCTURED


def _random_scores(pattern, key, shape):
  if pattern.num_units(shape) == math.prod(shape):
    return masks.random_scores(key, shape)
  return jax.random.uniform(key, shape)  # these can be summed


def _units(reduced, expanded):
  """Returns `Pattern.topk` for units, given sums over them and the inverse."""

  def topk(scores, k, given=None):
    sums = reduced(jnp.abs(scores).astype(jnp.float32))
    means = sums / reduced(jnp.ones(scores.shape, jnp.float32))
    if given is not None:
      means = jnp.where(reduced(given.astype(jnp.float32)) > 0, jnp.nan, means)
    return expanded(masks.topk_mask(means, k), scores.shape)

  return topk


def _first_in_groups(scores, n, m, given):
  """Returns the mask of the best of each m, n together with those given."""
  *leading, i, o = scores.shape
  shape = (*leading, i // m, m, o)  # [..., G, m, O]
  keys = threshold.order(scores, magnitude=True).reshape(shape)
  left = n
  if given is not None:
    given = given.reshape(shape)
    keys = jnp.where(given, -2, keys)  # after NaN
    left = n - given.sum(-2, keepdims=True, dtype=jnp.int32)
  index = lax.broadcasted_iota(jnp.int32, shape, len(shape) - 2)
  rank = jnp.zeros(shape, jnp.int32)  # how many of the group come before
  for j in range(m):
    other = lax.slice_in_dim(keys, j, j + 1, axis=-2)
    rank += (other > keys) | ((other == keys) & (j < index))
  first = rank < left
  if given is not None:
    first &= ~given
  return first.reshape(scores.shape)


def _check_otherwise(otherwise: str) -> str:
  if otherwise not in OTHERWISE:
    raise ValueError(
      f'expected otherwise out of {OTHERWISE}, got {otherwise!r}'
    )
  return otherwise
