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
import shlex
from typing import Any
from typing import NamedTuple

from experiments import rundir
from experiments.paper import runs as runs_lib
from experiments.sweep import points

# Keys that tell the networks of one config file apart.
NETWORK = ('powerprop.alpha', 'powerprop.alphas', 'seed', 'seeds')


class Sweep(NamedTuple):
  """A sweep and its runs."""

  path: pathlib.Path
  plan: dict[str, Any] | None  # sweep.json
  base: dict[str, Any]  # the config that runs are compared with
  base_name: str
  runs: dict[str, runs_lib.Run]  # by name
  commands: dict[pathlib.Path, str]  # of run folders with a sweep.json beside
  notes: list[str]


def read(directory: str | os.PathLike[str]) -> Sweep:
  """Returns the runs of a folder, in the order of its sweep, or by path."""
  path, commands = pathlib.Path(directory), {}
  plans = {file.parent: _read_plan(file) for file in path.rglob(points.FILE)}
  for folder, plan in plans.items():
    for run in plan['runs']:
      workdir = folder / run['name']
      commands[workdir] = _command([*run['arguments'], f'--workdir={workdir}'])
  configs = sorted(file.parent for file in path.rglob('config.json'))
  runs = {
    path.resolve().name if folder == path else str(folder.relative_to(path)):
    runs_lib.read_any(folder) for folder in dict.fromkeys([*commands, *configs])
  }  # fmt: skip
  if not runs:
    raise ValueError(
      f'expected {points.FILE} or run folders in {path}, got neither'
    )
  plan, notes = plans.get(path), []
  begun = ((run.config, name) for name, run in runs.items() if run.config)
  base, name = next(begun, ({}, ''))
  if plan is not None:
    try:
      config = points.load(plan['config'], ())
      base = json.loads(rundir.to_json(config.to_dict()))
      name = plan['config']
    except ValueError as error:
      notes.append(f'The config of the sweep cannot be loaded: {error}')
  name = f'Difference from {name}'
  return Sweep(path, plan, base, name, runs, commands, notes)


def differences(sweep: Sweep, run: runs_lib.Run) -> list[tuple[str, str, str]]:
  """Returns the keys in which a run departs from the base, with both values."""
  if not sweep.base or not run.config:
    return []
  found = runs_lib.differing([sweep.base, run.config])
  found = found.drop(columns=list(NETWORK), errors='ignore')
  found = found.map(lambda x: '—' if x is None else json.dumps(x))
  return [(key, *found[key]) for key in sorted(found)]


def whole(sweep: Sweep) -> str:
  """Returns the command of the whole sweep; '' without a sweep.json."""
  if sweep.plan is None:
    return ''
  first, words = sweep.plan['runs'][0], [f'--config={sweep.plan["config"]}']
  if sweep.plan['sweep']:
    words.append(f'--sweep={sweep.plan["sweep"]}')
  own = {f'--config.{key}' for key in first['overrides']}
  shared = first['arguments'][1:]  # the first is the run's config
  words += [word for word in shared if word.partition('=')[0] not in own]
  return _command([*words, f'--workdir={sweep.path}'])


def group_of(name: str) -> str:
  """Returns the name that the seeds of a network share.

  Example:
    >>> group_of('rigl,alpha=2,seed=0')
    'rigl,alpha=2'
  """
  return re.sub(r',?seed=\d+$', '', name) or name


def _command(arguments: Sequence[str]) -> str:
  return shlex.join(['python', 'launch.py', *arguments])


def _read_plan(file: pathlib.Path) -> dict[str, Any]:
  plan, keys = rundir.read_json(file), {'name', 'overrides', 'arguments'}
  try:
    is_fine = all({*run} >= keys for run in plan['runs'])
    is_fine = is_fine and {*plan} >= {'config', 'sweep'}
  except (KeyError, TypeError):
    is_fine = False
  if not is_fine:
    raise ValueError(f'expected the plan of a sweep in {file}: {plan!r:.200}')
  return plan
