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
from experiments.paper import table as table_lib
from experiments.sweep import status as status_lib

SHARE_KEPT = 0.9  # of the accuracy alone, for a task to count as kept
_NO_METRICS = ('density', 'share', 'step')  # facts and places


class Run(NamedTuple):
  """A network in any state."""

  path: pathlib.Path
  config: dict[str, Any]  # empty if it cannot be read
  state: status_lib.State  # its status may be 'unreadable'
  summary: dict[str, Any]  # empty unless done
  rows: Sequence[dict[str, Any]]  # of metrics.jsonl


def read(
  directory: str | os.PathLike[str],
) -> tuple[list[Run], list[tuple[pathlib.Path, str]]]:
  """Returns the ended runs below a folder, and the others with the reason."""
  paths = sorted(pathlib.Path(directory).rglob('config.json'))
  found = [read_run(path.parent) for path in paths]
  if not found:
    raise ValueError(f'expected run folders below {directory}, got none')
  ended, left = [], []
  for run in found:
    if run.state.status in status_lib.ENDED:
      ended.append(run)
    else:
      left.append((run.path, describe(run)))
  return ended, left


def read_run(folder: pathlib.Path) -> Run:
  """Returns the run of a folder; one that has ended is checked."""
  run = Run(folder, {}, status_lib.read(folder), {}, ())
  has_ended = run.state.status in status_lib.ENDED
  try:
    config = rundir.read_config(folder)
    table_lib.facts(config)
    run = run._replace(config=config)
    run = run._replace(rows=metrics.read(folder))
    if run.state.status == 'done':
      run = run._replace(summary=rundir.read_json(folder / 'summary.json'))
      if not of_split(run, 'test'):
        raise ValueError(f"expected a 'test' row in {metrics.FILE}, got none")
    if has_ended:
      to_frame([run])
    return run
  except (ValueError, OSError) as error:
    why = str(error)
  except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
    why = f'expected the form of this version: {error!r}'
  if has_ended:
    state = run.state._replace(status='unreadable', message=why)
    run = run._replace(state=state, summary={}, rows=())
  return run


def describe(run: Run) -> str:
  """Returns status, progress and message of a run."""
  status, step, total, _, message = run.state
  where = f' at step {step} of {total}' if total else ''
  return f'{status}{where}: {message}'.removesuffix(': ')


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
      'status': run.state.status,
      'message': run.state.message,
      'seconds': seconds if _is_number(seconds) else np.nan,
      **table_lib.facts(run.config),
    }
    levels = _levels(run) if run.state.status == 'done' else {None: {}}
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
  return flat.loc[:, to_texts(flat).nunique() > 1]


def to_texts(flat: pd.DataFrame) -> pd.DataFrame:
  """Returns the values as texts, equal numbers alike."""
  return flat.map(lambda x: repr(float(x) if _is_number(x) else x))


def flatten(configs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
  """Returns a row for each config, its keys dotted; None where it has none."""
  rows = [
    pd.json_normalize(dict(config)).astype(object).iloc[0].to_dict()
    for config in configs
  ]
  flat = pd.DataFrame(rows, dtype=object)
  return flat.where(flat.notna(), None)


def of_split(run: Run, split: str) -> list[dict[str, Any]]:
  """Returns the metrics rows of a split."""
  return [row for row in run.rows if row.get('split') == split]


def accuracy_matrix(run: Run) -> np.ndarray:
  """Returns the accuracy matrix [T, T] of a run of continual learning.

  Entry [i, j] is the accuracy on task j after training on tasks 0 to i; NaN
  where it was not measured. Where each task has a network of its own,
  accuracies persist after their task.
  """
  num_tasks = run.config['tasks']['num_tasks']
  matrix = np.full((num_tasks, num_tasks), np.nan)
  tests = of_split(run, 'test')
  for row in tests:
    matrix[row['task'] - 1, row['tested'] - 1] = row['accuracy']
  if all(row['task'] == row['tested'] for row in tests):
    for task in range(num_tasks):
      matrix[task:, task] = matrix[task, task]
  return matrix


def task_measures(run: Run) -> dict[str, float]:
  """Returns the continual learning of a network; NaN where rows are missing.

  Keys: 'average_accuracy' and 'lowest_accuracy' (over all tasks, at the end),
  'learning_accuracy' (of each task just after training on it), 'forgetting'
  (the best earlier accuracy less that at the end, over all tasks but the last),
  'forward_transfer' (the accuracy just before training less the untrained
  network's), and 'owned' and 'reused' where weights are.

  Reference:
    Lopez-Paz and Ranzato, 2017, "Gradient episodic memory for continual
    learning". https://arxiv.org/abs/1706.08840
    Chaudhry et al., 2018, "Riemannian walk for incremental learning:
    Understanding forgetting and intransigence".
    https://arxiv.org/abs/1801.10112
  """
  matrix = accuracy_matrix(run)
  num_tasks = len(matrix)
  untrained = np.full(num_tasks, np.nan)
  for row in of_split(run, 'untrained'):
    untrained[row['tested'] - 1] = row['accuracy']
  usage = {}
  for row in of_split(run, 'usage'):
    if row['layer'] == 'all':
      usage = {name: row[name] for name in ('owned', 'reused')}
  new, last = np.diag(matrix), matrix[-1]
  learned = np.where(np.tri(num_tasks, dtype=bool), matrix, np.nan)
  best = np.fmax.reduce(learned[:-1], 0) if num_tasks > 1 else last
  # A network trained on all tasks jointly has no accuracies in between.
  is_whole = np.isfinite(new).all()
  return {
    'average_accuracy': float(last.mean()),
    'learning_accuracy': float(new.mean()),
    'lowest_accuracy': float(last.min()),
    'forgetting': _mean((best - last)[:-1]) if is_whole else np.nan,
    'forward_transfer': _mean(np.diag(matrix, 1) - untrained[1:]),
    **usage,
  }


def _levels(run: Run) -> dict[float | None, dict[str, float]]:
  """Returns the metrics of a network as trained (None) and at each level."""
  if run.config['experiment'] == 'continual_learning':
    return {None: task_measures(run)}
  train = of_split(run, 'train')
  losses = [float(x['loss']) for x in train if 'loss' in x]
  ends = {'first_loss': losses[0], 'last_loss': losses[-1]} if losses else {}
  changes = [float(x['mask_change']) for x in train if 'mask_change' in x]
  if changes:
    tenth = -(-len(changes) // 10)
    ends['first_change'] = float(np.mean(changes[:tenth]))
    ends['last_change'] = float(np.mean(changes[-tenth:]))
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
  """Adds measures against networks trained on each task alone.

  'intransigence' is the accuracy alone less that just after training, 'kept'
  the number of tasks that end with `SHARE_KEPT` or more of that alone.
  """
  done = frame[(frame.status == 'done') & frame.strategy.notna()]
  matrices, alone = {}, {}
  for network in done.sort_values('alpha').itertuples():
    run = found[network.run]
    stream, matrix = str(run.config['tasks']), accuracy_matrix(run)
    matrices[network.Index] = (stream, network.seed), matrix
    if network.strategy == 'alone':
      alone.setdefault((stream, network.seed), np.diag(matrix))
  for index, (stream, matrix) in matrices.items():
    if stream in alone:
      own = alone[stream]
      frame.loc[index, 'intransigence'] = (own - np.diag(matrix)).mean()
      frame.loc[index, 'kept'] = (matrix[-1] >= SHARE_KEPT * own).sum()


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mean(values: np.ndarray) -> float:
  return float(values.mean()) if values.size else 0.0
