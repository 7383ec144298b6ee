"""A pack while it is trained, and each of its runs in a folder of its own.

A pack has a folder below `packs/`, with the checkpoints and metrics of all its
networks. When it is trained each run gets what it would have alone: the rows of
its networks, one unit after another, and the last state of each unit. The rest,
the report and the summary, is made by the run's own command, to which there is
nothing left to train.
"""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import math
import pathlib
import shutil
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from experiments import image_classification
from experiments.common import build
from experiments.common import checkpoint
from experiments.common import experiment as experiment_lib
from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.sweeps import packing
from experiments.sweeps import states

FOLDER = 'packs'
FILE = 'pack.json'

_PROGRESS = ('train', 'validation')  # the rows before the last step's


class Packed(NamedTuple):
  """A run of a pack."""

  name: str
  arguments: list[str]  # of launch.py, but for --workdir
  config: dict[str, Any]


def write(folder: pathlib.Path, runs: Sequence[Packed]) -> None:
  """Writes which runs are of a pack."""
  folder.mkdir(parents=True, exist_ok=True)
  run_lib.write_json(folder / FILE, [run._asdict() for run in runs])


def train(folder: pathlib.Path, main: Callable[[Sequence[str]], int]) -> int:
  """Trains a pack, or what is left of it; returns the exit code.

  Args:
    folder: of the pack, which `write` made; it is deleted in the end.
    main: of launch.py.
  """
  runs = [Packed(**run) for run in run_lib.read_json(folder / FILE)]
  experiment = packing.build([run.config for run in runs])
  [unit] = experiment.units
  directories = [
    run_lib.open_run(folder.parent.parent / run.name, run.config)
    for run in runs
  ]
  for directory in _unfinished(directories):
    directory.write_status('running', total_steps=unit.num_steps)
  outcome = loop.run(
    experiment.units,
    experiment.schedule,
    run_lib.Run(folder),
    keep=experiment.keep,
  )
  if outcome.status == 'interrupted':
    for directory in _unfinished(directories):
      directory.write_status('interrupted', global_step=0)
    return 128 + outcome.signal
  codes = [0]
  for index, directory in enumerate(directories):
    if directory in _unfinished(directories):
      ended = _unpack(folder, experiment, runs, index, directory)
      if ended:
        arguments = [*runs[index].arguments, f'--workdir={directory.workdir}']
        codes.append(main(arguments))
  if not any(codes):
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # there are others
      folder.parent.rmdir()
  return max(codes)


def _unfinished(directories: Sequence[run_lib.Run]) -> list[run_lib.Run]:
  return [
    directory
    for directory in directories
    if states.read(directory.workdir).status not in states.ENDED
  ]


def _unpack(
  folder: pathlib.Path,
  experiment: experiment_lib.Experiment,
  runs: Sequence[Packed],
  index: int,
  directory: run_lib.Run,
) -> bool:
  """Writes the rows and states of one run; returns whether it ended well."""
  [unit] = experiment.units
  for name in ('checkpoints', 'tensorboard'):
    shutil.rmtree(directory.workdir / name, ignore_errors=True)
  (directory.workdir / metrics.FILE).unlink(missing_ok=True)
  rows = metrics.read(folder)
  pack = checkpoint.Checkpoints(folder / 'checkpoints', experiment.keep)
  state, metadata = pack.restore(unit.like(), unit.num_steps)
  own = checkpoint.Checkpoints(
    directory.workdir / 'checkpoints', experiment.keep
  )
  share = metadata['seconds'] / len(unit.members)
  position, seconds = 0, 0.0
  with metrics.Writer(directory.workdir, None) as writer:
    for numbers in _units(unit, runs[index].config, index):
      of_members = [_rows_of(rows, unit.members[i]) for i in numbers]
      diverged = _divergence(of_members)
      for member, row in _in_order(of_members, diverged):
        names = {name: unit.members[numbers[member]][name]
                 for name in ('alpha', 'seed')}  # fmt: skip
        writer.write(position + row.pop('global_step'), row, member=names)
      if diverged is not None:
        _write_divergence(directory, unit, numbers, of_members, position)
        return False
      position += unit.num_steps
      seconds += share * len(numbers)
      chosen = np.array(numbers)
      own.save(
        position,
        jax.tree.map(lambda x, chosen=chosen: x[chosen], state),
        {'global_step': position, 'seconds': seconds},
        keep_always=True,
      )
  return True


def _units(unit: loop.Unit, config, index: int) -> list[list[int]]:
  """Returns the members of each unit that the run has when it is alone."""
  sections = {name: x for name, x in config.items() if name != 'experiment'}
  alone = build.call(image_classification.build, sections).units
  numbers = {
    (member['alpha'], member['seed']): i
    for i, member in enumerate(unit.members)
    if member['run'] == index
  }
  return [
    [numbers[member['alpha'], member['seed']] for member in one.members]
    for one in alone
  ]


def _rows_of(rows, member) -> list[dict[str, Any]]:
  """Returns the rows of a member, without what names it."""
  return [
    {name: x for name, x in row.items() if name not in member}
    for row in rows
    if all(row[name] == x for name, x in member.items())
  ]


def _divergence(of_members) -> int | None:
  """Returns the first step at which a loss was not finite, if there is one."""
  steps = [
    row['step']
    for rows in of_members
    for row in rows
    if row['split'] == 'train' and row['loss'] == packing.DIVERGED
  ]
  return min(steps, default=None)


def _in_order(of_members, until: int | None):
  """Yields (member, row) as the loop writes them, those before a step."""
  progress = [
    [row for row in rows if row['split'] in _PROGRESS] for rows in of_members
  ]
  for together in zip(*progress, strict=True):
    for member, row in enumerate(together):
      if until is None or row['step'] < until:
        yield member, dict(row)
  if until is None:
    for member, rows in enumerate(of_members):
      for row in rows:
        if row['split'] not in _PROGRESS:
          yield member, dict(row)


def _write_divergence(directory, unit, numbers, of_members, position) -> None:
  """Writes the status that the run has when it diverges alone."""
  step = _divergence(of_members)
  member = next(
    unit.members[i]
    for i, rows in zip(numbers, of_members, strict=True)
    if _divergence([rows]) == step
  )
  before = [row['step'] for row in of_members[0] if row['step'] < step]
  directory.write_status(
    'diverged',
    global_step=position + max(before, default=0),
    message=f'the loss is {math.nan} by step {step} (alpha '
    f'{member["alpha"]:g}, seed {member["seed"]:g})',
  )
