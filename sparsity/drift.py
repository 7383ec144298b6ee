"""Detection of parameters that moved otherwise than by a method's updates.

Entries outside B have an update of exactly zero, and sets are chosen from the
sum of parameters and updates. A weight decay or a schedule after the method,
or a wrapper that replaces parameters, breaks both. The state therefore holds
bounds of a few entries of each layer, checked after the first update, around
refreshes and every `CHECK_EVERY` updates, so that other steps cost nothing.
"""

import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NUM_SAMPLES = 16  # entries per layer
CHECK_EVERY = 64  # updates
TOLERANCE = 0.01  # of an update; links recompute it with other roundings
MESSAGE = (
  'expected the parameters of the last update plus its updates, got others: '
  'the updates or the parameters were changed after the sparse '
  'transformation, so its active sets are stale. Put every other link inside '
  'it, as in topkast.topkast(optax.chain(...), ...), or use '
  'sparsity.chain(tx, *links); after replacing parameters on purpose, call '
  'tx.init(params)'
)


class Expected(NamedTuple):
  """Bounds of sampled parameters at the next update."""

  low: jax.Array  # float [S], S samples of all sparse layers
  high: jax.Array  # float [S]
  is_stale: jax.Array  # bool [], True after parameters out of bounds


def init(layers: dict[str, Any]) -> Expected:
  """Returns bounds that any parameters satisfy."""
  size = sum(len(_positions(x.shape)[0]) for x in layers.values())
  low = jnp.zeros([size], _dtype(layers))
  return forget(Expected(low, low, jnp.zeros([], bool)))


def forget(expected: Expected) -> Expected:
  """Returns bounds that any parameters satisfy, of the same shape."""
  most = jnp.full_like(expected.high, jnp.finfo(expected.high.dtype).max)
  return expected._replace(low=-most, high=most)


class Samples(NamedTuple):
  """Sampled entries before an update."""

  values: jax.Array  # float [S]
  inside: jax.Array  # bool [S], in B
  is_stale: jax.Array  # bool [], out of bounds now or before


def verify(expected: Expected, is_due, layers: dict, masks: dict) -> Samples:
  """Returns samples of parameters, checked against their bounds if due.

  Raises:
    ValueError: If they are out of bounds, unless under a transformation.
  """

  def read():
    values = sample(layers, expected.low.dtype)
    outside = (values < expected.low) | (values > expected.high)
    stale = expected.is_stale | jnp.any(outside)
    return Samples(values, sample(masks, bool), stale)

  def skip():
    unread = jnp.zeros_like(expected.low)
    return Samples(unread, unread != 0, expected.is_stale)

  found = jax.lax.cond(is_due, read, skip)
  check(found.is_stale)
  return found


def expect(
  expected: Expected, is_due, samples: Samples, following: dict, with_inside
) -> Expected:
  """Returns the bounds of the parameters `following` an update, if due.

  Entries outside B are exact until the next refresh. Those inside have bounds
  for the very next update (`with_inside`), as wide as the caller's sum may be
  rounded otherwise than here.
  """
  dtype = expected.low.dtype
  eps = [
    np.full(len(_positions(x.shape)[0]), jnp.finfo(x.dtype).eps, dtype)
    for x in following.values()
  ]

  def write():
    old, new = samples.values, sample(following, dtype)
    slack = 4 * np.concatenate(eps) * (jnp.abs(old) + jnp.abs(new))
    slack += TOLERANCE * jnp.abs(new - old)
    moves = samples.inside | (new != old)
    slack = jnp.where(moves, slack, 0)
    most = jnp.finfo(dtype).max
    known = with_inside | ~moves
    return (
      jnp.where(known, new - slack, -most), jnp.where(known, new + slack, most)
    )  # fmt: skip

  bounds = jax.lax.cond(is_due, write, lambda: (expected.low, expected.high))
  return Expected(*bounds, samples.is_stale)


def check(stale: Any) -> None:
  """Raises ValueError where `stale` is a value and not an abstract one."""
  is_value = isinstance(stale, jax.Array | np.ndarray)
  if is_value and not isinstance(stale, jax.core.Tracer) and np.any(stale):
    raise ValueError(MESSAGE)


def sample(layers: dict[str, jax.Array], dtype: Any) -> jax.Array:
  """Returns fixed entries of all layers, [S]."""
  return jnp.concatenate(
    [x[_positions(x.shape)].astype(dtype) for x in layers.values()]
  )


def _positions(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
  """Returns indices spread over an array; a golden ratio avoids patterns."""
  size = math.prod(shape)
  steps = np.arange(0.5, min(NUM_SAMPLES, size)) * (math.sqrt(5) - 1) / 2
  return np.unravel_index(np.int64(size * (steps % 1)), shape)


def _dtype(layers):
  has_double = any(x.dtype == jnp.float64 for x in layers.values())
  return jnp.float64 if has_double else jnp.float32
