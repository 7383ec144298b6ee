"""Structured sparsity: patterns of entries that are kept together.

A pattern divides a layer into units that are kept or dropped whole: single
entries, blocks, output channels. A method ranks units by the mean |score| of
their entries, and keeps exactly the number of units its density asks for.

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
import numpy as np

from sparsity import paths as paths_lib
from sparsity import threshold
from sparsity import topk as topk_lib

Shape = tuple[int, ...]


class Pattern(NamedTuple):
  """Division of a layer into units, and the choice of the k best.

  `topk(scores, k, given)` returns the mask of the k units of largest |score|
  outside the mask `given` that fit the pattern together with it.
  """

  name: str
  fits: Callable[[Shape], bool]
  num_units: Callable[[Shape], int]
  topk: Callable[[jax.Array, Any, jax.Array | None], jax.Array]
  most: float = 1.0  # largest density the pattern allows


def _entries(scores, k, given=None):
  return topk_lib.topk_mask(scores, k, magnitude=True, exclude=given)


UNSTRUCTURED = Pattern('unstructured', lambda shape: True, math.prod, _entries)


def unstructured() -> Pattern:
  """Returns the trivial pattern: single entries, anywhere."""
  return UNSTRUCTURED


def n_of_m(n: int, m: int) -> Pattern:
  """Returns the n:m pattern: at most n of m entries along the input axis.

  The input axis is the second to last, in Haiku's linear layers and
  convolutions alike, and must be a multiple of m. At density n/m each group of
  m consecutive entries keeps exactly n, below it at most n. Above it (during
  gradual pruning) the best n of each group are kept first, then others.

  Example:
    >>> pattern = n_of_m(1, 2)
    >>> scores = jnp.array([[1.0, 5.0], [-2.0, 4.0]])
    >>> topk_masks(pattern, {'w': scores}, {'w': 2})['w'].astype(int)
    Array([[0, 1],
           [1, 0]], dtype=int32)

  Raises:
    ValueError: If not 1 <= n <= m.

  Reference:
    Mishra et al., 2021, "Accelerating sparse deep neural networks".
    https://arxiv.org/abs/2104.08378
  """
  if not 1 <= n <= m:
    raise ValueError(f'expected 1 <= n <= m, got n={n}, m={m}')

  @jax.jit
  def topk(scores, k, given=None):
    first = _first_in_groups(scores, n, m, given)
    k = jnp.asarray(k, jnp.int32)
    num_first = jnp.sum(first, dtype=jnp.int32)
    best = _entries(scores, jnp.minimum(k, num_first), ~first)
    taken = first if given is None else first | given
    rest = _entries(scores, jnp.maximum(k - num_first, 0), taken)
    return best | rest

  return Pattern(
    f'{n} of {m}',
    lambda shape: len(shape) >= 2 and shape[-2] % m == 0,
    math.prod,
    topk,
    n / m,
  )


def block(rows: int, columns: int) -> Pattern:
  """Returns the pattern of blocks of [rows, columns] in [I, O].

  Each spatial position of a convolution kernel is a separate matrix. Smaller
  blocks at the edges count alike, since blocks are ranked by their mean. Layers
  with fewer than two axes do not fit.

  Example:
    >>> scores = jnp.array([[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]])
    >>> topk_masks(block(2, 2), {'w': scores}, {'w': 1})['w'].astype(int)
    Array([[0, 0, 1],
           [0, 0, 1]], dtype=int32)

  Raises:
    ValueError: If a side is less than 1.
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
  )


def fan_in() -> Pattern:
  """Returns the pattern of constant fan-in: as many inputs for each output.

  Outputs are the last axis; each keeps its k largest entries of all other axes.

  Example:
    >>> scores = jnp.array([[1.0, 5.0], [-2.0, 4.0]])
    >>> topk_masks(fan_in(), {'w': scores}, {'w': 1})['w'].astype(int)
    Array([[0, 1],
           [1, 0]], dtype=int32)

  Reference:
    Lasby et al., 2023, "Dynamic sparse training with structured sparsity".
    https://arxiv.org/abs/2305.02299
  """

  @jax.jit
  def topk(scores, k, given=None):
    choose = jax.vmap(lambda x, taken: _entries(x, k, taken), -1, -1)
    return choose(scores, given)

  return Pattern(
    'constant fan-in',
    lambda shape: len(shape) >= 2,
    lambda shape: math.prod(shape[:-1]),
    topk,
  )


def channels() -> Pattern:
  """Returns the pattern of output channels: the last of two or more axes.

  Example:
    >>> scores = jnp.array([[1.0, 3.0], [4.0, 3.0]])
    >>> topk_masks(channels(), {'w': scores}, {'w': 1})['w'].astype(int)
    Array([[0, 1],
           [0, 1]], dtype=int32)

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
  )


def topk_masks(
  pattern: Pattern,
  scores: dict[str, jax.Array],
  k: Any,
  scope: str = 'layer',
  given: dict[str, jax.Array] | None = None,
  layout: str | None = None,
) -> dict[str, jax.Array]:
  """Returns the masks of the k units of largest |score|, by layer path.

  Units in the masks `given` are not chosen again. `scope='global'` requires
  `UNSTRUCTURED`. `layout` is that of `sparsity.make_counts`.
  """
  if pattern is UNSTRUCTURED:  # axes do not matter: no copies
    return topk_lib.topk_masks(scores, k, scope, magnitude=True, exclude=given)

  def mask(path, x):
    taken = None
    if given:
      taken = paths_lib.to_in_out(path, given[path], layout)
    found = pattern.topk(paths_lib.to_in_out(path, x, layout), k[path], taken)
    return paths_lib.from_in_out(path, found, layout)

  return {path: mask(path, x) for path, x in scores.items()}


def random_masks(
  pattern: Pattern,
  key: jax.Array,
  like: dict[str, jax.Array],
  k: dict[str, Any],
  given: dict[str, jax.Array] | None = None,
  layout: str | None = None,
) -> dict[str, jax.Array]:
  """Returns random masks of k units in each layer of `like`.

  Units in the masks `given` are not drawn.
  """
  keys = topk_lib.layer_keys(key, like)
  if pattern is UNSTRUCTURED:
    return topk_lib.random_masks(keys, like, k, exclude=given)
  lottery = {}
  for path, x in like.items():
    shape = paths_lib.in_out_shape(path, x.shape, layout)
    is_of_entries = pattern.num_units(shape) == x.size
    draw = topk_lib.random_scores if is_of_entries else jax.random.uniform
    lottery[path] = draw(keys[path], x.shape)  # summed over units
  return topk_masks(pattern, lottery, k, given=given, layout=layout)


def _units(reduced, expanded):
  """Returns `Pattern.topk`, given the sum over units and its inverse."""

  @jax.jit
  def topk(scores, k, given=None):
    sums = reduced(jnp.abs(scores).astype(jnp.float32))
    means = sums / reduced(jnp.ones(scores.shape, jnp.float32))
    if given is not None:
      means = jnp.where(reduced(given.astype(jnp.float32)) > 0, jnp.nan, means)
    return expanded(topk_lib.topk_mask(means, k), scores.shape)

  return topk


def _first_in_groups(scores, n, m, given):
  """Returns the mask of the best of each m, at most n including `given`."""
  *leading, i, o = scores.shape
  shape = (*leading, i // m, m, o)  # [..., G, m, O]
  keys = threshold.order(threshold.Scores(scores), magnitude=True)
  keys = keys.reshape(shape)
  left = n
  if given is not None:
    given = given.reshape(shape)
    keys = jnp.where(given, np.iinfo(keys.dtype).min, keys)  # below NaN
    left = n - given.sum(-2, keepdims=True, dtype=jnp.int32)
  index = lax.broadcasted_iota(jnp.int32, shape, len(shape) - 2)
  rank = jnp.zeros(shape, jnp.int32)  # within the group
  for j in range(m):
    other = lax.slice_in_dim(keys, j, j + 1, axis=-2)
    is_above = (other > keys) | ((other == keys) & (j < index))
    rank += is_above.astype(jnp.int32)
  first = rank < left
  if given is not None:
    first &= ~given
  return first.reshape(scores.shape)
