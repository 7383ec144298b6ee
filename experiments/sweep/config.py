"""Configs: Python files with `get_config`, and overrides of their values."""

from collections.abc import Sequence
import importlib.util
import pathlib
import types

from absl import flags
import ml_collections
from ml_collections import config_flags

from experiments import build


def load(
  config: str, overrides: Sequence[str], name: str = 'config'
) -> ml_collections.ConfigDict:
  """Returns the config of 'FILE[:VARIANT]', locked, with overrides applied.

  Overrides are flags such as `--config.section.key=value`; `name` replaces
  'config' there.

  Raises:
    ValueError: If the file returns no config, or an override does not fit it.
  """
  file, _, argument = config.partition(':')
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
  values, argv = flags.FlagValues(), ['', *overrides]
  try:
    config_flags.DEFINE_config_dict(
      name, value, flag_values=values, sys_argv=argv
    )
    values(argv)
  except (AttributeError, KeyError) as error:
    message = _hint(error).replace('\n', ': ')
    raise ValueError(f'unknown {name} key {message}') from error
  except (flags.Error, TypeError, ValueError) as error:
    raise ValueError(str(error)) from error
  return values[name].value


def module_of(file: pathlib.Path) -> types.ModuleType:
  """Returns a file as a module; ValueError if it cannot be imported."""
  if not file.is_file():
    known = sorted(str(path) for path in file.parent.glob('*.py'))
    hint = build.did_you_mean(file, known)
    raise ValueError(f'expected a config file, got {file}{hint}')
  spec = importlib.util.spec_from_file_location(f'_config_{file.stem}', file)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    raise ValueError(f'{file}: {type(error).__name__}: {error}') from error
  return module


def _hint(error: BaseException | None) -> str:
  """Returns the message of an error or its causes that names a near key."""
  messages = []
  while error is not None:
    messages.append(str(error.args[0] if error.args else error))
    error = error.__cause__ or error.__context__
  return max(messages, key=lambda text: 'Did you mean' in text)
