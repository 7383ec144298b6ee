"""The one loop: train, evaluate, save, stop and go on again.

A run trains one unit after another. A unit is a training run of one member (a
combination such as alpha and seed) or of several side by side, or one task of
several that follow each other. The position in the whole run is one number, the
global step: the steps of all units before, and those of the unit at hand.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import math
import time
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from experiments.common import checkpoint
from experiments.common import metrics as metrics_lib
from experiments.common import processes
from experiments.common import progress as progress_lib
from experiments.common import run as run_lib

Row = dict[str, Any]


class StopError(ValueError):
  """A unit cannot begin, as configured; the message says why."""


class Unit(NamedTuple):
  """One training run; arrays of metrics have a leading axis of members."""

  members: tuple[dict[str, Any], ...]  # such as {'alpha': 2.0, 'seed': 0}
  num_steps: int
  # From the last state of the unit before, None for the first, to the first.
  init: Callable[[Any], Any]
  train: Callable[..., Any]  # (state, first_step, num_steps) -> state, metrics
  evaluate: Callable[[Any], dict[str, Any]]  # state -> metrics
  report: Callable[[Any], list[list[Row]]]  # last state -> rows of each member
  # What comes after the last step, such as pruning: state -> state and rows.
  finish: Callable[[Any], tuple[Any, list[list[Row]]]] | None = None
  # Shapes of the state, with shardings where they matter; None: as `init` does.
  like: Callable[[], Any] | None = None


class Schedule(NamedTuple):
  """What happens how often, in steps of a unit."""

  log_every: int
  eval_every: int
  checkpoint_every: int


class Outcome(NamedTuple):
  """How a call of `run` ended."""

  status: str  # 'done' | 'interrupted' | 'diverged' | 'failed'
  global_step: int
  seconds: float  # of training, over all sessions of this run
  signal: int | None  # that interrupted it
  message: str


def make_schedule(
  *, log_every: int, eval_every: int, checkpoint_every: int
) -> Schedule:
  """Returns the schedule; `log_every` steps are one call of `Unit.train`.

  Raises:
    ValueError: If an interval is less than 1, or not a multiple of `log_every`.
  """
  schedule = Schedule(log_every, eval_every, checkpoint_every)
  for name, value in schedule._asdict().items():
    if value < 1:
      raise ValueError(f'expected {name} >= 1, got {value}')
    if value % log_every:
      raise ValueError(
        f'expected {name} as a multiple of log_every={log_every}, got {value}'
      )
  return schedule


def run(
  units: Sequence[Unit],
  schedule: Schedule,
  directory: run_lib.Run,
  *,
  keep: int,
) -> Outcome:
  """Trains what is not trained yet, and returns how it ended.

  After the last step of a unit its `finish` and `report` rows are written and
  its state is kept for good; other checkpoints rotate. SIGINT and SIGTERM end
  the chunk at hand, save, and return. Interrupted or not, the same steps are
  made in the same order with the same numbers.

  Args:
    units: what to train, one after another; their states are alike.
    schedule: what happens how often.
    directory: where metrics, status and checkpoints go.
    keep: how many checkpoints rotate.
  """
  checkpoints = checkpoint.Checkpoints(directory.workdir / 'checkpoints', keep)
  position, seconds, state = 0, 0.0, None
  if checkpoints.latest() is not None:
    state, metadata = checkpoints.restore(_like(units))
    position, seconds = metadata['global_step'], metadata['seconds']
  offsets = _offsets(units)
  with (
    _writer(directory, position) as writer,
    _progress(offsets[-1], position) as progress,
    run_lib.Interrupt() as interrupt,
  ):
    session = _Session(
      schedule,
      offsets[-1],
      directory,
      checkpoints,
      writer,
      progress,
      interrupt,
      _Clock(seconds),
    )
    outcome = session.outcome('done', offsets[-1])
    for unit, offset in zip(units, offsets, strict=False):
      if position >= offset + unit.num_steps:
        continue
      step = max(position - offset, 0)
      try:
        state = state if step else unit.init(state)
      except StopError as error:
        outcome = session.outcome('failed', offset, message=str(error))
        break
      state, outcome = session.train(unit, offset, state, step)
      if outcome.status != 'done':
        break
  return outcome


def evaluate(
  units: Sequence[Unit], directory: run_lib.Run
) -> list[tuple[int, dict[str, Any], Row]]:
  """Returns the `report` rows of every checkpoint that is one to report on.

  These are the last states of all units that are trained, and the newest state
  of one that is not trained to its end. Nothing is written.

  Returns:
    For each row its global step, its member, and itself.

  Raises:
    ValueError: If there is no checkpoint.
  """
  folder = directory.workdir / 'checkpoints'
  if not folder.is_dir() or not any(folder.iterdir()):
    raise ValueError(
      f'expected a checkpoint in {folder}, got none: train first'
    )
  checkpoints = checkpoint.Checkpoints(folder, None)
  saved, offsets = checkpoints.steps(), _offsets(units)
  wanted = [p for p in offsets[1:] if p in saved]
  if saved[-1] not in wanted:
    wanted.append(saved[-1])
  return [
    (position, member, {'step': position - offset, **row})
    for position in wanted
    for unit, offset in zip(units, offsets, strict=False)
    if offset < position <= offset + unit.num_steps
    for member, row in _rows(
      unit, unit.report(checkpoints.restore(_like(units), position)[0])
    )
  ]


class _Session(NamedTuple):
  """One call of `run`: what every unit of it writes to."""

  schedule: Schedule
  total: int  # steps of all units
  directory: run_lib.Run
  checkpoints: checkpoint.Checkpoints
  writer: metrics_lib.Writer
  progress: progress_lib.Progress
  interrupt: run_lib.Interrupt
  clock: '_Clock'

  def train(
    self, unit: Unit, offset: int, state: Any, step: int
  ) -> tuple[Any, Outcome]:
    """Trains a unit, whose first step is `offset`, from `step` on."""
    schedule = self.schedule
    while step < unit.num_steps:
      num_steps = min(schedule.log_every, unit.num_steps - step)
      state, values = unit.train(state, step, num_steps)
      values = jax.device_get(values)
      if 'skipped' in values:  # a share; rows have the number of steps
        values['skipped'] = np.round(values['skipped'] * num_steps)
      if problem := _not_finite(unit, values, step + num_steps):
        return state, self.outcome('diverged', offset + step, message=problem)
      step += num_steps
      position, is_last = offset + step, step == unit.num_steps
      self.write(unit, position, step, 'train', values)
      self.progress.update(position, _mean(values), _describe(unit))
      is_saved = is_last or step % schedule.checkpoint_every == 0
      is_evaluated = is_last or step % schedule.eval_every == 0
      if is_saved or is_evaluated:
        processes.check_same(state)
      if is_evaluated:
        evaluated = jax.device_get(unit.evaluate(state))
        self.write(unit, position, step, 'validation', evaluated)
      if is_last:
        state = self.finish(unit, position, step, state)
      stop = self.interrupt.agree() and position < self.total
      if stop or is_saved:
        self.save(position, state, keep_always=is_last)
      if stop:
        return state, self.outcome('interrupted', position)
    return state, self.outcome('done', offset + step)

  def write(self, unit, position, step, split, values):
    """Writes a row of metrics for each member."""
    for i, member in enumerate(unit.members):
      row = {name: float(np.ravel(value)[i]) for name, value in values.items()}
      row = {'step': step, 'split': split, **row}
      self.writer.write(position, row, member=member)

  def finish(self, unit, position, step, state):
    """Writes the final rows of each member; returns the state to save."""
    finished = []
    if unit.finish is not None:
      state, finished = unit.finish(state)
    for rows in (finished, unit.report(state)):
      for member, row in _rows(unit, rows):
        self.writer.write(position, {'step': step, **row}, member=member)
    return state

  def save(self, position, state, keep_always):
    """Saves a checkpoint; everything it stands for is written already."""
    metadata = {'global_step': position, 'seconds': self.clock.seconds()}
    self.checkpoints.save(position, state, metadata, keep_always)
    self.directory.write_status(
      'running', global_step=position, total_steps=self.total
    )

  def outcome(self, status, position, message='') -> Outcome:
    """Returns how it ended, there."""
    seconds = self.clock.seconds()
    return Outcome(status, position, seconds, self.interrupt.signal, message)


def _writer(directory: run_lib.Run, position: int) -> Any:
  if processes.is_first():
    return metrics_lib.Writer(directory.workdir, position)
  return processes.Silent()


def _progress(num_steps: int, position: int) -> Any:
  if processes.is_first():
    return progress_lib.Progress(num_steps, position)
  return processes.Silent()


class _Clock:
  """Seconds of training, those of earlier sessions included."""

  def __init__(self, before: float):
    self._before, self._start = before, time.perf_counter()

  def seconds(self) -> float:
    return self._before + time.perf_counter() - self._start


def _like(units: Sequence[Unit]) -> Any:
  unit = units[0]
  return unit.like() if unit.like else jax.eval_shape(lambda: unit.init(None))


def _offsets(units: Sequence[Unit]) -> list[int]:
  """Returns the global step at which each unit begins, and the last of all."""
  return [0, *itertools.accumulate(unit.num_steps for unit in units)]


def _rows(
  unit: Unit, rows: Sequence[Sequence[Row]]
) -> Iterator[tuple[dict[str, Any], Row]]:
  """Yields each member with each of its rows."""
  for member, own in zip(unit.members, rows, strict=bool(rows)):
    for row in own:
      yield member, row


def _mean(values) -> dict[str, float]:
  return {name: float(np.mean(value)) for name, value in values.items()}


def _describe(unit: Unit) -> str:
  several = {
    name: [member[name] for member in unit.members] for name in unit.members[0]
  }
  return ', '.join(
    f'{name} {" ".join(f"{x:g}" for x in dict.fromkeys(values))}'
    for name, values in several.items()
  )


def _not_finite(unit: Unit, values, step: int) -> str:
  for member, loss in zip(unit.members, np.ravel(values['loss']), strict=True):
    if not math.isfinite(loss):
      name = ', '.join(f'{key} {value:g}' for key, value in member.items())
      return f'the loss is {loss} by step {step} ({name})'
  return ''
