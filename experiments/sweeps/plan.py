"""What a sweep consists of: plain overrides become runs, named and checked.

A sweep is a function of a config file, or of `sweeps.py` beside it, that is
handed `add` and calls it with what differs from the config, flat:

    def sweep(add):
      for density in (0.1, 0.2):
        add({'method.forward_density': density, 'seeds': (0,)})

The key `config` chooses another variant, ':rigl,density=0.1', or another file
and variant, 'configs/mnist_methods.py:rigl'. Other keys are those of the
config. What the command line overrides holds for every run.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import hashlib
import importlib.util
import inspect
import json
import os
import pathlib
import re
from typing import Any
from typing import NamedTuple

from experiments.common import run as run_lib

FILE = 'sweep.json'

Overrides = dict[str, Any]

# What else a sweep's folder holds: no run is named so.
TAKEN = (FILE, 'jobs', 'logs', 'packs')

_LENGTH = 120  # of a name; file systems end at 255
_UNSAFE = re.compile(r'[^A-Za-z0-9._=,+-]')


class Run(NamedTuple):
  """One run of a sweep."""

  name: str  # of its folder
  overrides: Overrides
  arguments: tuple[str, ...]  # of launch.py, but for --workdir


def find(name: str, config: str) -> Callable[[Callable], None]:
  """Returns the sweep of a name.

  Args:
    name: of a function of the config's file, or else of `sweeps.py` beside it;
      or 'FILE:NAME'.
    config: 'FILE' or 'FILE:VARIANT'.

  Raises:
    ValueError: If there is none; lists those there are.
  """
  file, _, function = name.rpartition(':')
  of_config = pathlib.Path(config.partition(':')[0])
  beside = of_config.with_name('sweeps.py')
  files = [pathlib.Path(file)] if file else [of_config, beside]
  known = []
  for path in files:
    if not path.is_file():
      if path != beside:
        raise ValueError(f'expected a file with sweeps, got {path}')
      continue
    sweeps = _sweeps_of(path)
    if function in sweeps:
      return sweeps[function]
    known += sweeps
  close = difflib.get_close_matches(function, known, n=1)
  hint = f'; did you mean {close[0]!r}?' if close else ''
  raise ValueError(
    f'expected --sweep as one of {", ".join(known) or "(none)"}, the functions '
    f'of `add` in {" and ".join(map(str, files))}; got {function!r}{hint}'
  )


def collect(sweep: Callable[[Callable], None]) -> list[Overrides]:
  """Returns the overrides that a sweep adds, in their order.

  Example:
    >>> collect(lambda add: [add({'seeds': (i,)}) for i in range(2)])
    [{'seeds': (0,)}, {'seeds': (1,)}]

  Raises:
    ValueError: If one is no flat mapping of plain values, or there is none.
  """
  found: list[Overrides] = []

  def add(overrides: Mapping[str, Any]) -> None:
    if not isinstance(overrides, Mapping):
      raise ValueError(f'expected a dict of overrides, got {overrides!r}')
    for key, value in overrides.items():
      if not _is_plain(value):
        raise ValueError(
          f'{key!r}: expected a number, a string, a boolean or a tuple of '
          f'these, got {value!r}; name what is inside a section by its path, '
          "'section.key'"
        )
    found.append(dict(overrides))

  sweep(add)
  if not found:
    raise ValueError('expected a sweep that adds runs, got none')
  return found


def make_runs(
  sweep: Sequence[Overrides], config: str, shared: Sequence[str] = ()
) -> list[Run]:
  """Returns the runs of a sweep.

  Args:
    sweep: what each overrides.
    config: 'FILE' or 'FILE:VARIANT', of all but those that choose a file.
    shared: further arguments of all runs, as '--config.seeds=(0,)'.

  Raises:
    ValueError: If two runs have one name, or a run sets what `shared` does.
  """
  runs: dict[str, Run] = {}
  for overrides in sweep:
    name = name_of(overrides)
    _check_shared(name, overrides, shared)
    if name in runs:
      raise ValueError(
        f'expected a folder for each run, got two of {name!r}: '
        f'{runs[name].overrides} and {overrides}'
      )
    runs[name] = Run(name, overrides, _arguments(config, overrides, shared))
  return list(runs.values())


def name_of(overrides: Overrides) -> str:
  """Returns the name of a run's folder: what it overrides.

  It depends on the overrides alone, so that runs that are added to a sweep
  leave the others where they are. What no file name should hold is replaced,
  and a name that is not the whole truth ends with a checksum of it.

  Example:
    >>> name_of({'seeds': (0, 1), 'method.density': 0.1})
    'method.density=0.1,seeds=0+1'
    >>> name_of({'config': ':rigl,density=0.1'})
    'rigl,density=0.1'
    >>> name_of({})
    'base'
  """
  parts = []
  if chosen := overrides.get('config', ''):
    file, _, variant = str(chosen).partition(':')
    parts += filter(None, (pathlib.Path(file).stem, variant))
  parts += [
    f'{key}={_short(value)}'
    for key, value in sorted(overrides.items())
    if key != 'config'
  ]
  raw = ','.join(parts) or 'base'
  name = _UNSAFE.sub('_', raw).lstrip('.-')[:_LENGTH] or 'run'
  if name == raw and name not in TAKEN:
    return name
  content = json.dumps(overrides, sort_keys=True, default=str)
  return f'{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}'


def write(
  workdir: str | os.PathLike[str], config: str, sweep: str, runs: Sequence[Run]
) -> None:
  """Writes `sweep.json`: the config, the sweep, and each run.

  Raises:
    ValueError: If the folder belongs to another config or sweep.
  """
  path = pathlib.Path(workdir) / FILE
  value = {
    'config': config,
    'sweep': sweep,
    'runs': [
      {**run._asdict(), 'arguments': list(run.arguments)} for run in runs
    ],
  }
  value = json.loads(run_lib.to_json(value))
  there = run_lib.read_json(path) if path.exists() else value
  for key in ('config', 'sweep'):
    if not isinstance(there, dict) or there.get(key) != value[key]:
      raise ValueError(
        f'{path.parent} belongs to another sweep: expected {key} '
        f'{value[key]!r} in {path.name}, got {there!r:.200}; choose another '
        'folder'
      )
  if not path.exists() or there != value:
    path.parent.mkdir(parents=True, exist_ok=True)
    run_lib.write_json(path, value)


def _sweeps_of(file: pathlib.Path) -> dict[str, Callable]:
  """Returns the functions of a file whose one parameter is `add`."""
  spec = importlib.util.spec_from_file_location(f'_sweeps_{file.stem}', file)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    raise ValueError(f'{file}: {type(error).__name__}: {error}') from error
  return {
    name: function
    for name, function in vars(module).items()
    if inspect.isfunction(function)
    and list(inspect.signature(function).parameters) == ['add']
    and not name.startswith('_')
  }


def _is_plain(value: Any) -> bool:
  if isinstance(value, (tuple, list)):
    return all(map(_is_plain, value))
  return isinstance(value, (bool, int, float, str))


def _check_shared(name, overrides, shared) -> None:
  given = {argument.partition('=')[0] for argument in shared}
  for key in overrides:
    if f'--config.{key}' in given:
      raise ValueError(
        f'expected --config.{key} to be set once, but run {name!r} of the '
        'sweep sets it too; remove it from the command'
      )


def _arguments(config, overrides, shared) -> tuple[str, ...]:
  chosen = str(overrides.get('config', ''))
  own = [
    f'--config.{key}={_argument(value)}'
    for key, value in overrides.items()
    if key != 'config'
  ]
  return (f'--config={_choose(config, chosen)}', *own, *shared)


def _choose(config: str, chosen: str) -> str:
  """Returns which config a run has.

  Keys that the command gives after the colon hold for every variant.
  """
  file, _, given = config.partition(':')
  own_file, _, variant = chosen.partition(':')
  words = [w for text in (variant, given) for w in text.split(',') if w]
  words.sort(key=lambda word: '=' in word)  # the variant itself goes first
  return ':'.join(filter(None, (own_file or file, ','.join(words))))


def _argument(value: Any) -> str:
  """Returns a value as the command line has it."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, (tuple, list)):
    return repr(tuple(value))
  return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
  """Returns a value as a name has it."""
  if isinstance(value, (tuple, list)):
    return '+'.join(map(_short, value)) or 'none'
  return _argument(value)
