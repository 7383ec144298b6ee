"""Run folders as pandas frames: one row for each network and pruning level.

Folders are only read, never changed.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
from typing import Any
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments import metrics
from experiments import rundir
from experiments.paper import measures
from experiments.paper import table as table_lib

EXPERIMENTS = frozenset(
  {'continual_learning', 'image_classification', 'language_modelling'}
)
_NUMBERS = (
  'accuracy', 'bits_per_character', 'density', 'loss', 'mask_change', 'overlap',
  'perplexity', 'share', 'task', 'tested',
)  # fmt: skip
_NO_METRICS = ('density', 'share', 'step')  # facts and places


class Run(NamedTuple):
  """A network that is trained, or diverged."""

  path: pathlib.Path
  config: dict[str, Any]
  status: str  # 'done' or 'diverged'
  message: str
  summary: dict[str, Any]  # empty if it diverged
  rows: list[dict[str, Any]]  # of metrics.jsonl


def read(
  directory: str | os.PathLike[str],
) -> tuple[list[Run], list[tuple[pathlib.Path, str]]]:
  """Returns the runs below a folder by path, and others with the reason."""
  found, left = [], []
  for path in sorted(pathlib.Path(directory).rglob('config.json')):
    try:
      found.append(read_run(path.parent))
    except (ValueError, OSError) as error:
      left.append((path.parent, str(error)))
  if not found and not left:
    raise ValueError(f'expected run folders below {directory}, got none')
  return found, left


def read_run(folder: pathlib.Path) -> Run:
  """Returns the run of a folder; ValueError if it is not done or readable."""
  config = read_config(folder)
  status, summary = _read_object(folder / 'status.json'), {}
  state, message = status.get('status'), str(status.get('message', ''))
  if state == 'done':
    summary = _read_object(folder / 'summary.json')
  elif state != 'diverged':
    raise ValueError(
      f'not done: {state} at step {status.get("step")} of '
      f'{status.get("total_steps")}' + (f' ({message})' if message else '')
    )
  rows = metrics.read(folder)
  _check_rows(rows, is_done=state == 'done')
  run = Run(folder, config, state, message, summary, rows)
  try:
    to_frame([run])
  except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
    raise ValueError(f'expected the form of this version: {error!r}') from error
  return run


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a folder; ValueError if it is of another version."""
  config = rundir.read_config(folder)
  try:
    experiment = config['experiment']
    if str(experiment) not in EXPERIMENTS:
      raise ValueError(
        f'expected an experiment of {sorted(EXPERIMENTS)}, got {experiment!r}'
      )
    table_lib.facts(config)
  except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
    raise ValueError(f'expected the form of this version: {error!r}') from error
  return config


def to_frame(found: Sequence[Run]) -> pd.DataFrame:
  """Returns a row for each network, and for each of its pruning levels.

  Columns: `run` (index into `found`), `status`, `message`, `seconds`, the
  facts, `share` (the pruning level, rounded; NaN for the network as trained),
  `level` (the same, not rounded), and the metrics; `active` is the measured
  density.
  """
  rows = []
  for i, run in enumerate(found):
    seconds = run.summary.get('wall_time_s')
    shared = {
      'run': i,
      'status': run.status,
      'message': run.message,
      'seconds': seconds if _is_number(seconds) else np.nan,
      **table_lib.facts(run.config),
    }
    levels = _levels(run) if run.status == 'done' else {None: {}}
    for share, values in levels.items():
      rounded = np.nan if share is None else round(share, 9)
      rows.append({**values, **shared, 'share': rounded, 'level': share})
  frame = pd.DataFrame(rows)
  if 'strategy' in frame:
    _compare_with_alone(frame, found)
  return frame


def select(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
  """Returns the rows with some facts; None selects the rows without a value."""
  for name, value in where.items():
    if name not in frame:
      frame = frame if value is None else frame.iloc[:0]
    else:
      column = frame[name]
      frame = frame[column.isna() if value is None else column == value]
  return frame


def differing(configs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
  """Returns the keys in which configs differ, dotted, with all values."""
  flat = flatten(configs)
  texts = flat.map(lambda x: repr(float(x) if _is_number(x) else x))
  return flat.loc[:, texts.nunique() > 1]


def flatten(configs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
  """Returns a row for each config, its keys dotted; None where it has none."""
  rows = [
    pd.json_normalize(dict(config)).astype(object).iloc[0].to_dict()
    for config in configs
  ]
  flat = pd.DataFrame(rows, dtype=object)
  return flat.where(flat.notna(), None)


def matrix_of(run: Run) -> np.ndarray:
  """Returns the accuracy matrix [T, T] of a run of continual learning."""
  return measures.accuracy_matrix(run.rows, run.config['tasks']['num_tasks'])


def of_split(run: Run, split: str) -> list[dict[str, Any]]:
  """Returns the metrics rows of a split."""
  return [row for row in run.rows if row['split'] == split]


def _levels(run: Run) -> dict[float | None, dict[str, float]]:
  """Returns the metrics of a network as trained (None) and at each level."""
  if run.config['experiment'] == 'continual_learning':
    num_tasks = run.config['tasks']['num_tasks']
    return {None: measures.of_network(run.rows, num_tasks)}
  losses = [row['loss'] for row in of_split(run, 'train') if 'loss' in row]
  ends = {'first_loss': losses[0], 'last_loss': losses[-1]} if losses else {}
  found = {None: of_split(run, 'test')[0]}
  found |= {row['share']: row for row in of_split(run, 'pruned')}
  levels = {}
  for share, row in found.items():
    values = {k: float(v) for k, v in row.items() if _is_number(v)}
    active = {'active': row['density']} if 'density' in row else {}
    for name in _NO_METRICS:
      values.pop(name, None)
    levels[share] = ends | values | active
  return levels


def _compare_with_alone(frame: pd.DataFrame, found: Sequence[Run]) -> None:
  """Adds the measures against networks trained on each task alone."""
  done = frame[(frame.status == 'done') & frame.strategy.notna()]
  matrices, alone = {}, {}
  for network in done.sort_values('alpha').itertuples():
    run = found[network.run]
    stream = str(run.config['tasks']), network.seed
    matrices[network.Index] = stream, matrix_of(run)
    if network.strategy == 'alone':
      alone.setdefault(stream, np.diag(matrix_of(run)))
  for index, (stream, matrix) in matrices.items():
    if stream in alone:
      compared = measures.against_alone(matrix, alone[stream])
      for name, value in compared.items():
        frame.loc[index, name] = value


def _check_rows(rows: Sequence[Mapping[str, Any]], is_done: bool) -> None:
  """Checks that metrics are numbers, and that each final row is there once."""
  keys = set()
  for row in rows:
    split, numbers = row.get('split'), [row[k] for k in _NUMBERS if k in row]
    if not isinstance(split, str) or not all(map(_is_number, numbers)):
      raise ValueError(
        f"expected 'split' and numbers in {metrics.FILE}, got {row!r:.80}"
      )
    key = (split, *(row.get(name) for name in ('share', 'task', 'tested')))
    if split in ('test', 'pruned') and key in keys:
      raise ValueError(
        f'expected one {split!r} row in {metrics.FILE} for each level and '
        'task, got two: two runs wrote into this folder'
      )
    keys.add(key)
  if is_done and not any(split == 'test' for split, *_ in keys):
    raise ValueError(
      f"expected a 'test' row in {metrics.FILE}, got none although the run is "
      'done: half written'
    )


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  value = rundir.read_json(path)
  if not isinstance(value, dict):
    raise ValueError(f'expected a JSON object in {path}, got {value!r:.80}')
  return value


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)
