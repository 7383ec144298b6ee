"""What an experiment is to the command that runs it."""

from collections.abc import Callable
from collections.abc import Sequence
import math
import pathlib
from typing import Any
from typing import NamedTuple

import jax
import rich.console

from experiments.common import loop

PLATFORMS = ('cpu', 'cuda', 'tpu')


class Experiment(NamedTuple):
  """A config, checked and built."""

  units: tuple[loop.Unit, ...]
  schedule: loop.Schedule
  keep: int  # checkpoints that rotate
  # (rows of metrics, folder for plots or None, console) -> summary; prints the
  # results and draws the plots
  report: Callable[
    [Sequence[loop.Row], pathlib.Path | None, rich.console.Console],
    dict[str, Any],
  ]
  # What a run keeps beside its checkpoints, such as a vocabulary: raises
  # ValueError if that in a folder, should it be there, is another one ...
  check: Callable[[pathlib.Path], None] = lambda workdir: None
  # ... and writes it into the folder of a run that begins.
  write: Callable[[pathlib.Path], None] = lambda workdir: None


class Outline(NamedTuple):
  """An experiment as far as it is known without data, devices or memory."""

  title: str
  params: Any  # shapes of the parameters
  step: Callable[..., Any]  # one training step, to be jitted
  arguments: tuple[Any, ...]  # shapes of its arguments, the state first
  notes: tuple[str, ...] = ()  # further lines, such as densities


def dry_run(outline: Outline) -> list[str]:
  """Returns lines on an experiment; its step is lowered on every platform.

  Neither those platforms nor the memory for the arrays are needed.

  Raises:
    Exception: Whatever lowering the step raises.
  """
  exported = jax.export.export(
    jax.jit(outline.step),
    platforms=PLATFORMS,
    # Kernels of compact weights: what is lowered here is not stored.
    disabled_checks=[jax.export.DisabledSafetyCheck.custom_call('ALL')],
  )(*outline.arguments)
  state, *inputs = outline.arguments
  return [
    outline.title,
    f'  parameters    {_num_entries(outline.params):>16,}',
    f'  state         {_num_bytes(state):>16,} bytes',
    f'  a batch       {_num_bytes(inputs):>16,} bytes',
    *(f'  {note}' for note in outline.notes),
    f'  the training step lowers for {", ".join(exported.platforms)}',
  ]


def _num_entries(tree: Any) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _num_bytes(tree: Any) -> int:
  return sum(
    math.prod(x.shape) * jax.numpy.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
    if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  )
