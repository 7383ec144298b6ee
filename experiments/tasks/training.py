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
  num_steps: int  # of a stage
  mesh: jax.sharding.Mesh
  log_every: int  # steps of a chunk
  eval_every: int
  checkpoint_every: int
  keep_checkpoints: int
  skip_nonfinite: bool
  sizes: dict[str, int]  # further keys, such as 'eval_batch_size'


def make_training(section: dict, sizes: Sequence[str] = ()) -> Training:
  """Returns the section `config.train`, checked.

  Args:
    section: the keys of `_training`, and `sizes`.
    sizes: names of further integers, such as 'eval_batch_size'.

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
  training = build.call(_training, shared, name='config.train')
  return training._replace(sizes=own)


def _training(
  *,
  batch_size: int,
  num_micro: int,
  num_devices: int | None,
  num_steps: int,
  log_every: int,
  eval_every: int,
  checkpoint_every: int,
  keep_checkpoints: int,
  on_not_finite: str,
) -> Training:
  build.check_least(
    'config.train',
    1,
    batch_size=batch_size,
    num_micro=num_micro,
    num_steps=num_steps,
    log_every=log_every,
    eval_every=eval_every,
    checkpoint_every=checkpoint_every,
    keep_checkpoints=keep_checkpoints,
  )
  for name, value in (
    ('eval_every', eval_every), ('checkpoint_every', checkpoint_every),
  ):  # fmt: skip
    if value % log_every:
      raise ValueError(
        f'config.train.{name}: expected a multiple of log_every={log_every}, '
        f'got {value}'
      )
  if on_not_finite not in step_lib.ON_NOT_FINITE:
    raise ValueError(
      'config.train.on_not_finite: expected one of '
      f'{step_lib.ON_NOT_FINITE}, got {on_not_finite!r}'
    )
  mesh = mesh_lib.make_mesh(num_devices)
  mesh_lib.check_batch_size(batch_size, mesh, num_micro)
  return Training(
    batch_size,
    num_micro,
    num_steps,
    mesh,
    log_every,
    eval_every,
    checkpoint_every,
    keep_checkpoints,
    on_not_finite == 'skip',
    {},
  )
