"""The plan of a command: runs of one network each.

A config on the command line is one point, a sweep has several. Each point
expands to a run for each of its `powerprop.alphas` and `seeds`; its config then
has `powerprop.alpha` and `seed`. A tuple `optimizer.learning_rate` has one rate
for each alpha.
"""

from collections.abc import Sequence
import itertools
import json
import math
import pathlib
from typing import Any
from typing import NamedTuple

from ml_collections import config_dict

from experiments import rundir
from experiments.sweep import points


class Run(NamedTuple):
  """One network to train."""

  name: str  # of its folder in that of the plan; '' is the folder itself
  arguments: tuple[str, ...]  # of launch.py, to train it alone; no --workdir
  config: dict[str, Any]  # plain data


class Plan(NamedTuple):
  """The runs of a command."""

  config: str  # 'FILE' or 'FILE:VARIANT'
  sweep: str | None
  shared: tuple[str, ...]  # flags of all runs
  runs: tuple[Run, ...]

  @property
  def has_several(self) -> bool:
    """False where the plan's folder is that of its only run."""
    return any(run.name for run in self.runs)

  def alone(self, index: int) -> 'Plan':
    """Returns the plan of one run, in a folder of its own."""
    return self._replace(runs=(self.runs[index]._replace(name=''),))


def make(
  config: str, shared: Sequence[str] = (), sweep: str | None = None
) -> Plan:
  """Returns the plan of 'FILE[:VARIANT]', or of a sweep of it.

  `shared` are flags of all runs. Raises ValueError if a config cannot be loaded
  or expanded, or two runs have one name or config; names the run.
  """
  runs, found = [], [{}]
  if sweep is not None:
    found = points.collect(points.find(sweep, config))
  for point in found:
    name = '' if sweep is None else points.name_of(point)
    try:
      runs += _expand(name, points.arguments(config, point, shared))
    except ValueError as error:
      raise ValueError(f'run {name!r}: {error}' if name else error) from error
  return Plan(config, sweep, tuple(shared), _distinct(runs))


def check_folder(plan: Plan, workdir: pathlib.Path) -> None:
  """Raises FolderError if several runs are to share the folder of one."""
  if plan.has_several and (workdir / 'config.json').exists():
    raise rundir.FolderError(
      f'expected a folder for {len(plan.runs)} runs, but {workdir} is the '
      'folder of one run; choose another'
    )


def write(plan: Plan, workdir: pathlib.Path) -> None:
  """Writes sweep.json for several runs: the config, the sweep, and each run.

  Raises FolderError if the folder belongs to another config or sweep.
  """
  if not plan.has_several:
    return
  path = workdir / points.FILE
  runs = [{'name': run.name, 'arguments': run.arguments} for run in plan.runs]
  value = {
    'config': plan.config,
    'sweep': plan.sweep or '',
    'shared': plan.shared,
    'runs': runs,
  }
  there = rundir.read_json(path) if path.exists() else value
  for key in ('config', 'sweep'):
    if not isinstance(there, dict) or there.get(key) != value[key]:
      raise rundir.FolderError(
        f'{workdir} belongs to another sweep: expected {key} {value[key]!r} in '
        f'{path.name}, got {there!r:.200}; choose another folder'
      )
  workdir.mkdir(parents=True, exist_ok=True)
  rundir.write_json(path, value)


def _distinct(runs: Sequence[Run]) -> tuple[Run, ...]:
  """Returns runs that differ in name and config; ValueError if they do not."""
  seen: dict[str, str] = {}
  for run in runs:
    for content in (run.name, json.dumps(run.config, sort_keys=True)):
      if content in seen:
        raise ValueError(
          'expected runs that differ in name and config, got '
          f'{seen[content]!r} and {run.name!r}'
        )
      seen[content] = run.name
  return tuple(runs)


def _expand(name: str, arguments: tuple[str, ...]) -> list[Run]:
  """Returns the runs of a point, one for each alpha and seed."""
  file, flags = arguments[0].removeprefix('--config='), arguments[1:]
  config = points.load(file, flags)
  try:
    plain = json.loads(json.dumps(config.to_dict()))
  except (TypeError, config_dict.RequiredValueError) as error:
    raise ValueError(f'config: expected plain data, but: {error}') from error
  powerprop = plain.get('powerprop')
  if not isinstance(powerprop, dict):
    raise ValueError(f'config.powerprop: expected a section, got {powerprop!r}')
  seeds = _take(plain, 'config', 'seeds', (int,), 0, 2**32)
  alphas = _take(
    powerprop, 'config.powerprop', 'alphas', (int, float), 1, math.inf
  )
  networks = zip(map(float, alphas), _optimizers(plain, alphas), strict=True)
  runs = []
  for (alpha, optimizer), seed in itertools.product(networks, seeds):
    network = plain | optimizer
    network |= {'seed': seed, 'powerprop': powerprop | {'alpha': alpha}}
    if len(alphas) * len(seeds) == 1:
      return [Run(name, arguments, network)]
    own = {'powerprop.alphas': (alpha,), 'seeds': (seed,)}
    if optimizer:
      rate = optimizer['optimizer']['learning_rate']
      own['optimizer.learning_rate'] = (rate,)
    # Repeated flags of tuples add up.
    replaced = tuple(f'--config.{key}=' for key in own)
    kept = [word for word in flags if not word.startswith(replaced)]
    full_name = ','.join(filter(None, (name, f'alpha={alpha:g},seed={seed}')))
    words = points.arguments(file, own, kept)
    runs.append(Run(full_name, words, network))
  return runs


def _optimizers(
  plain: dict[str, Any], alphas: Sequence[float]
) -> list[dict[str, Any]]:
  """Returns the section `optimizer` of each alpha; {}: that of the config."""
  optimizer = plain.get('optimizer')
  rates = optimizer.get('learning_rate') if isinstance(optimizer, dict) else 0
  if not isinstance(rates, list):
    return [{}] * len(alphas)
  if len(rates) not in (1, len(alphas)):
    raise ValueError(
      'config.optimizer.learning_rate: expected one number, or one for each of '
      f'powerprop.alphas={alphas}, got {rates}'
    )
  rates = rates * len(alphas) if len(rates) == 1 else rates
  return [{'optimizer': {**optimizer, 'learning_rate': x}} for x in rates]


def _take(section, name, key, kinds, least, limit) -> list[Any]:
  """Removes and returns a list of different numbers in [least, limit)."""
  single = key.removesuffix('s')
  if single in section:
    raise ValueError(f'{name}: unknown key {single!r}; did you mean {key!r}?')
  if key not in section:
    raise ValueError(f'{name}: missing key {key!r}')
  values = section.pop(key)
  is_fine = (
    isinstance(values, list)
    and values
    and all(type(x) in kinds and least <= x < limit for x in values)
  )
  if not is_fine or len(set(values)) < len(values):
    raise ValueError(
      f'{name}.{key}: expected one or more different numbers, each {single} >= '
      f'{least} and < {limit}, got {values}'
    )
  return values
