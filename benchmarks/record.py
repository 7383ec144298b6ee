"""Timing and records of benchmarks.

`--record=DIR` keeps the values in DIR/NAME.csv. A row is one value with the
setting of its measurement. A call replaces the rows of its own cases, so that a
benchmark can be run in parts. Measurements with SPARSITY_ISA=avx2 go to
NAME_avx2.csv. `python -m benchmarks.page` writes docs/benchmarks.md from
docs/results/speed.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import datetime
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time
from typing import Any

import jax
import pandas as pd

from sparsity import kernels
from sparsity.kernels import native

COLUMNS = (
  *('case', 'figure', 'value', 'unit', 'rounds'),
  *('command', 'cpu', 'cores', 'isa', 'jax', 'date'),
)


class Record:
  """The values of one call of a benchmark, printed as they come.

  `arguments` are those of the call; None: those of this process.
  """

  def __init__(self, name: str, arguments: Sequence[str] | None = None):
    self._name = name
    self._arguments = sys.argv[1:] if arguments is None else list(arguments)
    self._values: dict[tuple[str, str], tuple[str, str, str]] = {}

  def add(
    self,
    case: str,
    figure: str,
    value: float,
    unit: str = 'x',
    rounds: int | None = None,
  ) -> None:
    """Adds a value; a second one of the same case and figure replaces it."""
    count = '' if rounds is None else str(rounds)
    self._values[case, figure] = f'{value:.6g}', unit, count
    print(f'{case:60} {figure:12} {value:12,.4g} {unit}', flush=True)

  def compare(
    self,
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    base: str,
    prefix: str = '',
    per: int = 1,
    speed: str = '',
    clock: Callable[[], float] = time.perf_counter,
  ) -> None:
    """Times functions in turns; adds their times, and ratios to one of them.

    A call is `per` steps or examples; with a unit `speed`, `per` over seconds
    is added in place of the time. `prefix` is that of the cases.
    """
    seconds = interleave(functions, rounds, clock)
    for name, times in seconds.items():
      case, median = prefix + name, statistics.median(times)
      if speed:
        self.add(case, 'speed', per / median, speed, rounds)
      else:
        self.add(case, 'time', 1e3 * median / per, 'ms', rounds)
      self.add(case, 'ratio', ratio(times, seconds[base]), rounds=rounds)

  def write(self, directory: str | os.PathLike[str] | None) -> None:
    """Writes the values, if a folder is given."""
    if directory is None:
      return
    isa = os.environ.get(native.ISA_VARIABLE)
    name = '_'.join(filter(None, (self._name, isa)))
    kept = [x for x in self._arguments if not x.startswith('--record=')]
    command = f'python -m benchmarks.{shlex.join([self._name, *kept])}'
    if isa:
      command = f'{native.ISA_VARIABLE}={isa} {command}'
    path = pathlib.Path(directory) / f'{name}.csv'
    rows = {}
    if path.exists():
      rows = {row[:2]: row for row in read(path).itertuples(index=False)}
    is_native = kernels.implementation() == 'native'
    setting = (
      command,
      cpu(),
      str(len(os.sched_getaffinity(0))),
      native.isa() if is_native else kernels.implementation(),
      jax.__version__,
      datetime.date.today().isoformat(),
    )
    for key, value in self._values.items():
      rows[key] = (*key, *value, *setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(list(rows.values()), columns=COLUMNS)
    frame.to_csv(path, index=False, lineterminator='\n')
    print(path)


def start(
  name: str, doc: str, **options: Mapping[str, Any]
) -> tuple[argparse.Namespace, Record]:
  """Returns the arguments of this process, and an empty record.

  `options` are the arguments of further ones, as in `argparse`.
  """
  parser = argparse.ArgumentParser(
    f'python -m benchmarks.{name}',
    description=doc,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--quick', action='store_true', help='few rounds: noisy')
  parser.add_argument('--record', metavar='DIR', help='keep the values here')
  for option, settings in options.items():
    parser.add_argument(f'--{option}', **settings)
  given = parser.parse_args()
  print(kernels.describe())
  return given, Record(name)


def interleave(
  functions: Mapping[str, Callable[[], Any]],
  rounds: int,
  clock: Callable[[], float] = time.perf_counter,
  warm_ups: int = 0,
) -> dict[str, list[float]]:
  """Returns the seconds of each call, the functions in turns.

  On a shared machine only ratios within a turn are meaningful. Each function is
  called once before the clock starts, to compile it; results are waited for.
  Each turn begins with `warm_ups` untimed calls, which fill the caches as
  repeated calls would.
  """
  for function in functions.values():
    jax.block_until_ready(function())
  seconds: dict[str, list[float]] = {name: [] for name in functions}
  for _ in range(rounds):
    for name, function in functions.items():
      for _ in range(warm_ups):
        jax.block_until_ready(function())
      begin = clock()
      jax.block_until_ready(function())
      seconds[name].append(clock() - begin)
  return seconds


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
  """Returns the median over rounds of the ratio of two lists of seconds."""
  return statistics.median(a / b for a, b in zip(times, base, strict=True))


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
  """Returns the rows of a file, all columns as strings."""
  frame = pd.read_csv(path, dtype=str, keep_default_na=False)
  if tuple(frame.columns) != COLUMNS:
    raise ValueError(
      f'expected the columns {COLUMNS} in {path}, got '
      f'{tuple(frame.columns)}; remove it'
    )
  return frame


def cpu() -> str:
  """Returns the name of the processor."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  names = [x.partition(':')[2] for x in lines if x.startswith('model name')]
  return names[0].strip() if names else platform.processor()
