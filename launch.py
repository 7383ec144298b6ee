"""Runs one experiment: python launch.py --config=FILE[:VARIANT] --workdir=DIR.

Any value of the config can be overridden: --config.section.key=value. The same
command again goes on where the run was stopped.
"""

import json
import signal
import sys

from absl import app
from absl import flags
from absl import logging
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

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with a variant after a colon.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')


def main(argv: list[str]) -> int:
  """Checks everything, then trains, and returns the exit code."""
  logging.set_verbosity(logging.WARNING)  # Orbax reports every save
  if len(argv) > 1:
    return _refuse(f'expected flags only, got {" ".join(argv[1:])}')
  for flag in (_CONFIG, _WORKDIR):
    if flag.value is None:
      return _refuse(f'expected --{flag.name}=..., got none')
  try:
    config = json.loads(json.dumps(_CONFIG.value.to_dict()))
    run_lib.check_workdir(_WORKDIR.value, config)
    experiment = build.build(EXPERIMENTS, _CONFIG.value, key='experiment')
    directory = run_lib.open_run(_WORKDIR.value, config)
  except (ValueError, OSError) as error:
    return _refuse(str(error))
  return _train(experiment, directory)


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


def _refuse(message: str) -> int:
  print(f'launch.py: {message}', file=sys.stderr)
  return USER_ERROR


def _parse(argv: list[str]) -> list[str]:
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.exit(_refuse(str(error)))


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
