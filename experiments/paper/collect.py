"""Collects runs: what their folders say, and nothing else.

Read are `config.json`, `status.json`, `summary.json` and `metrics.jsonl`. What
cannot be read or is not done is listed and left out; nothing is changed.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
from typing import Any
from typing import NamedTuple

from experiments import results
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.paper import spec

EXPERIMENTS = (
  'continual_learning', 'image_classification', 'language_modelling',
)  # fmt: skip


class Record(NamedTuple):
  """A run that is done, or whose loss was not finite."""

  path: pathlib.Path
  config: dict[str, Any]
  status: str  # 'done' or 'diverged'
  message: str
  summary: dict[str, Any]  # empty where it diverged
  rows: list[results.Row]


class Left(NamedTuple):
  """A folder that is left out, and why."""

  path: pathlib.Path
  why: str


class Network(NamedTuple):
  """One network of a run: with one alpha and one seed, at one level."""

  record: Record
  alpha: float
  seed: int
  facts: spec.Facts  # of `spec.facts`, `alpha`, and `share`, None if not pruned
  figures: dict[str, float]  # empty where it has none
  status: str  # 'done', 'diverged', or 'untrained' after another that diverged


def read_runs(
  directory: str | os.PathLike[str],
) -> tuple[list[Record], list[Left]]:
  """Returns the runs below a folder, by path, and the folders left out.

  Raises:
    ValueError: If there is no run.
  """
  records, left = [], []
  for path in sorted(pathlib.Path(directory).rglob('config.json')):
    try:
      records.append(read_run(path.parent))
    except (ValueError, OSError) as error:
      left.append(Left(path.parent, str(error)))
  if not records and not left:
    raise ValueError(
      f'expected folders of runs, with a config.json, below {directory}, got '
      'none'
    )
  return records, left


def read_run(folder: pathlib.Path) -> Record:
  """Returns what a run's folder says.

  Raises:
    ValueError: If the run is not done, or of another version, or if a file is
      missing or was written in part.
  """
  config = run_lib.read_json(folder / 'config.json')
  check_version(config)
  status = _read(folder / 'status.json')
  summary = _read(folder / 'summary.json')
  state, message = status.get('status', 'done'), status.get('message', '')
  if state != 'diverged' and not summary:
    raise ValueError(
      f'not done: {status.get("status", "no status.json")}'
      + (f' at step {status["global_step"]}' if 'global_step' in status else '')
      + (f' of {status["total_steps"]}' if 'total_steps' in status else '')
      + (f' ({message})' if message else '')
      + '; the command that began it goes on'
    )
  if not (folder / metrics.FILE).exists():
    raise ValueError(f'expected {metrics.FILE}, got none: half written')
  rows = metrics.read(folder)
  record = Record(
    folder,
    config,
    'diverged' if state == 'diverged' else 'done',
    message,
    summary,
    rows,
  )
  _check_rows(record)
  return record


def check_version(config: Any) -> None:
  """Checks that a config is of a version that can be read.

  Raises:
    ValueError: If not; says what it lacks.
  """
  if not isinstance(config, Mapping):
    raise ValueError(f'expected a config in config.json, got {config!r}')
  section = (
    'strategy' if config.get('experiment') == 'continual_learning' else 'method'
  )
  lacks = [
    key
    for key in ('experiment', 'seeds', 'powerprop', 'train', section)
    if key not in config
  ]
  if lacks:
    raise ValueError(
      f'of another version: expected {lacks} in its config, got the keys '
      f'{sorted(config)}'
    )
  if config['experiment'] not in EXPERIMENTS:
    raise ValueError(
      f'of another version: expected an experiment of {EXPERIMENTS}, got '
      f'{config["experiment"]!r}'
    )


def networks(record: Record) -> list[Network]:
  """Returns the networks of a run of one task, at each level of pruning."""
  shared = spec.facts(record.config)
  found, has_diverged = [], False
  for alpha, seed in members(record.config):
    rows = results.select(record.rows, alpha=alpha, seed=seed)
    tests = results.select(rows, split='test')
    levels = [(None, tests[0])] if tests else []
    levels += [
      (round(row['share'], 9), row)
      for row in results.select(rows, split='pruned')
    ]
    for share, row in levels:
      facts = {**shared, 'alpha': alpha, 'share': share}
      figures = {**_training(rows), **_figures(row)}
      found.append(Network(record, alpha, seed, facts, figures, 'done'))
    if not tests:
      status = 'untrained' if has_diverged else 'diverged'
      has_diverged = True
      facts = {**shared, 'alpha': alpha, 'share': None}
      found.append(Network(record, alpha, seed, facts, {}, status))
  return found


def members(config: Mapping[str, Any]) -> list[tuple[float, int]]:
  """Returns alpha and seed of each network of a config, in their order."""
  return [
    (float(alpha), seed)
    for alpha in config['powerprop']['alphas']
    for seed in config['seeds']
  ]


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns a nested dict as one, its keys joined by dots.

  Example:
    >>> flatten({'seeds': [0], 'train': {'num_steps': 3}})
    {'seeds': [0], 'train.num_steps': 3}
  """
  flat = {}
  for key, value in tree.items():
    if isinstance(value, Mapping) and value:
      flat.update(flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def _read(path: pathlib.Path) -> dict[str, Any]:
  found = run_lib.read_json(path) if path.exists() else {}
  if not isinstance(found, dict):
    raise ValueError(f'expected a JSON object in {path}, got {found!r}')
  return found


def _check_rows(record: Record) -> None:
  """Checks that each network has its final rows once."""
  wanted = members(record.config)
  keys = ('alpha', 'seed', 'task', 'tested')
  counts: dict[tuple, int] = {}
  for row in results.select(record.rows, split='test'):
    key = tuple(row.get(name) for name in keys)
    counts[key] = counts.get(key, 0) + 1
  for key, number in counts.items():
    if number > 1:
      raise ValueError(
        f'expected one test of alpha {key[0]:g}, seed {key[1]} in '
        f'{metrics.FILE}, got {number}: two runs wrote into this folder'
      )
  found = {key[:2] for key in counts}
  missing = [member for member in wanted if member not in found]
  if record.status == 'done' and missing:
    alpha, seed = missing[0]
    raise ValueError(
      f'expected a test of alpha {alpha:g}, seed {seed} in {metrics.FILE}, got '
      'none although there is a summary.json: half written'
    )


def _training(rows: Sequence[results.Row]) -> dict[str, float]:
  """Returns the training loss of the first and of the last row of metrics."""
  found = results.select(rows, split='train')
  losses = [row['loss'] for row in found if 'loss' in row]
  return {'first_loss': losses[0], 'last_loss': losses[-1]} if losses else {}


def _figures(row: results.Row) -> dict[str, float]:
  return {
    name: value
    for name, value in row.items()
    if isinstance(value, float) and name not in ('alpha', 'share')
  }


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
  """Returns the keys in which configs differ, with the value in each.

  Example:
    >>> differing([{'a': 1, 'b': {'c': 2}}, {'a': 1, 'b': {'c': 3}}])
    {'b.c': [2, 3]}
  """
  flat = [flatten(config) for config in configs]
  keys = sorted({key for one in flat for key in one})
  values = {key: [one.get(key) for one in flat] for key in keys}
  return {
    key: found
    for key, found in values.items()
    if any(value != found[0] for value in found)
  }
