"""Times functions side by side: on a shared machine only ratios mean much."""

from collections.abc import Callable
from collections.abc import Mapping
import statistics
import time
from typing import Any

import jax


def interleave(
  functions: Mapping[str, Callable[[], Any]],
  repeats: int,
  clock: Callable[[], float] = time.perf_counter,
  warm_ups: int = 0,
) -> dict[str, list[float]]:
  """Returns the seconds of each call, the functions taking turns.

  Every function is called once before the clock starts, to compile. Results
  are waited for, so that a call is timed and not its dispatch. With the clock
  `time.process_time` they are seconds of all cores together. Each turn begins
  with `warm_ups` calls that do not count, after which the caches hold what they
  hold if a function is called over and over.

  Example:
    >>> seconds = interleave({'a': lambda: 1, 'b': lambda: 2}, repeats=3)
    >>> {name: len(times) for name, times in seconds.items()}
    {'a': 3, 'b': 3}
  """
  for function in functions.values():
    jax.block_until_ready(function())
  seconds: dict[str, list[float]] = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():
      for _ in range(warm_ups):
        jax.block_until_ready(function())
      start = clock()
      jax.block_until_ready(function())
      seconds[name].append(clock() - start)
  return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
  """Returns the median of each list of `interleave`."""
  return {name: statistics.median(times) for name, times in seconds.items()}
