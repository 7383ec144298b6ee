"""Runs one experiment: python launch.py --config=FILE[:VARIANT] --workdir=DIR.

Any value of the config can be overridden: --config.section.key=value. The same
command again goes on where the run was stopped.
"""

import argparse
from collections.abc import Sequence
import json
import pathlib
import signal
import sys

from absl import flags
from absl import logging
import ml_collections
from ml_collections import config_flags
import rich.console

from experiments import image_classification
from experiments import plots
from experiments import results
from experiments.common import build
from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib

EXPERIMENTS = {'image_classification': image_classification.build}

USER_ERROR = 2  # exit codes; an interrupted run exits with 128 + signal
DIVERGED = 3


def main(arguments: Sequence[str]) -> int:
  """Checks everything, then trains, and returns the exit code."""
  logging.set_verbosity(logging.WARNING)  # Orbax reports every save
  try:
    config, workdir = parse(arguments)
    plain = json.loads(json.dumps(config.to_dict()))
    run_lib.check_workdir(workdir, plain)
    experiment = build.build(EXPERIMENTS, config, key='experiment')
    directory = run_lib.open_run(workdir, plain)
  except (ValueError, OSError) as error:
    print(f'launch.py: {error}', file=sys.stderr)
    return USER_ERROR
  return _train(experiment, directory)


def parse(
  arguments: Sequence[str],
) -> tuple[ml_collections.ConfigDict, str]:
  """Returns the config, with what overrides it, and the work directory.

  Raises:
    ValueError: If the config cannot be loaded or a value cannot be overridden.
  """
  parser = argparse.ArgumentParser(
    'launch.py',
    'launch.py --config=FILE[:VARIANT] --workdir=DIR '
    '[--config.section.key=value ...]',
    __doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--config', required=True, help='config file')
  parser.add_argument('--workdir', required=True, help='folder of the run')
  known, overrides = parser.parse_known_args(arguments)
  file = pathlib.Path(known.config.partition(':')[0])
  if not file.is_file():
    there = sorted(str(path) for path in file.parent.glob('*.py'))
    raise ValueError(f'expected a config file, one of {there}, got {file}')
  values = flags.FlagValues()
  argv = ['launch.py', f'--config={known.config}', *overrides]
  flag = config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=argv
  )
  try:
    rest = values(argv)
  except (AttributeError, KeyError) as error:
    hints = [text for text in _chain(error) if 'Did you mean' in text]
    message = (hints or _chain(error))[-1].replace('\n', ': ')
    raise ValueError(f'unknown config key {message}') from error
  except (flags.Error, TypeError, ValueError) as error:
    # The library puts the file's whole traceback into its message.
    in_file = 'whilst parsing config file' in str(error)
    message = f'{file}: {_chain(error)[-1]}' if in_file else str(error)
    raise ValueError(message) from error
  if len(rest) > 1:
    raise ValueError(f'expected flags only, got {" ".join(rest[1:])}')
  return flag.value, known.workdir


def _chain(error: BaseException | None) -> list[str]:
  """Returns the messages of an error and of those behind it, the first last."""
  messages = []
  while error is not None:
    messages.append(str(error.args[0] if error.args else error))
    error = error.__cause__ or error.__context__
  return messages


def _train(experiment, directory: run_lib.Run) -> int:
  directory.write_status('running')
  try:
    outcome = loop.run(
      experiment.units,
      experiment.schedule,
      directory,
      keep=experiment.keep,
    )
  except BaseException as error:
    directory.write_status('failed', message=f'{type(error).__name__}: {error}')
    raise
  directory.write_status(
    outcome.status,
    global_step=outcome.global_step,
    message=outcome.message,
  )
  if outcome.status == 'interrupted':
    name = signal.Signals(outcome.signal).name
    print(
      f'{name}: saved at step {outcome.global_step}. The same command goes on '
      f'from there:\n  python {" ".join(sys.argv)}'
    )
    return 128 + outcome.signal
  if outcome.status == 'diverged':
    print(
      f'Stopped: {outcome.message}. The last checkpoint before that is in '
      f'{directory.workdir / "checkpoints"}; try a smaller learning rate.',
      file=sys.stderr,
    )
    return DIVERGED
  _report(directory, outcome)
  return 0


def _report(directory: run_lib.Run, outcome: loop.Outcome):
  rows = metrics.read(directory.workdir)
  summary = results.summarize(rows)
  directory.write_summary({'wall_time_s': outcome.seconds, **summary})
  drawn = plots.draw_all(rows, directory.workdir / 'plots')
  seeds = len(results.distinct(rows, 'seed'))
  console = rich.console.Console(width=None if sys.stdout.isatty() else 120)
  console.print(
    results.for_terminal(
      rows, f'Test accuracy [%], mean ± deviation of {seeds} seed(s)'
    )
  )
  print('Plots:', *drawn, sep='\n  ')


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
