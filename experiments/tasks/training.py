"""The section `config.train`, which all tasks share."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from experiments import build
from experiments import mesh as mesh_lib
from experiments import step as step_lib


class Training(NamedTuple):
  """The section `config.train`, checked."""

  batch_size: int
  num_micro: int
  num_devices: int | None
  num_steps: int  # of a stage
  log_every: int  # steps of a chunk
  eval_every: int
  checkpoint_every: int
  keep_checkpoints: int
  on_not_finite: str
  mesh: jax.sharding.Mesh
  sizes: dict[str, int]  # further keys, such as 'eval_batch_size'


def make_training(section: dict, sizes: Sequence[str] = ()) -> Training:
  """Returns the section `config.train`, checked; `sizes` are further integers.

  Raises:
    ValueError: If a key is unknown, missing, mistyped or out of range, or the
      devices do not divide the batch.
  """
  own = {name: x for name, x in section.items() if name in sizes}
  shared = {name: x for name, x in section.items() if name not in sizes}
  for name in sizes:
    if name not in own:
      raise ValueError(f'config.train: missing key {name!r}')
    if not isinstance(own[name], int) or isinstance(own[name], bool):
      raise ValueError(f'config.train.{name}: expected int, got {own[name]!r}')
  training = build.call(
    Training, shared, name='config.train', mesh=None, sizes=own
  )
  fields = training._asdict()
  kinds = Training.__annotations__
  integers = {name: x for name, x in fields.items() if kinds[name] is int}
  build.check_least('config.train', 1, **integers)
  for name in ('eval_every', 'checkpoint_every'):
    if fields[name] % training.log_every:
      raise ValueError(
        f'config.train.{name}: expected a multiple of '
        f'log_every={training.log_every}, got {fields[name]}'
      )
  if training.on_not_finite not in step_lib.ON_NOT_FINITE:
    raise ValueError(
      'config.train.on_not_finite: expected one of '
      f'{step_lib.ON_NOT_FINITE}, got {training.on_not_finite!r}'
    )
  mesh = mesh_lib.make_mesh(training.num_devices)
  mesh_lib.check_batch_size(training.batch_size, mesh, training.num_micro)
  return training._replace(mesh=mesh)
