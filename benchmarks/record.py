"""Records of benchmarks: `--record=DIR` keeps the values in DIR/NAME.csv.

A row is one value with the setting of its measurement. A call replaces the rows
of its own cases, so that a benchmark can be run in parts. Measurements with
SPARSITY_ISA=avx2 go to NAME_avx2.csv. `python -m benchmarks.page` writes
docs/benchmarks.md from docs/results/speed.
"""

import argparse
from collections.abc import Sequence
import datetime
import os
import pathlib
import platform
import shlex
import sys
from typing import NamedTuple

import jax
import pandas as pd

from sparsity import kernels
from sparsity.kernels import native


class Row(NamedTuple):
  """A value and the setting of its measurement."""

  case: str
  figure: str  # such as 'time' or 'ratio'
  value: str
  unit: str
  rounds: str
  command: str
  cpu: str
  cores: str  # available to the process
  isa: str  # of the kernels
  jax: str  # version
  date: str


class Record:
  """The values of one call of a benchmark."""

  def __init__(self, name: str, arguments: Sequence[str] | None = None):
    """Begins an empty record.

    Args:
      name: of the benchmark.
      arguments: of the call; None: those of this process.
    """
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

  def write(self, directory: str | os.PathLike[str] | None) -> None:
    """Writes the values, if a folder is given.

    Raises:
      ValueError: If the file there has other columns.
    """
    if directory is None:
      return
    isa = os.environ.get(native.ISA_VARIABLE)
    name = '_'.join(filter(None, (self._name, isa)))
    path = pathlib.Path(directory) / f'{name}.csv'
    rows = {}
    if path.exists():
      rows = {row[:2]: row for row in read(path).itertuples(index=False)}
    setting = self._setting()
    for key, value in self._values.items():
      rows[key] = Row(*key, *value, *setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(list(rows.values()), columns=Row._fields)
    frame.to_csv(path, index=False, lineterminator='\n')
    print(path)

  def _setting(self) -> tuple[str, ...]:
    is_native = kernels.implementation() == 'native'
    return (
      command(self._name, self._arguments, os.environ),
      cpu(),
      str(cores()),
      native.isa() if is_native else kernels.implementation(),
      jax.__version__,
      datetime.date.today().isoformat(),
    )


def add_argument(parser: argparse.ArgumentParser) -> None:
  """Adds `--record` to the arguments of a benchmark."""
  parser.add_argument('--record', metavar='DIR', help='keep the values here')


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
  """Returns the rows of a file, all columns as strings.

  Raises:
    ValueError: If another version wrote it.
  """
  frame = pd.read_csv(path, dtype=str, keep_default_na=False)
  if tuple(frame.columns) != Row._fields:
    raise ValueError(
      f'expected the columns {Row._fields} in {path}, got '
      f'{tuple(frame.columns)}; remove it'
    )
  return frame


def command(
  name: str, arguments: Sequence[str], environment: dict[str, str]
) -> str:
  """Returns the command of a benchmark, without `--record=DIR`.

  Example:
    >>> command('compact', ['--only=mlp', '--record=DIR'], {})
    'python -m benchmarks.compact --only=mlp'
    >>> command('step', [], {'SPARSITY_ISA': 'avx2'})
    'SPARSITY_ISA=avx2 python -m benchmarks.step'
  """
  kept, is_folder = [], False
  for argument in arguments:
    if not is_folder and argument.partition('=')[0] != '--record':
      kept.append(argument)
    is_folder = argument == '--record'
  isa = environment.get(native.ISA_VARIABLE)
  before = f'{native.ISA_VARIABLE}={isa} ' if isa else ''
  return f'{before}python -m benchmarks.{shlex.join([name, *kept])}'


def cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # Linux
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def cpu() -> str:
  """Returns the name of the processor."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  names = [
    line.partition(':')[2].strip()
    for line in lines
    if line.startswith('model name')
  ]
  return names[0] if names else platform.processor()
