"""Configs, and the points of a sweep: flat overrides of a config.

A config is a Python file with `get_config`.

A sweep is a function of the config's file, or of `sweeps.py` beside it, that
calls `add` with what differs from the config:

    def sweep(add):
      for density in (0.1, 0.2):
        add({'method.forward_density': density})

The key `config` chooses a variant, ':rigl,density=0.1', or a file and variant.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import importlib.util
import inspect
import json
import os
import pathlib
import re
import types
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_dict
from ml_collections import config_flags
import numpy as np

from experiments import build

Overrides = dict[str, Any]

# Entries of a sweep's folder, not names of runs.
FILE, LOGS, JOBS = 'sweep.json', 'logs', 'jobs'
TAKEN = (FILE, LOGS, JOBS, 'plots', 'summary.json')

_LENGTH = 120  # of a name; file systems end at 255
_UNSAFE = re.compile(r'[^A-Za-z0-9._=,+-]')


def load(
  config: str, overrides: Sequence[str], name: str = 'config'
) -> ml_collections.ConfigDict:
  """Returns the config of 'FILE[:VARIANT]', locked, with overrides applied.

  Overrides are flags such as `--config.section.key=value`; `name` replaces
  'config' there; of two for one key the last holds, and None is None in any
  field. Raises ValueError if one does not fit, or there is no config.
  """
  file, _, argument = os.path.expanduser(config).partition(':')
  get_config = getattr(module_of(pathlib.Path(file)), 'get_config', None)
  if get_config is None:
    raise ValueError(f'{file}: expected a function get_config, got none')
  try:
    value = get_config(argument) if argument else get_config()
  except Exception as error:
    kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
    raise ValueError(f'{file}: {kind}{error}') from error
  if not isinstance(value, ml_collections.ConfigDict):
    raise ValueError(
      f'{file}: expected get_config to return a ConfigDict, got {value!r}'
    )
  if name == 'config' and 'init_from' not in value:
    with value.unlocked():
      value.init_from = config_dict.placeholder(str)
  last = {word.partition('=')[0]: word for word in overrides}
  nones = [key for key, word in last.items() if word == f'{key}=None']
  argv = ['', *(word for key, word in last.items() if key not in nones)]
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      name, value, flag_values=values, sys_argv=argv
    )
    values(argv)
    for key in nones:
      value.update_from_flattened_dict({key.removeprefix(f'--{name}.'): None})
  except (AttributeError, KeyError) as error:
    message = _hint(error).replace('\n', ': ')
    raise ValueError(f'unknown {name} key {message}') from error
  except (flags.Error, TypeError, ValueError) as error:
    raise ValueError(str(error)) from error
  _expand(value)
  return value


def _expand(config: ml_collections.ConfigDict) -> None:
  """Expands `~` in the paths of a config."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      _expand(value)
    elif isinstance(value, str) and value.startswith('~'):
      config[key] = os.path.expanduser(value)


def module_of(file: pathlib.Path) -> types.ModuleType:
  """Returns a file as a module; ValueError if it cannot be imported."""
  if not file.is_file() or file.suffix != '.py':
    known = sorted(str(path) for path in file.parent.glob('*.py'))
    hint = build.did_you_mean(file, known)
    raise ValueError(f'expected a Python file, got {file}{hint}')
  spec = importlib.util.spec_from_file_location(f'_config_{file.stem}', file)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    raise ValueError(f'{file}: {type(error).__name__}: {error}') from error
  return module


def find(name: str, config: str) -> Callable[[Callable], None]:
  """Returns the sweep of a name, or of 'FILE:NAME'; ValueError if none."""
  file, _, function = name.rpartition(':')
  own = pathlib.Path(file or config.partition(':')[0])
  beside = own.with_name('sweeps.py')
  files = [own, beside] if beside.is_file() and not file else [own]
  known: dict[str, Callable] = {}
  for path in files:
    known = {**_sweeps_in(path), **known}
  if function not in known:
    raise ValueError(
      f'expected --sweep as one of {", ".join(known) or "(none)"}, the '
      f'functions of `add` in {" and ".join(map(str, files))}; got '
      f'{function!r}{build.did_you_mean(function, known)}'
    )
  return known[function]


def collect(sweep: Callable[[Callable], None]) -> list[Overrides]:
  """Returns the overrides of a sweep; ValueError if they are not flat."""
  points: list[Overrides] = []

  def add(overrides: Mapping[str, Any]) -> None:
    if not isinstance(overrides, Mapping):
      raise ValueError(f'expected a dict of overrides, got {overrides!r}')
    points.append({key: _to_plain(key, x) for key, x in overrides.items()})

  try:
    sweep(add)
  except Exception as error:
    kind = '' if isinstance(error, ValueError) else f'{type(error).__name__}: '
    raise ValueError(f'sweep {sweep.__name__}: {kind}{error}') from error
  if not points:
    raise ValueError('expected a sweep that adds runs, got none')
  return points


def name_of(overrides: Overrides) -> str:
  """Returns the folder name of a point: its overrides.

  Characters unfit for file names are replaced; a checksum then follows.

  Example:
    >>> name_of({'seeds': (0, 1), 'method.density': 0.1})
    'method.density=0.1,seeds=0+1'
    >>> name_of({'config': ':rigl,density=0.1'})
    'rigl,density=0.1'
    >>> name_of({})
    'base'
  """
  own = dict(sorted(overrides.items()))
  file, _, variant = str(own.pop('config', '')).partition(':')
  parts = list(filter(None, (pathlib.Path(file).stem, variant)))
  parts += [f'{key}={_short(value)}' for key, value in own.items()]
  raw = ','.join(parts) or 'base'
  name = _UNSAFE.sub('_', raw).lstrip('.-')[:_LENGTH] or 'run'
  if name == raw and name not in TAKEN:
    return name
  content = json.dumps(overrides, sort_keys=True, default=str)
  return f'{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}'


def arguments(
  config: str, point: Overrides, shared: Sequence[str] = ()
) -> tuple[str, ...]:
  """Returns the flags of launch.py that train a point, --config first.

  Keys after the colon of `config` apply to every variant.

  Example:
    >>> arguments('a.py:quick=1', {'config': ':rigl', 'seeds': (0,)})
    ('--config=a.py:rigl,quick=1', '--config.seeds=(0,)')
    >>> arguments('a.py:quick', {'config': 'b.py:alpha=2'})
    ('--config=b.py:quick,alpha=2',)

  Raises ValueError if `shared` sets a key of the point.
  """
  for key in point:
    if any(word.partition('=')[0] == f'--config.{key}' for word in shared):
      raise ValueError(
        f'expected --config.{key} to be set once, but the sweep sets it too; '
        'remove it from the command'
      )
  file, _, keys = config.partition(':')
  own_file, _, variant = str(point.get('config', '')).partition(':')
  words = [word for word in f'{variant},{keys}'.split(',') if word]
  words.sort(key=lambda word: '=' in word)  # variant first
  chosen = ':'.join(filter(None, (own_file or file, ','.join(words))))
  own = {key: value for key, value in point.items() if key != 'config'}
  flags = [f'--config.{key}={_text(value)}' for key, value in own.items()]
  return (f'--config={chosen}', *flags, *shared)


def _sweeps_in(file: pathlib.Path) -> dict[str, Callable]:
  """Returns the public functions of a file whose one parameter is `add`."""
  return {
    name: function
    for name, function in vars(module_of(file)).items()
    if not name.startswith('_')
    and inspect.isfunction(function)
    and list(inspect.signature(function).parameters) == ['add']
  }


def _to_plain(key: str, value: Any) -> Any:
  """Returns a value of plain types, NumPy's converted; ValueError otherwise."""
  if isinstance(value, (np.ndarray, np.generic)):
    value = value.tolist()
  if isinstance(value, (tuple, list)):
    return tuple(_to_plain(key, item) for item in value)
  if not isinstance(value, (bool, int, float, str, type(None))):
    raise ValueError(
      f'{key!r}: expected a number, a string, a boolean, None or a tuple of '
      f"these, got {value!r}; write 'section.key' for a key of a section"
    )
  return value


def _text(value: Any) -> str:
  """Returns a value as written on the command line."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, (tuple, list)):
    return repr(tuple(value))
  return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
  """Returns a value as written in a name."""
  if isinstance(value, (tuple, list)):
    return '+'.join(map(_short, value)) or 'none'
  return _text(value)


def _hint(error: BaseException | None) -> str:
  """Returns the message of an error or its causes that names a near key."""
  messages = []
  while error is not None:
    messages.append(str(error.args[0] if error.args else error))
    error = error.__cause__ or error.__context__
  return max(messages, key=lambda text: 'Did you mean' in text)
