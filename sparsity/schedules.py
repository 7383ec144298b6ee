"""Events: from the number of updates made to True where one is due."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# A function of a count: a Python integer, or an array of NumPy or JAX.
Event = Callable[[Any], jax.Array]


def every(interval: int, *, start: int = 0, stop: int | None = None) -> Event:
  """Returns an event that is due at multiples of `interval` in (start, stop].

  Example:
    >>> due = every(3, stop=7)
    >>> [t for t in range(12) if due(t)]
    [3, 6]

  Raises:
    ValueError: If `interval` is less than 1, `start` is negative, or `stop`
      is less than `start`.
  """
  _check_range('interval', interval, 1)
  _check_range('start', start, 0)
  if stop is not None:
    _check_range('stop', stop, start)

  def is_due(count):
    count = jnp.asarray(count)
    due = (count % interval == 0) & (count > start)
    return due if stop is None else due & (count <= stop)

  return is_due


def every_to(end: int, interval: int, *, start: int = 0) -> Event:
  """Returns an event due every `interval` updates after `start`, and at `end`.

  Example:
    >>> due = every_to(9, 3, start=2)
    >>> [t for t in range(12) if due(t)]
    [5, 8, 9]

  Raises:
    ValueError: If `interval` is less than 1, or not 0 <= start < end.
  """
  _check_range('interval', interval, 1)
  _check_range('start', start, 0)
  _check_range('end', end, start + 1)

  def is_due(count):
    count = jnp.asarray(count)
    inside = (count > start) & (count < end)
    return (inside & ((count - start) % interval == 0)) | (count == end)

  return is_due


def check_density(name: str, density: float):
  """Raises ValueError unless a density is in (0, 1]."""
  if not 0 < density <= 1:
    raise ValueError(f'expected {name} in (0, 1], got {density}')


def _check_range(name: str, value: int, low: int):
  if value < low:
    raise ValueError(f'expected {name} >= {low}, got {value}')
