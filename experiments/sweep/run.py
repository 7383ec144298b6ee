"""Trains the runs of a plan one after another in this process.

Done and diverged runs are skipped, interrupted ones resumed, failed ones
retried. Runs that differ only in seeds share data and compiled code.
"""

from collections.abc import Mapping
import contextlib
import pathlib
import shlex
import signal
import sys
import traceback
from typing import Any
from typing import NamedTuple

import jax
import rich.console

from experiments import initial
from experiments import interrupt as interrupt_lib
from experiments import metrics
from experiments import multihost
from experiments import rundir
from experiments import trainer
from experiments.data import dataset
from experiments.paper import summary
from experiments.sweep import plan as plan_lib
from experiments.sweep import status

# Exit codes; an interrupted command ends with 128 + signal.
FAILED, USER_ERROR, DIVERGED, MACHINE = 1, 2, 3, 4
SIGNALLED = 128


class Ending(NamedTuple):
  """Exit code of a run, and the reason."""

  code: int
  message: str = ''


def check(
  plan: plan_lib.Plan, workdir: pathlib.Path, given: bool = True
) -> None:
  """Raises ValueError if a config or, if `given`, folder of a plan is wrong.

  Reads no data and changes nothing.
  """
  if given:
    plan_lib.check_folder(plan, workdir)
  for run in plan.runs:
    try:
      if given:
        rundir.check(workdir / run.name, run.config)
      initial.make_task(run.config)
    except ValueError as error:
      if not run.name:
        raise
      raise ValueError(f'run {run.name!r}: {error}') from error


def use_cpu(plan: plan_lib.Plan) -> None:
  """Keeps this process off the accelerators, which its children use.

  It has as many CPU devices as any run asks for. No effect once JAX runs.
  """
  wanted = [1]
  for run in plan.runs:
    # Wrong values are reported by `check`.
    with contextlib.suppress(KeyError, TypeError, ValueError):
      wanted.append(int(run.config['train']['num_devices']))
  with contextlib.suppress(RuntimeError):
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', max(wanted))


def train(plan: plan_lib.Plan, workdir: pathlib.Path) -> int:
  """Trains the runs of a checked plan in this process; returns the exit code.

  All processes of a distributed run call this. A full disk or a signal ends the
  plan, any other failure its run alone.

  Raises ValueError if the data of the first run do not fit or the folder is in
  use.
  """
  left = [run for run in plan.runs if not ended(workdir, run)]
  if left:
    multihost.together(_prepare, left[0], workdir / left[0].name)
  endings: dict[str, Ending] = {}
  with contextlib.ExitStack() as stack:
    _lock(stack, workdir)
    multihost.in_first(plan_lib.write, plan, workdir)
    interrupt = stack.enter_context(interrupt_lib.Interrupt())
    shown = stack.enter_context(
      status.Progress(len(plan.runs), disable=not multihost.is_first())
    )
    for run in plan.runs:
      ending = ended(workdir, run)
      if not ending and interrupt.agree():
        return say_interrupted(interrupt.signal, 'stopped between runs')
      ending = ending or _train_run(run, workdir, shown)
      endings[run.name] = ending
      shown.update({run.name: _state(workdir, run.name, ending)})
      if ending.code == MACHINE or ending.code > SIGNALLED:
        break
  return conclude(plan, workdir, endings)


def conclude(
  plan: plan_lib.Plan, workdir: pathlib.Path, endings: Mapping[str, Ending]
) -> int:
  """Prints and draws the results, or the failures; returns the exit code.

  The results of several runs are written to summary.json in the plan's folder.
  """
  codes = [ending.code for ending in endings.values()]
  stopped = [code for code in codes if code == MACHINE or code > SIGNALLED]
  if not any(codes):
    try:
      if multihost.is_first():
        folders = [workdir / run.name for run in plan.runs]
        width = None if sys.stdout.isatty() else 120
        console = rich.console.Console(width=width)
        results = summary.summarize(folders, workdir, console)
        if plan.has_several:
          rundir.write_json(workdir / 'summary.json', results)
    except OSError as error:  # a full disk
      print(f'Stopped: {error}', file=sys.stderr)
      return multihost.leave(MACHINE)
    multihost.wait()
    return 0
  if not plan.has_several:
    [ending] = endings.values()
    if ending.code < SIGNALLED:
      print(f'Stopped: {ending.message}', file=sys.stderr)
    if ending.code == DIVERGED:
      print(
        f'The last checkpoint is in {workdir / "checkpoints"}; try a smaller '
        'learning rate, in another folder.',
        file=sys.stderr,
      )
    return ending.code
  if multihost.is_first():
    status.report(states(plan, workdir, endings))
  return stopped[-1] if stopped else FAILED


def states(
  plan: plan_lib.Plan, workdir: pathlib.Path, endings: Mapping[str, Ending]
) -> dict[str, status.State]:
  """Returns the state of each run by name, with this command's failures."""
  return {
    run.name: _state(workdir, run.name, endings.get(run.name))
    for run in plan.runs
  }


def say_interrupted(number: int, what: str) -> int:
  """Prints the command that resumes after a signal; returns the exit code."""
  print(
    f'{signal.Signals(number).name}: {what}. The same command goes on from '
    f'there:\n  {shlex.join(["python", *sys.argv])}'
  )
  return SIGNALLED + number


def ended(workdir: pathlib.Path, run: plan_lib.Run) -> Ending | None:
  """Returns the ending of a done or diverged run, as rank 0 sees it."""
  state = status.read(workdir / run.name)
  code = {'done': 0, 'diverged': DIVERGED}.get(state.status, -1)
  code = multihost.largest(code + 1 if multihost.is_first() else 0) - 1
  return None if code < 0 else Ending(code, state.message)


def _state(
  workdir: pathlib.Path, name: str, ending: Ending | None
) -> status.State:
  state = status.read(workdir / name)
  is_new = ending is not None and state.status not in status.ENDED
  if is_new and 0 < ending.code < SIGNALLED:
    message = ending.message or state.message
    state = state._replace(status='failed', message=message)
  return state


def _prepare(run: plan_lib.Run, folder: pathlib.Path) -> Any:
  """Returns the task of a run, its data read and checked."""
  task = initial.make_task(run.config)
  task.check_data()
  task.check_folder(folder)
  return task


def _train_run(
  run: plan_lib.Run, workdir: pathlib.Path, shown: status.Progress
) -> Ending:
  """Trains a run in its folder; turns every failure into an ending."""
  folder = workdir / run.name
  with contextlib.ExitStack() as stack:
    try:
      task = multihost.together(_prepare, run, folder)
      if run.name:
        _lock(stack, folder)
      multihost.in_first(rundir.create, folder, run.config)
      multihost.in_first(task.write_folder, folder)
    except ValueError as error:
      return Ending(USER_ERROR, str(error))
    except OSError as error:
      return Ending(_code_of(error), str(error))
    fields = {'total_steps': task.num_steps}

    def on_progress(step: int, row: Mapping[str, float]) -> None:
      text = ', '.join(f'{key} {float(x):.4g}' for key, x in row.items())
      state = status.State('running', step, task.num_steps, text)
      shown.update({run.name: state})

    try:
      rundir.write_status(folder, 'running', **fields)
      seed = run.config['seed']
      outcome = trainer.train(task, seed, folder, on_progress)
      multihost.wait()
      fields |= {'step': outcome.step, 'message': outcome.message}
      if outcome.status == 'done' and multihost.is_first():
        rundir.write_summary(folder, _summary(folder, outcome.seconds))
      rundir.write_status(folder, outcome.status, **fields)
    except Exception as error:
      return _fail(folder, error)
  if outcome.status == 'interrupted':
    saved = f'saved at step {outcome.step}'
    return Ending(say_interrupted(outcome.signal, saved))
  codes = {'done': 0, 'diverged': DIVERGED, 'failed': USER_ERROR}
  return Ending(codes[outcome.status], outcome.message)


def _summary(folder: pathlib.Path, seconds: float) -> dict[str, Any]:
  """Returns the last test row of a run, and the steps whose rows are lost."""
  rows = metrics.read(folder)
  tests = [row for row in rows if row.get('split') == 'test']
  lost = [
    [row['first'], row['step']] for row in rows if row.get('split') == 'lost'
  ]
  values = {'wall_time_s': seconds, 'results': tests[-1] if tests else {}}
  return values | ({'lost_metrics': lost} if lost else {})


def _fail(folder: pathlib.Path, error: Exception) -> Ending:
  """Writes the reason of a failure to status.json; returns the ending."""
  error = multihost.explained(error)
  message = f'{type(error).__name__}: {error}'
  with contextlib.suppress(OSError):  # a full disk
    rundir.write_status(folder, 'failed', message=message)
  code = _code_of(error)
  if code == FAILED:
    multihost.crash()
    traceback.print_exception(error)
    return Ending(code, message)
  if jax.process_count() > 1:
    print(f'Stopped: {error}', file=sys.stderr)
  return Ending(multihost.leave(code), str(error))


def _code_of(error: Exception) -> int:
  """Returns the exit code of a failure; `MACHINE` if it may mend itself."""
  wrong_path = (
    FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError,
  )  # fmt: skip
  wrong = (dataset.DataError, rundir.FolderError, *wrong_path)
  if isinstance(error, wrong) or isinstance(error.__cause__, wrong_path):
    return USER_ERROR
  may_mend = (OSError, multihost.LostError)
  return MACHINE if isinstance(error, may_mend) else FAILED


def _lock(stack: contextlib.ExitStack, folder: pathlib.Path) -> None:
  """Locks a folder until the context ends."""
  held = multihost.in_first(rundir.lock, folder)
  if held is not None:
    stack.callback(held.release)
