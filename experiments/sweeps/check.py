"""All runs of a sweep are checked before the first begins."""

from collections.abc import Callable
from collections.abc import Sequence
import json
import os
import pathlib
from typing import Any

import jax

from experiments import table
from experiments.common import build
from experiments.common import run as run_lib
from experiments.sweeps import plan as plan_lib

Config = dict[str, Any]


def load(
  runs: Sequence[plan_lib.Run], parse: Callable[[Sequence[str]], Any]
) -> dict[str, Config]:
  """Returns the config of each run, as plain data, by name.

  Args:
    runs: of a sweep.
    parse: of `launch.py`: from its arguments to what has a `config`.

  Raises:
    ValueError: If a key is none of the config's, a value is of another type, or
      two runs have the same config; names the run.
  """
  configs: dict[str, Config] = {}
  owners: dict[str, str] = {}
  for run in runs:
    try:
      config = parse([*run.arguments, f'--workdir={run.name}']).config
    except ValueError as error:
      raise ValueError(f'run {run.name!r}: {error}') from error
    plain = json.loads(json.dumps(config.to_dict()))
    content = json.dumps(plain, sort_keys=True)
    if content in owners:
      raise ValueError(
        f'expected runs that differ, got one config twice: '
        f'{owners[content]!r} and {run.name!r}'
      )
    owners[content] = run.name
    configs[run.name] = plain
  return configs


def folders(
  configs: dict[str, Config], workdir: str | os.PathLike[str]
) -> None:
  """Checks that the folder of each run is free or the run's.

  Raises:
    ValueError: As `run.check_workdir`.
  """
  for name, config in configs.items():
    run_lib.check_workdir(pathlib.Path(workdir) / name, config)


def plan(configs: dict[str, Config]) -> None:
  """Checks all that is known of each config without its data.

  Configs that differ in seeds alone are planned once.

  Raises:
    ValueError: If a value is out of range or does not fit another; names the
      run.
  """
  outlines = {name: m.outlines for name, m in table.EXPERIMENTS.items()}
  planned = set()
  for name, config in configs.items():
    content = json.dumps({**config, 'seeds': None}, sort_keys=True)
    try:
      _check_seeds(config)
      if content not in planned:
        build.build(outlines, config, key='experiment')
    except ValueError as error:
      raise ValueError(f'run {name!r}: {error}') from error
    planned.add(content)


def use_cpu(configs: dict[str, Config]) -> None:
  """Lets the checks use CPU devices, as many as a config asks for.

  An accelerator is left to the runs: a process that only looks at configs would
  take its memory. Without effect where JAX is in use already.
  """
  wanted = [
    config['train']['num_devices'] or 1
    for config in configs.values()
    if 'num_devices' in config['train']
  ]
  try:
    jax.config.update('jax_platforms', 'cpu')
    if max(wanted, default=1) > 1:
      jax.config.update('jax_num_cpu_devices', max(wanted))
  except RuntimeError:
    pass


def _check_seeds(config: Config) -> None:
  seeds = config['seeds']
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise ValueError(
      f'config.seeds: expected different seeds, each >= 0, got {seeds}'
    )
