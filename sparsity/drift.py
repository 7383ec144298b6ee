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
  """Samples of each layer at the next update, by path."""

  values: dict[str, jax.Array]
  slack: dict[str, jax.Array]  # zero outside B; the largest number if unknown
  inside: dict[str, jax.Array]  # bool, in B
  is_stale: jax.Array  # bool [], True once an update found other values


def init(layers: dict[str, jax.Array], backward: dict) -> Expected:
  """Returns an expectation that any parameters meet."""
  values, inside = (jax.tree.map(sample, tree) for tree in (layers, backward))
  return Expected(values, _largest(values), inside, jnp.zeros([], bool))


def forget(expected: Expected) -> Expected:
  """Returns an expectation that any parameters meet, whatever the sets."""
  unknown = _largest(expected.values)
  inside = jax.tree.map(jnp.ones_like, expected.inside)
  return Expected(unknown, unknown, inside, expected.is_stale)


def is_stale(expected: Expected, layers: dict[str, jax.Array]) -> jax.Array:
  """Returns whether parameters are or were others than expected.

  Raises:
    ValueError: If they are, unless under a transformation.
  """
  values, slack, _, stale = expected
  differs = [
    jnp.abs(sample(x) - values[path]) > slack[path]
    for path, x in layers.items()
  ]
  stale |= jnp.any(jnp.concatenate(differs))
  check(stale)
  return stale


def expect(
  expected: Expected, stale: jax.Array, layers: dict, backward: dict
) -> Expected:
  """Returns the expectation of `layers`, which the update at hand leads to.

  Samples of the parameters and sets before it are those in `expected`: a second
  look at the arrays would keep XLA from updating them in place.
  """
  values, inside = (jax.tree.map(sample, tree) for tree in (layers, backward))

  def slack(old, new, was_in, is_in):
    largest = jnp.max(jnp.abs(old) + jnp.abs(new))
    width = 4 * jnp.finfo(new.dtype).eps * largest
    width += TOLERANCE * jnp.abs(new - old)
    return jnp.where(was_in | is_in, width, 0).astype(new.dtype)

  widths = jax.tree.map(slack, expected.values, values, expected.inside, inside)
  return Expected(values, widths, inside, stale)


def check(stale: Any) -> None:
  """Raises ValueError where `stale` is a value and not an abstract one."""
  is_value = isinstance(stale, jax.Array)
  if is_value and not isinstance(stale, jax.core.Tracer) and stale.any():
    raise ValueError(MESSAGE)


def sample(x: jax.Array) -> jax.Array:
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


def _largest(values: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns the largest number; debuggers find infinity."""
  return jax.tree.map(
    lambda x: jnp.full_like(x, jnp.finfo(x.dtype).max), values
  )
