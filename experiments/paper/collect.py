"""Collects runs: what their folders say, and nothing else."""

import os
import pathlib
from typing import Any
from typing import NamedTuple

from experiments.common import run as run_lib


class Record(NamedTuple):
  """A run that is done."""

  path: pathlib.Path
  config: dict[str, Any]
  summary: dict[str, Any]


def read_runs(directory: str | os.PathLike[str]) -> list[Record]:
  """Returns the runs below a folder that are done, by path.

  Raises:
    ValueError: If there is none.
  """
  found = [
    Record(
      path.parent,
      run_lib.read_json(path),
      run_lib.read_json(path.with_name('summary.json')),
    )
    for path in sorted(pathlib.Path(directory).rglob('config.json'))
    if path.with_name('summary.json').exists()
  ]
  if not found:
    raise ValueError(
      f'expected folders of runs with a summary.json below {directory}, got '
      'none that is done'
    )
  return found


def density_of(config: dict[str, Any]) -> float:
  """Returns the density that a config trains at: Top-KAST's is forward."""
  method = config['method']
  for key in ('density', 'forward_density'):
    if key in method:
      return method[key]
  return 1.0
