"""All runs of a sweep, whatever their state: nothing is left out.

The folder of a sweep holds a folder for each of its runs, and `sweep.json`:
`{"config": FILE[:VARIANT], "sweep": NAME, "runs": [{"name", "overrides",
"arguments"}]}`.
Without that file every folder of a run below is taken.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import shlex
from typing import Any
from typing import NamedTuple

from experiments import results
from experiments.common import config as config_lib
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.paper import collect
from experiments.paper import spec

FILE = 'sweep.json'

_OF_RUNS = {'arguments', 'name', 'overrides'}


class Seen(NamedTuple):
  """A run as its folder shows it."""

  name: str
  path: pathlib.Path
  status: str  # of `run.STATUSES`, 'waiting' for no folder, or 'unreadable'
  message: str
  config: dict[str, Any] | None
  summary: dict[str, Any]
  rows: list[results.Row]
  record: collect.Record | None  # where it is done or diverged
  step: int | None = None
  total: int | None = None


class Sweep(NamedTuple):
  """A sweep and its runs."""

  path: pathlib.Path
  plan: dict[str, Any] | None  # of sweep.json
  base: dict[str, Any] | None  # the config that runs depart from
  base_name: str
  runs: list[Seen]
  notes: list[str]


def read_sweep(directory: str | os.PathLike[str]) -> Sweep:
  """Returns the runs of a folder, in the order of its sweep or by path.

  Raises:
    ValueError: If there is no run and no sweep.json, or this is not readable.
  """
  path = pathlib.Path(directory)
  plan, notes = _read_plan(path), []
  names = {} if plan is None else dict.fromkeys(r['name'] for r in plan['runs'])
  for file in sorted(path.rglob('config.json')):
    names.setdefault(str(file.parent.relative_to(path)))
  runs = [see(path / name, name) for name in names]
  if not runs:
    raise ValueError(
      f'expected {FILE} or folders of runs, with a config.json, in {path}, got '
      'neither'
    )
  base, base_name = _base(plan, runs, notes)
  return Sweep(path, plan, base, base_name, runs, notes)


def see(folder: pathlib.Path, name: str) -> Seen:
  """Returns what a run's folder shows, however little that is."""
  seen = Seen(name, folder, 'waiting', '', None, {}, [], None)
  if not (folder / 'config.json').exists():
    return seen
  try:
    record = collect.read_run(folder)
    return seen._replace(
      status=record.status,
      message=record.message,
      config=record.config,
      summary=record.summary,
      rows=record.rows,
      record=record,
    )
  except (ValueError, OSError) as error:
    why = str(error)
  status = _quietly(run_lib.read_json, folder / 'status.json') or {}
  config = _quietly(run_lib.read_json, folder / 'config.json')
  state = status.get('status')
  is_under_way = state in ('running', 'interrupted', 'failed')
  return seen._replace(
    status=state if is_under_way else 'unreadable',
    message=status.get('message', '') if is_under_way else why,
    config=config if isinstance(config, dict) else None,
    rows=_quietly(metrics.read, folder) or [],
    step=status.get('global_step'),
    total=status.get('total_steps'),
  )


def differences(
  base: Mapping[str, Any] | None, config: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
  """Returns the keys in which a config departs, with both values as text."""
  if base is None or config is None:
    return []
  return [
    (key, _shown(there), _shown(here))
    for key, (there, here) in collect.differing([base, config]).items()
  ]


def command(sweep: Sweep, seen: Seen) -> str:
  """Returns the command that runs a run again; '' if it cannot be known."""
  if sweep.plan is not None:
    for run in sweep.plan['runs']:
      if run['name'] == seen.name:
        folder = shlex.quote(str(seen.path))
        arguments = shlex.join(run['arguments'])
        return f'python launch.py {arguments} --workdir={folder}'
  return ''


def of_sweep(sweep: Sweep) -> str:
  """Returns the command of a whole sweep; '' if there is no sweep.json."""
  if sweep.plan is None:
    return ''
  first = sweep.plan['runs'][0]
  own = {f'--config.{key}' for key in first['overrides']}
  shared = [
    argument
    for argument in first['arguments'][1:]  # the first is the run's config
    if argument.partition('=')[0] not in own
  ]
  return shlex.join(
    [
      'python',
      'launch.py',
      f'--config={sweep.plan["config"]}',
      f'--sweep={sweep.plan["sweep"]}',
      *shared,
      f'--workdir={sweep.path}',
    ]
  )


def of_table(cells: list[spec.Cell], seen: Seen) -> str:
  """Returns the command of a table's cell that makes just a run's config.

  Returns:
    '' if none does.
  """
  if seen.config is None or 'powerprop' not in seen.config:
    return ''
  facts = spec.facts(seen.config)
  alphas = [float(alpha) for alpha in seen.config['powerprop']['alphas']]
  for cell in cells:
    own = {**facts, 'alpha': alphas[0], 'share': cell.where.get('share')}
    if not cell.command or not spec.has(own, cell.where):
      continue
    words, _, _ = cell.command.partition(' --workdir=')
    arguments = shlex.split(words)[2:]
    arguments[0] = arguments[0].removeprefix('--config=')
    base = _quietly(config_lib.load, *(arguments[0], arguments[1:]))
    if base is not None and not differences(_plain(base), seen.config):
      return f'{words} --workdir={shlex.quote(str(seen.path))}'
  return ''


def _read_plan(path: pathlib.Path) -> dict[str, Any] | None:
  file = path / FILE
  if not file.exists():
    return None
  plan = run_lib.read_json(file)
  is_plan = isinstance(plan, dict) and {*plan} >= {'config', 'sweep', 'runs'}
  if not is_plan or not all({*run} >= _OF_RUNS for run in plan['runs']):
    raise ValueError(
      f"expected 'config', 'sweep' and 'runs', with {sorted(_OF_RUNS)} each, "
      f'in {file}, got '
      f'{json.dumps(plan)[:200]}'
    )
  return plan


def _base(plan, runs: list[Seen], notes: list[str]):
  """Returns the config that runs are compared with, and what it is."""
  if plan is not None:
    try:
      base = _plain(config_lib.load(plan['config'], []))
      return base, f'Difference from {plan["config"]}'
    except ValueError as error:
      notes.append(f'The config of the sweep cannot be loaded: {error}')
  configs = [seen.config for seen in runs if seen.config]
  if not configs:
    return None, 'Difference'
  common = _common(configs)
  return common, 'Difference from what most runs have'


def _common(configs: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns a flat config of the values that most configs have."""
  flat = [collect.flatten(config) for config in configs]
  common = {}
  for key in sorted({key for one in flat for key in one}):
    values = [repr(one.get(key)) for one in flat]
    most = max(dict.fromkeys(values), key=values.count)
    value = next(one.get(key) for one in flat if repr(one.get(key)) == most)
    if value is not None:
      common[key] = value
  return common


def _plain(config: Any) -> dict[str, Any]:
  return json.loads(run_lib.to_json(config.to_dict()))


def _shown(value: Any) -> str:
  return '—' if value is None else json.dumps(value)


def _quietly(read, *arguments: Any) -> Any:
  try:
    return read(*arguments)
  except (ValueError, OSError):
    return None
