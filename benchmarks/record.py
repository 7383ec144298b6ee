"""Keeps what a benchmark measured as DIR/NAME.csv, for `--record=DIR`.

A line a figure, and beside it what it was measured with. A call replaces the
lines of its own cases and figures; those of others stay, so that a benchmark
can be run part by part. What was measured with SPARSITY_ISA=avx2 is kept apart,
in NAME_avx2.csv. The README is made from `docs/results/speed`.
"""

import argparse
from collections.abc import Sequence
import csv
import datetime
import os
import pathlib
import platform
import shlex
import sys
from typing import NamedTuple

import jax

from sparsity import kernels
from sparsity.kernels import native


class Row(NamedTuple):
  """A figure, and what it was measured with."""

  case: str
  figure: str  # such as 'time' or 'ratio'
  value: str
  unit: str
  rounds: str
  command: str
  cpu: str
  cores: str  # that the process may use
  isa: str  # of the kernels
  jax: str  # version
  date: str


class Record:
  """The figures of one call of a benchmark."""

  def __init__(self, name: str, arguments: Sequence[str] | None = None):
    """Begins without figures.

    Args:
      name: of the benchmark.
      arguments: of the call; None: those of this process.
    """
    self._name = name
    self._arguments = sys.argv[1:] if arguments is None else list(arguments)
    self._figures: dict[tuple[str, str], tuple[float, str, int | None]] = {}

  def add(
    self,
    case: str,
    figure: str,
    value: float,
    unit: str = 'x',
    rounds: int | None = None,
  ) -> None:
    """Adds a figure; a second one of the same name replaces it."""
    self._figures[case, figure] = value, unit, rounds

  def write(self, directory: str | os.PathLike[str] | None) -> None:
    """Writes the figures, if a folder is given."""
    if directory is None:
      return
    isa = os.environ.get(native.ISA_VARIABLE)
    name = '_'.join(filter(None, (self._name, isa)))
    path = pathlib.Path(directory) / f'{name}.csv'
    rows = read(path) if path.exists() else {}
    setting = self._setting()
    for key, (value, unit, rounds) in self._figures.items():
      count = '' if rounds is None else str(rounds)
      rows[key] = Row(*key, f'{value:.6g}', unit, count, *setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerows([Row._fields, *rows.values()])
    print(path)

  def _setting(self) -> tuple[str, ...]:
    native_is_used = kernels.implementation() == 'native'
    return (
      command(self._name, self._arguments, os.environ),
      cpu(),
      str(cores()),
      native.isa() if native_is_used else kernels.implementation(),
      jax.__version__,
      datetime.date.today().isoformat(),
    )


def add_argument(parser: argparse.ArgumentParser) -> None:
  """Adds `--record` to the arguments of a benchmark."""
  parser.add_argument('--record', metavar='DIR', help='keep the figures here')


def read(path: pathlib.Path) -> dict[tuple[str, str], Row]:
  """Returns what a file holds, by case and figure.

  Raises:
    ValueError: If it was written by another version.
  """
  with path.open(newline='') as file:
    header, *lines = list(csv.reader(file)) or [[]]
  if tuple(header) != Row._fields:
    raise ValueError(
      f'expected the columns {Row._fields} in {path}, got {header}; remove it'
    )
  return {(line[0], line[1]): Row(*line) for line in lines}


def command(
  name: str, arguments: Sequence[str], environment: dict[str, str]
) -> str:
  """Returns the command of a benchmark, without `--record=DIR`.

  Example:
    >>> command('compact', ['--only=mlp', '--record=DIR'], {})
    'python -m benchmarks.compact --only=mlp'
    >>> command('loop', [], {'SPARSITY_ISA': 'avx2'})
    'SPARSITY_ISA=avx2 python -m benchmarks.loop'
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
  """Returns how many cores this process may use."""
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
