"""Configs: Python files whose values the command line may override."""

from collections.abc import Sequence
import pathlib

from absl import flags
import ml_collections
from ml_collections import config_flags


def load(
  config: str, overrides: Sequence[str], name: str = 'config'
) -> ml_collections.ConfigDict:
  """Returns the config of `FILE[:VARIANT]`, with what overrides it.

  Args:
    config: the file, and what its `get_config` is called with.
    overrides: such as `--config.section.key=value`.
    name: of the flag, in place of 'config'.

  Raises:
    ValueError: If there is no such file, it cannot be loaded, or a value cannot
      be overridden.
  """
  file = pathlib.Path(config.partition(':')[0])
  if not file.is_file():
    there = sorted(str(path) for path in file.parent.glob('*.py'))
    raise ValueError(f'expected a config file, one of {there}, got {file}')
  values = flags.FlagValues()
  argv = ['', f'--{name}={config}', *overrides]
  flag = config_flags.DEFINE_config_file(
    name, flag_values=values, sys_argv=argv
  )
  try:
    rest = values(argv)
  except (AttributeError, KeyError) as error:
    hints = [text for text in _chain(error) if 'Did you mean' in text]
    message = (hints or _chain(error))[-1].replace('\n', ': ')
    raise ValueError(f'unknown {name} key {message}') from error
  except (flags.Error, TypeError, ValueError) as error:
    # The library puts the file's whole traceback into its message.
    in_file = 'whilst parsing config file' in str(error)
    message = f'{file}: {_chain(error)[-1]}' if in_file else str(error)
    raise ValueError(message) from error
  if len(rest) > 1:
    raise ValueError(f'expected flags only, got {" ".join(rest[1:])}')
  return flag.value


def _chain(error: BaseException | None) -> list[str]:
  """Returns the messages of an error and of those behind it, the first last."""
  messages = []
  while error is not None:
    messages.append(str(error.args[0] if error.args else error))
    error = error.__cause__ or error.__context__
  return messages
