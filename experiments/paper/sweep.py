"""All runs of a sweep, in whatever state, and the commands that repeat them.

The folder of a sweep holds run folders and `sweep.json`: `{"config":
FILE[:VARIANT], "sweep": NAME, "runs": [{"name", "overrides", "arguments"}]}`,
without NAME for the networks of one config. Where that file is missing, every
run folder below is taken.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import re
import runpy
import shlex
from typing import Any
from typing import NamedTuple

from experiments import metrics
from experiments import rundir
from experiments.paper import runs as runs_lib

FILE = 'sweep.json'
# Keys that tell the networks of one config file apart.
NETWORK = ('powerprop.alpha', 'powerprop.alphas', 'seed', 'seeds')


class Seen(NamedTuple):
  """A run folder in any state."""

  name: str
  path: pathlib.Path
  status: str  # of status.json, 'waiting' for no folder, or 'unreadable'
  message: str = ''
  config: dict[str, Any] | None = None
  run: runs_lib.Run | None = None  # if it is done or diverged
  rows: Sequence[dict[str, Any]] = ()
  progress: float | None = None  # share of the steps


class Sweep(NamedTuple):
  """A sweep and its runs."""

  path: pathlib.Path
  plan: dict[str, Any] | None  # sweep.json
  base: dict[str, Any] | None  # the config that runs are compared with
  base_name: str
  seen: list[Seen]
  commands: dict[pathlib.Path, str]  # of run folders with a sweep.json beside
  notes: list[str]


def read(directory: str | os.PathLike[str]) -> Sweep:
  """Returns the runs of a folder, in the order of its sweep, or by path.

  Raises:
    ValueError: If there is no run and no sweep.json, or this is not readable.
  """
  path = pathlib.Path(directory)
  plans = {file.parent: _read_plan(file) for file in path.rglob(FILE)}
  commands = {}
  for folder, plan in plans.items():
    for run in plan['runs']:
      words = ['python', 'launch.py', *run['arguments']]
      workdir = folder / run['name']
      commands[workdir] = shlex.join([*words, f'--workdir={workdir}'])
  configs = sorted(path.rglob('config.json'))
  folders = dict.fromkeys([*commands, *(file.parent for file in configs)])
  seen = []
  for folder in folders:
    name = str(folder.relative_to(path))
    seen.append(see(folder, path.resolve().name if name == '.' else name))
  if not seen:
    raise ValueError(f'expected {FILE} or run folders in {path}, got neither')
  plan, notes = plans.get(path), []
  base, base_name = _base(plan, seen, notes)
  return Sweep(path, plan, base, base_name, seen, commands, notes)


def see(folder: pathlib.Path, name: str) -> Seen:
  """Returns the state of a run folder."""
  if not (folder / 'config.json').exists():
    return Seen(name, folder, 'waiting')
  try:
    run = runs_lib.read_run(folder)
    return Seen(
      name, folder, run.status, run.message, run.config, run, run.rows
    )
  except (ValueError, OSError) as error:
    why = str(error)
  status = _quietly(rundir.read_status, folder)
  status = status if isinstance(status, dict) else {}
  state, progress = status.get('status'), None
  if state not in ('running', 'interrupted', 'failed'):
    state = 'unreadable'
  else:
    why = status.get('message', '')
    if status.get('total_steps'):
      progress = status.get('step', 0) / status['total_steps']
  config = _quietly(runs_lib.read_config, folder)
  rows = _quietly(metrics.read, folder) if state != 'unreadable' else None
  return Seen(name, folder, state, why, config, None, rows or (), progress)


def differences(sweep: Sweep, seen: Seen) -> list[tuple[str, str, str]]:
  """Returns the keys in which a run departs from the base, with both values."""
  if sweep.base is None or seen.config is None:
    return []
  found = runs_lib.differing([sweep.base, seen.config])
  found = found.drop(columns=list(NETWORK), errors='ignore')
  return [(key, *map(_shown, found[key])) for key in sorted(found)]


def whole(sweep: Sweep) -> str:
  """Returns the command of the whole sweep; '' without a sweep.json."""
  if sweep.plan is None:
    return ''
  first, config = sweep.plan['runs'][0], sweep.plan['config']
  own = {f'--config.{key}' for key in first['overrides']}
  words = ['python', 'launch.py', f'--config={config}']
  if sweep.plan['sweep']:
    words.append(f'--sweep={sweep.plan["sweep"]}')
  words += [
    word
    for word in first['arguments'][1:]  # the first is the run's config
    if word.partition('=')[0] not in own
  ]
  return shlex.join([*words, f'--workdir={sweep.path}'])


def load(config: str) -> dict[str, Any]:
  """Returns the config of FILE[:VARIANT], as JSON has it.

  Raises:
    ValueError: If it cannot be loaded.
  """
  file, _, variant = config.partition(':')
  try:
    made = runpy.run_path(file)['get_config'](*([variant] if variant else []))
  except Exception as error:
    raise ValueError(f'{config}: {type(error).__name__}: {error}') from error
  return json.loads(rundir.to_json(made.to_dict()))


def group_of(seen: Seen) -> str:
  """Returns the name that the seeds of a network share.

  Example:
    >>> group_of(Seen('rigl,alpha=2,seed=0', pathlib.Path(), 'done'))
    'rigl,alpha=2'
  """
  return re.sub(r',?seed=\d+$', '', seen.name) or seen.name


def _read_plan(file: pathlib.Path) -> dict[str, Any]:
  plan = rundir.read_json(file)
  keys = {'name', 'overrides', 'arguments'}
  if (
    not isinstance(plan, dict)
    or not {*plan} >= {'config', 'sweep', 'runs'}
    or not all({*run} >= keys for run in plan['runs'])
  ):
    raise ValueError(
      f"expected 'config', 'sweep' and 'runs', with {sorted(keys)} each, in "
      f'{file}, got {json.dumps(plan)[:200]}'
    )
  return plan


def _base(plan, seen: Sequence[Seen], notes: list[str]):
  """Returns the config that runs are compared with, and a title."""
  if plan is not None:
    try:
      return load(plan['config']), f'Difference from {plan["config"]}'
    except ValueError as error:
      notes.append(f'The config of the sweep cannot be loaded: {error}')
  configs = [one.config for one in seen if one.config]
  if not configs:
    return None, 'Difference'
  flat = runs_lib.flatten(configs)
  common = {
    key: next(x for x in flat[key] if repr(x) == values.mode()[0])
    for key, values in flat.map(repr).items()
  }
  return common, 'Difference from the values of most runs'


def _shown(value: Any) -> str:
  return '—' if value is None else json.dumps(value)


def _quietly(read, *arguments: Any) -> Any:
  try:
    return read(*arguments)
  except (ValueError, OSError):
    return None
