"""Interleaved timing: on a shared machine only ratios are meaningful."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
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
  """Returns the seconds of each call, the functions in turns.

  Each function is called once before the clock starts, to compile it; results
  are waited for. Each turn begins with `warm_ups` untimed calls, which fill the
  caches as repeated calls would. With the clock `time.process_time` the seconds
  are those of all cores together.

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


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
  """Returns the median over rounds of the ratio of two lists of seconds.

  Example:
    >>> ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    2.0
  """
  return statistics.median(a / b for a, b in zip(times, base, strict=True))
