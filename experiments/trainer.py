"""The trainer: makes steps, evaluates, saves, stops and resumes.

A run trains the stages of a task one after another. The global step counts over
all stages.
"""

from collections.abc import Callable
import contextlib
import itertools
import math
import os
import pathlib
import time
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from experiments import checkpoint
from experiments import interrupt as interrupt_lib
from experiments import metrics as metrics_lib
from experiments import multihost
from experiments import rundir
from experiments import storage as storage_lib
from experiments.tasks import base
import sparsity

OnProgress = Callable[[int, dict[str, float]], None]


class Outcome(NamedTuple):
  """The end of a call of `train`."""

  status: str  # 'done' | 'interrupted' | 'diverged'
  step: int  # global
  seconds: float  # of training, over all sessions of the run
  signal: int | None  # that interrupted it
  message: str


class _Session(NamedTuple):
  """A call of `train`."""

  task: base.Task
  seed: int
  storage: storage_lib.Storage
  workdir: pathlib.Path
  checkpoints: checkpoint.Checkpoints
  writer: metrics_lib.Writer | None  # None except on process 0
  interrupt: interrupt_lib.Interrupt
  on_progress: OnProgress
  started: float  # seconds, less those of earlier sessions

  def outcome(self, status: str, step: int, message: str = '') -> Outcome:
    """Returns how the session ended."""
    seconds = time.perf_counter() - self.started
    return Outcome(status, step, seconds, self.interrupt.signal, message)

  def write(self, step: int, labels: dict[str, int], row: base.Row) -> None:
    """Writes a row of metrics."""
    if self.writer is not None:
      self.writer.write(step, {**labels, **row})

  def save(self, step: int, state: base.State, keep_always: bool) -> None:
    """Saves a checkpoint; the rows up to its step are already written."""
    seconds = time.perf_counter() - self.started
    prng = self.task.training.prng
    metadata = {'step': step, 'seconds': seconds, 'prng': prng}
    self.checkpoints.save(step, state, metadata, keep_always)
    if multihost.is_first():
      rundir.write_status(
        self.workdir, 'running', step=step, total_steps=self.task.num_steps
      )


def train(
  task: base.Task,
  seed: int,
  workdir: str | os.PathLike[str],
  on_progress: OnProgress,
) -> Outcome:
  """Trains a run to its end, from its newest checkpoint on.

  The last state of each stage is kept; other checkpoints rotate. On SIGINT and
  SIGTERM, finishes the current chunk, saves, and returns. A resumed run equals
  an uninterrupted one bit for bit. The caller has created and locked the run
  folder; `on_progress` gets the global step and metrics after each chunk.
  """
  workdir = pathlib.Path(workdir)
  checkpoints = checkpoint.Checkpoints(
    workdir / 'checkpoints', task.training.keep_checkpoints
  )
  step, seconds, state = 0, 0.0, None
  if checkpoints.latest() is not None:
    state, metadata = checkpoints.restore(task.state)
    step, seconds = metadata['step'], metadata['seconds']
    saved, prng = metadata.get('prng', base.Training.prng), task.training.prng
    if saved != prng:
      raise rundir.FolderError(
        f'config.train.prng: expected {saved!r}, with which the checkpoints in '
        f'{workdir} were made, got {prng!r}'
      )
  _, storage = task.objective.method.make(seed)
  writer = contextlib.nullcontext()
  if multihost.is_first():
    writer = metrics_lib.Writer(workdir, step)
  with writer as writer, interrupt_lib.Interrupt() as interrupt:
    session = _Session(
      task,
      seed,
      storage,
      workdir,
      checkpoints,
      writer,
      interrupt,
      on_progress,
      time.perf_counter() - seconds,
    )
    return _train_stages(session, step, state)


def evaluate(
  task: base.Task, seed: int, workdir: str | os.PathLike[str]
) -> list[base.Row]:
  """Returns the final rows of every trained stage; writes nothing.

  A partly trained stage reports its newest checkpoint.
  """
  folder = pathlib.Path(workdir) / 'checkpoints'
  checkpoints = checkpoint.Checkpoints(folder, None)
  saved, starts = checkpoints.steps(), stage_starts(task)
  if not saved:
    raise ValueError(
      f'expected a checkpoint in {folder}, got none: train first'
    )
  wanted = [step for step in starts[1:] if step in saved]
  if saved[-1] not in wanted:
    wanted.append(saved[-1])
  rows = []
  for step in wanted:
    state, _ = checkpoints.restore(task.state, step)
    for stage, start in zip(task.stages, starts, strict=False):
      if start < step <= start + stage.num_steps:
        found = stage.report(seed, state)
        rows += [{'step': step, **stage.labels, **row} for row in found]
  return rows


def stage_starts(task: base.Task) -> list[int]:
  """Returns the global step at which each stage begins, and the last of all."""
  return [0, *itertools.accumulate(stage.num_steps for stage in task.stages)]


def _train_stages(session: _Session, step: int, state: Any) -> Outcome:
  """Trains all stages that are not trained yet, from global step `step`."""
  starts = stage_starts(session.task)
  for stage, start in zip(session.task.stages, starts, strict=False):
    if step >= start + stage.num_steps:
      continue
    first = max(step - start, 0)
    if not first:
      state = stage.begin(session.seed, state)
    state, outcome = _train_stage(session, stage, start, state, first)
    if outcome.status != 'done':
      return outcome
  return session.outcome('done', starts[-1])


def _train_stage(
  session: _Session, stage: base.Stage, start: int, state: Any, step: int
) -> tuple[Any, Outcome]:
  """Trains a stage that begins at global step `start`, from `step` on."""
  training = session.task.training
  _warn_of_empty(session.task, state)
  while step < stage.num_steps:
    num_steps = min(training.log_every, stage.num_steps - step)
    of_run = session.task, session.storage, stage, session.seed
    state, metrics = train_chunk(*of_run, state, step, num_steps)
    if not math.isfinite(metrics['loss']):
      message = f'the loss is {metrics["loss"]} by step {step + num_steps}'
      return state, session.outcome('diverged', start + step, message)
    step += num_steps
    now, is_last = start + step, step == stage.num_steps
    session.write(now, stage.labels, {'split': 'train', **metrics})
    session.on_progress(now, {**stage.labels, **metrics})
    is_saved = is_last or step % training.checkpoint_every == 0
    is_evaluated = is_last or step % training.eval_every == 0
    if is_saved or is_evaluated:
      multihost.check_same(state)
    if is_evaluated:
      _warn_of_empty(session.task, state)
      metrics = base.to_floats(stage.evaluate(state))
      session.write(now, stage.labels, {'split': 'validation', **metrics})
    if is_last:
      state, rows = stage.finish(session.seed, state)
      for row in [*rows, *stage.report(session.seed, state)]:
        session.write(now, stage.labels, row)
    is_stopped = session.interrupt.agree() and now < session.task.num_steps
    if is_stopped or is_saved:
      session.save(now, state, keep_always=is_last)
    if is_stopped:
      return state, session.outcome('interrupted', now)
  return state, session.outcome('done', start + step)


def _warn_of_empty(task: base.Task, state: base.State) -> None:
  masks = task.steps.masks(storage_lib.on_device(state))
  sparsity.distributions.warn_of_empty(masks)


def train_chunk(
  task: base.Task,
  storage: storage_lib.Storage,
  stage: base.Stage,
  seed: int,
  state: base.State,
  first_step: int,
  num_steps: int,
) -> tuple[base.State, dict[str, float]]:
  """Returns the state after some steps of a stage, and their metrics."""
  steps, key = task.steps, stage.key(seed)
  before = storage.offload(steps.masks(storage_lib.on_device(state)))
  events, parts, step = stage.counters(), [], first_step
  for inputs, num in stage.batches(seed, first_step, num_steps):
    fixed = (np.uint32(seed), key, inputs)

    def advance(state, first, last, fixed=fixed):
      return steps.advance(state, *fixed, first, last, stage.is_training)

    def measure(state, i, fixed=fixed):
      return steps.measure(state, *fixed, i, stage.is_training)

    state, sums = storage_lib.make_steps(
      storage, advance, measure, state, step, num
    )
    parts.append(sums)
    step += num
  means = jax.tree.map(lambda x: x / num_steps, storage_lib.add_all(parts))
  metrics = base.to_floats(
    steps.summarize(storage_lib.on_device(state), means, before)
  )
  if 'skipped' in metrics:  # the number of steps, not their share
    metrics['skipped'] = float(round(metrics['skipped'] * num_steps))
  for name, count in stage.counters().items():
    metrics[name] = multihost.total(count - events[name])
  return state, metrics | stage.derive(metrics)
