"""Runs one experiment: python launch.py --config=FILE[:VARIANT] --workdir=DIR.

Any value of the config can be overridden: --config.section.key=value. The same
command again goes on where the run was stopped. With --eval_only the networks
in DIR are evaluated, with --dry_run the config is checked and its training step
lowered for CPU, GPU and TPU, without data or device. With --sweep=NAME the runs
of a sweep are trained: launch.py --sweep --help. With --processes,
--distributed or --coordinator several processes make one run.
"""

import argparse
from collections.abc import Sequence
import contextlib
import io
import json
import pathlib
import signal
import sys
from typing import Any
from typing import NamedTuple

from absl import logging
import ml_collections
import rich.console

from experiments import costs
from experiments import flops
from experiments import table
from experiments.common import build
from experiments.common import config as config_lib
from experiments.common import experiment as experiment_lib
from experiments.common import local
from experiments.common import lock
from experiments.common import loop
from experiments.common import metrics
from experiments.common import processes
from experiments.common import run as run_lib
from experiments.data import dataset
from experiments.sweeps import command as sweep_lib

USER_ERROR = 2  # exit codes; an interrupted run exits with 128 + signal
DIVERGED = 3
MACHINE = 4  # a full disk, a process that is lost: to be started again


class Command(NamedTuple):
  """What the command line asks for."""

  config: ml_collections.ConfigDict
  workdir: str | None
  eval_only: bool
  dry_run: bool
  place: processes.Placement | None  # among several processes
  num_local: int | None  # processes to start here


def main(arguments: Sequence[str]) -> int:
  """Checks everything, then trains, and returns the exit code."""
  logging.set_verbosity(logging.WARNING)  # Orbax reports every save
  if sweep_lib.is_asked(arguments):
    program = sweep_lib.Program(pathlib.Path(__file__).resolve(), main, parse)
    return sweep_lib.main(arguments, program)
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='replace')  # where there is no UTF-8
  local.exit_with_parent()
  with contextlib.ExitStack() as stack:
    try:
      command = parse(arguments)
      if command.num_local is not None:
        return local.run(__file__, arguments, command.num_local)
      processes.start(command.place)
      if command.dry_run:
        return _dry_run(command.config)
      plain = json.loads(json.dumps(command.config.to_dict()))
      experiment = processes.together(_prepare, command, plain)
      if command.eval_only:
        return _evaluate(experiment, command.workdir)
      held = processes.in_first(lock.acquire, command.workdir)
      if held is not None:
        stack.callback(held.release)
      processes.in_first(_open, experiment, command.workdir, plain)
    except (ValueError, OSError) as error:
      print(f'launch.py: {error}', file=sys.stderr)
      return USER_ERROR
    return _train(experiment, run_lib.Run(pathlib.Path(command.workdir)))


def parse(arguments: Sequence[str]) -> Command:
  """Returns the config, with what overrides it, and what to do with it.

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
  parser.add_argument('--workdir', help='folder of the run')
  parser.add_argument(
    '--eval_only', action='store_true', help='evaluate what is trained'
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='check and lower; no data needed'
  )
  processes.add_flags(parser)
  known, overrides = parser.parse_known_args(arguments)
  if known.workdir is None and not known.dry_run:
    raise ValueError('expected --workdir=DIR, the folder of the run, got none')
  config = config_lib.load(known.config, overrides)
  return Command(
    config,
    known.workdir,
    known.eval_only,
    known.dry_run,
    processes.placement(known),
    known.processes,
  )


def _prepare(command: Command, plain: Any) -> experiment_lib.Experiment:
  """Returns the experiment, after every check; changes nothing."""
  run_lib.check_workdir(command.workdir, plain)
  experiment = _of_experiment('build', command.config)
  experiment.check(pathlib.Path(command.workdir))
  return experiment


def _open(experiment: experiment_lib.Experiment, workdir: str, plain: Any):
  run_lib.open_run(workdir, plain)
  experiment.write(pathlib.Path(workdir))


def _of_experiment(function: str, config: ml_collections.ConfigDict):
  """Returns what a function of the config's experiment makes of the config."""
  functions = {
    name: getattr(module, function)
    for name, module in table.EXPERIMENTS.items()
  }
  return build.build(functions, config, key='experiment')


def _dry_run(config: ml_collections.ConfigDict) -> int:
  for outline in _of_experiment('outlines', config):
    print(*experiment_lib.dry_run(outline), sep='\n')
  if config.experiment in costs.SUBJECTS:
    subject = build.build(costs.SUBJECTS, config, key='experiment')
    print(*flops.totals(costs.report(subject)), sep='\n')
  return 0


def _evaluate(experiment: experiment_lib.Experiment, workdir: str) -> int:
  directory = run_lib.Run(pathlib.Path(workdir))
  rows = [
    {'global_step': at, **member, **row}
    for at, member, row in loop.evaluate(experiment.units, directory)
  ]
  summary = experiment.report(rows, None, _console())
  path = directory.workdir / 'evaluation.json'
  run_lib.write_json(path, summary)
  print(f'Written to {path}')
  return 0


def _train(experiment, directory: run_lib.Run) -> int:
  total = sum(unit.num_steps for unit in experiment.units)
  try:
    directory.write_status('running', total_steps=total)
    outcome = loop.run(
      experiment.units,
      experiment.schedule,
      directory,
      keep=experiment.keep,
    )
    processes.wait()
    return _conclude(experiment, directory, outcome)
  except BaseException as error:
    error = processes.explained(error)
    with contextlib.suppress(OSError):  # of a disk that is full
      message = f'{type(error).__name__}: {error}'
      directory.write_status('failed', message=message)
    code = _failure(error)
    if code is None:
      processes.crash()
      raise
    print(f'Stopped: {error}', file=sys.stderr)
    return processes.leave(code)


def _failure(error: BaseException) -> int | None:
  """Returns the exit code of what is no fault of this program, else None."""
  if isinstance(error, (dataset.DataError, run_lib.FolderError)):
    return USER_ERROR
  if isinstance(error, (OSError, processes.LostError)):
    return MACHINE
  return None


def _conclude(experiment, directory: run_lib.Run, outcome: loop.Outcome) -> int:
  """Says how training ended, and returns the exit code."""
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
  if outcome.status == 'failed':
    print(f'Stopped: {outcome.message}', file=sys.stderr)
    return USER_ERROR
  if outcome.status == 'diverged':
    print(
      f'Stopped: {outcome.message}. The last checkpoint before that is in '
      f'{directory.workdir / "checkpoints"}; try a smaller learning rate.',
      file=sys.stderr,
    )
    return DIVERGED
  if processes.is_first():
    _report(experiment, directory, outcome)
  return 0


def _report(experiment, directory: run_lib.Run, outcome: loop.Outcome):
  rows = metrics.read(directory.workdir)
  summary = experiment.report(rows, directory.workdir / 'plots', _console())
  directory.write_summary({'wall_time_s': outcome.seconds, **summary})


def _console() -> rich.console.Console:
  return rich.console.Console(width=None if sys.stdout.isatty() else 120)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
