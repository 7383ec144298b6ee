"""Density schedules and event schedules.

A density schedule maps the number of updates made so far to a density, an event
schedule to a bool: True where the event is due. Both work inside a jitted step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Functions of a count: a Python integer, or an array of NumPy or JAX.
Density = Callable[[Any], jax.Array]
Event = Callable[[Any], jax.Array]


def constant(density: float) -> Density:
  """Returns a schedule of constant density, in (0, 1]."""
  check_density('density', density)
  return lambda count: jnp.full(jnp.shape(count), density, jnp.float32)


def one_shot(density: float, *, at: int) -> Density:
  """Returns a schedule that is 1 before update `at`, and `density` from then.

  Raises:
    ValueError: If `density` is outside (0, 1], or `at` is negative.
  """
  check_density('density', density)
  _check_range('at', at, 0)
  return lambda count: jnp.where(count < at, 1.0, density).astype(jnp.float32)


def cubic(
  density: float, *, start: int, end: int, initial_density: float = 1.0
) -> Density:
  """Returns the cubic schedule from `initial_density` to `density`.

  density(t) = density + (initial - density) (1 - (t - start) / (end - start))^3
  between updates `start` and `end`, constant before and after.

  Example:
    >>> schedule = cubic(0.1, start=10, end=20)
    >>> [round(float(schedule(t)), 4) for t in (0, 10, 15, 20, 30)]
    [1.0, 1.0, 0.2125, 0.1, 0.1]

  Raises:
    ValueError: If a density is outside (0, 1], the densities increase, or
      not 0 <= start < end.

  Reference:
    Zhu and Gupta, 2017, "To prune, or not to prune: exploring the efficacy of
    pruning for model compression". https://arxiv.org/abs/1710.01878
  """
  check_density('density', density)
  check_density('initial_density', initial_density)
  if density > initial_density:
    raise ValueError(
      'expected a density not above the initial density, got '
      f'density={density} and initial_density={initial_density}'
    )
  _check_range('start', start, 0)
  _check_range('end', end, start + 1)

  def schedule(count):
    count = jnp.clip(count, start, end)
    left = (end - count).astype(jnp.float32) / (end - start)
    return density + (initial_density - density) * left**3

  return schedule


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


def alternating(end: int, phase_steps: int, *, start: int) -> Event:
  """Returns an event that is due during the dense phases of AC/DC.

  True for counts below `start`, False from `end` on; in between, phases of
  `phase_steps` alternate, False first. The last True one lasts until `end`.

  Example:
    >>> is_dense = alternating(7, 2, start=1)
    >>> [t for t in range(9) if is_dense(t)]
    [0, 3, 4, 5, 6]

  Raises:
    ValueError: If `start` or `phase_steps` is less than 1, or `end` is less
      than `start + 2 * phase_steps`.
  """
  _check_range('start', start, 1)
  _check_range('phase_steps', phase_steps, 1)
  if end < start + 2 * phase_steps:
    raise ValueError(
      'expected end >= start + 2 * phase_steps, room for a sparse and a dense '
      f'phase, got start={start}, end={end}, phase_steps={phase_steps}'
    )
  num_phases = 2 * num_cycles(end, phase_steps, start=start)

  def is_dense(count):
    count = jnp.asarray(count)
    phase = jnp.minimum((count - start) // phase_steps, num_phases - 1)
    return (count < start) | ((count < end) & (phase % 2 == 1))

  return is_dense


def num_cycles(end: int, phase_steps: int, *, start: int) -> int:
  """Returns the number of sparse phases before `end`, each before a dense one.

  Example:
    >>> num_cycles(7, 2, start=1)
    1
  """
  return (end - start) // (2 * phase_steps)


def check_density(name: str, density: float):
  """Raises ValueError unless a density is a number in (0, 1]."""
  if isinstance(density, jax.Array):
    raise ValueError(
      f'expected {name} as a number of Python, got an array; within '
      'optax.inject_hyperparams name it in static_args'
    )
  if not 0 < density <= 1:
    raise ValueError(f'expected {name} in (0, 1], got {density}')


def _check_range(name: str, value: int, low: int):
  if value < low:
    raise ValueError(f'expected {name} >= {low}, got {value}')
