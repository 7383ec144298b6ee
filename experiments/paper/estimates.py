"""Estimates from few seeds: intervals and paired tests.

Everything assumes that figures of seeds are independent and roughly normal;
with three seeds little can be told apart.
"""

from collections.abc import Sequence
import math
import statistics
from typing import NamedTuple

from scipy import special


class Estimate(NamedTuple):
  """A figure over seeds."""

  mean: float
  deviation: float  # of the sample; 0 where there is one seed
  num: int  # seeds
  low: float | None  # the confidence interval of the mean; None for one seed
  high: float | None


class Paired(NamedTuple):
  """A paired comparison of two methods on the seeds that they share."""

  difference: float  # mean of a - b
  num: int  # pairs
  p: float | None  # two-sided; None where it cannot be told


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
  """Returns mean, sample deviation, and Student's interval of the mean.

  Example:
    >>> found = estimate([1.0, 2.0, 3.0])
    >>> found.mean, found.deviation, round(found.low, 2), round(found.high, 2)
    (2.0, 1.0, -0.48, 4.48)

  Args:
    values: one for each seed.
    confidence: of the interval.
  """
  deviation = statistics.stdev(values) if len(values) > 1 else 0.0
  mean = statistics.fmean(values)
  low, high = interval(mean, deviation, len(values), confidence)
  return Estimate(mean, deviation, len(values), low, high)


def interval(
  mean: float, deviation: float, num: int, confidence: float = 0.95
) -> tuple[float | None, float | None]:
  """Returns the interval of a mean by Student's t; None for one value."""
  if num < 2:
    return None, None
  quantile = special.stdtrit(num - 1, (1 + confidence) / 2)
  half = float(quantile) * deviation / math.sqrt(num)
  return mean - half, mean + half


def paired(a: dict[int, float], b: dict[int, float]) -> Paired | None:
  """Returns the paired t-test of figures by seed, or None with none shared.

  Example:
    >>> found = paired({0: 3.0, 1: 4.0, 2: 6.0}, {0: 1.0, 1: 3.0, 2: 3.0})
    >>> found.difference, found.num, round(found.p, 3)
    (2.0, 3, 0.074)
  """
  seeds = sorted(a.keys() & b.keys())
  if not seeds:
    return None
  differences = [a[seed] - b[seed] for seed in seeds]
  mean, num = statistics.fmean(differences), len(seeds)
  deviation = statistics.stdev(differences) if num > 1 else 0.0
  if num < 2 or deviation == 0:
    return Paired(mean, num, None)
  t = abs(mean) / (deviation / math.sqrt(num))
  return Paired(mean, num, float(2 * special.stdtr(num - 1, -t)))


def holm(p_values: Sequence[float]) -> list[float]:
  """Returns p-values corrected for there being many, by Holm's method.

  Example:
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

  Reference:
    Holm, 1979, "A simple sequentially rejective multiple test procedure".
  """
  corrected = [0.0] * len(p_values)
  largest = 0.0
  for rank, index in enumerate(
    sorted(range(len(p_values)), key=p_values.__getitem__)
  ):
    largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
    corrected[index] = largest
  return corrected
