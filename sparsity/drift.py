"""Detection of parameters that moved otherwise than by a method's updates.

Updates outside B are exactly zero, and sets are chosen from the sum of
parameters and updates. A weight decay, a learning rate or an averaging after
the method breaks both. The state therefore holds a few entries of each layer
as the last update leaves them, and every update compares them.
"""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NUM_SAMPLES = 64  # entries per layer
TOLERANCE = 0.01  # of an update; the caller's sum may be rounded otherwise
MESSAGE = (
  'expected the parameters of the last update plus its updates, got others: '
  'the updates or the parameters were changed after the sparse '
  'transformation, so its active sets are stale. Put every other link inside '
  'it, as in topkast.topkast(optax.chain(...), ...), or use '
  'sparsity.chain(tx, *links); after replacing parameters on purpose, call '
  'tx.init(params)'
)


class Expected(NamedTuple):
  """Samples of all layers at the next update, S entries."""

  values: jax.Array  # float [S]
  slack: jax.Array  # float [S], zero outside B; the largest number if unknown
  inside: jax.Array  # bool [S], in B; True if unknown
  is_stale: jax.Array  # bool [], True once an update found other values


def init(layers: dict[str, jax.Array]) -> Expected:
  """Returns an expectation that any parameters and sets meet."""
  has_double = any(x.dtype == jnp.float64 for x in layers.values())
  values = _sample(layers, jnp.float64 if has_double else jnp.float32)
  return forget(Expected(values, values, values, jnp.zeros([], bool)))


def forget(expected: Expected) -> Expected:
  """Returns an expectation that any parameters and sets meet, once."""
  values = expected.values
  return expected._replace(
    slack=jnp.full_like(values, jnp.finfo(values.dtype).max),
    inside=jnp.ones_like(values, bool),
  )


def is_stale(expected: Expected, layers: dict[str, jax.Array]) -> jax.Array:
  """Returns whether parameters are or were others than expected.

  Raises:
    ValueError: If they are, unless under a transformation.
  """
  values, slack, _, stale = expected
  stale |= jnp.any(jnp.abs(_sample(layers, values.dtype) - values) > slack)
  check(stale)
  return stale


def expect(
  expected: Expected, stale: jax.Array, layers: dict, backward: dict
) -> Expected:
  """Returns the expectation of `layers`, which the update at hand leads to.

  Samples of the parameters and sets before it are those in `expected`: a second
  look at the arrays would keep XLA from updating them in place.
  """
  old, new = expected.values, _sample(layers, expected.values.dtype)
  inside = _sample(backward, bool)
  epsilon: Any = np.concatenate(
    [np.full(_block(x).size, jnp.finfo(x.dtype).eps) for x in layers.values()]
  ).astype(new.dtype)
  width = 4 * epsilon * (jnp.abs(old) + jnp.abs(new))
  width += TOLERANCE * jnp.abs(new - old)
  slack = jnp.where(expected.inside | inside, width, 0)
  return Expected(new, slack, inside, stale)


def check(stale: Any) -> None:
  """Raises ValueError where `stale` is a value and not an abstract one."""
  is_value = isinstance(stale, jax.Array | np.ndarray)
  if is_value and not isinstance(stale, jax.core.Tracer) and np.any(stale):
    raise ValueError(MESSAGE)


def _sample(layers: dict[str, jax.Array], dtype: Any) -> jax.Array:
  """Returns a block of each layer, [S]."""
  blocks = [_block(x).astype(dtype) for x in layers.values()]
  return jnp.concatenate([jnp.zeros([0], dtype), *blocks])


def _block(x: jax.Array) -> jax.Array:
  """Returns some neighboring entries in the middle, as a vector."""
  left, ends = NUM_SAMPLES, []
  for size in reversed(x.shape):
    length = min(left, size)
    start = (size - length) // 2
    ends.append(slice(start, start + length))
    left = -(-left // length)

  def cut(x):
    return x[tuple(reversed(ends))].ravel()

  sharding = jax.typeof(x).sharding
  if jax.sharding.AxisType.Explicit in sharding.mesh.axis_types:
    everywhere = jax.NamedSharding(sharding.mesh, jax.P())
    return jax.sharding.auto_axes(cut, out_sharding=everywhere)(x)
  return cut(x)
