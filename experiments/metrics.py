"""Metrics of runs (stand-in until the module of the same name is merged)."""

import json
import os
import pathlib
from typing import Any

from experiments import rundir

FILE = 'metrics.jsonl'


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the rows of metrics.jsonl."""
  path = pathlib.Path(workdir) / FILE
  rows = []
  for number, line in enumerate(path.read_text().splitlines(), 1):
    try:
      row = json.loads(line)
    except ValueError as error:
      raise rundir.FolderError(f'{path}, line {number}: no JSON') from error
    if not isinstance(row, dict) or not isinstance(row.get('step'), int):
      raise rundir.FolderError(f'{path}, line {number}: no row')
    rows.append(_restore(row))
  return rows


def _restore(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _restore(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_restore(item) for item in value]
  return float(value) if value in ('nan', 'inf', '-inf') else value
