"""Sections of the config of a language model, checked."""

import functools
from typing import NamedTuple

import jax

from experiments.common import build as build_lib
from experiments.common import distributed
from experiments.common import loop
from experiments.common import sharding
from experiments.common import step as step_lib
from experiments.data import text


class Training(NamedTuple):
  """The section `train`, checked."""

  batch_size: int
  segment_len: int
  memory_len: int
  num_micro: int
  num_steps: int
  mesh: jax.sharding.Mesh
  schedule: loop.Schedule
  keep: int
  skips: bool


class Evaluation(NamedTuple):
  """The section `evaluation`, checked, without what the model is given."""

  batch_size: int
  segment_len: int
  memory_len: int
  num_tokens: int | None  # of a split, the first ones; None: all


def training(
  *,
  batch_size: int,
  segment_len: int,
  memory_len: int,
  num_micro: int,
  num_devices: int | None,
  model_devices: int,
  num_steps: int,
  log_every: int,
  eval_every: int,
  checkpoint_every: int,
  keep_checkpoints: int,
  on_not_finite: str,
) -> Training:
  """Returns the section `train`, checked.

  Raises:
    ValueError: If a number is too small, or the devices do not divide a batch.
  """
  build_lib.check_least(
    'config.train',
    1,
    batch_size=batch_size,
    segment_len=segment_len,
    num_micro=num_micro,
    model_devices=model_devices,
    num_steps=num_steps,
    keep_checkpoints=keep_checkpoints,
  )
  mesh = sharding.make_mesh(num_devices, model_devices)
  distributed.check_batch_size(batch_size, sharding.data_mesh(mesh), num_micro)
  schedule = loop.make_schedule(
    log_every=log_every,
    eval_every=eval_every,
    checkpoint_every=checkpoint_every,
  )
  return Training(
    batch_size,
    segment_len,
    memory_len,
    num_micro,
    num_steps,
    mesh,
    schedule,
    keep_checkpoints,
    step_lib.is_skipping(on_not_finite),
  )


def evaluation(
  *,
  batch_size: int,
  segment_len: int,
  memory_len: int,
  clamp_len: int | None,
  same_length: bool,
  num_tokens: int | None,
  mesh: jax.sharding.Mesh,
) -> tuple[Evaluation, int | None, bool]:
  """Returns the section `evaluation`, checked, and what the model is given.

  Raises:
    ValueError: As `training`.
  """
  build_lib.check_least(
    'config.evaluation', 1, batch_size=batch_size, segment_len=segment_len
  )
  build_lib.check_least('config.evaluation', 2, num_tokens=num_tokens)
  distributed.check_batch_size(batch_size, sharding.data_mesh(mesh))
  shape = Evaluation(batch_size, segment_len, memory_len, num_tokens)
  return shape, clamp_len, same_length


def check_storage(storage: str, model_devices: int) -> None:
  """Raises a `ValueError` if weights in this storage cannot be divided."""
  if storage != 'masked' and model_devices > 1:
    raise ValueError(
      f'config.train.model_devices: expected 1 with storage={storage!r}, whose '
      f'weights are whole on each device, got {model_devices}'
    )


def check_memory(section: str, memory_len: int, same_length: bool) -> None:
  """Raises a `ValueError` if the memory is too short for the attention."""
  least = 1 if same_length else 0
  if memory_len < least:
    raise ValueError(
      f'config.{section}.memory_len: expected >= {least} with '
      f'same_length={same_length}, got {memory_len}'
    )


def _check_only(source):
  """Returns a function with the arguments of `source`, that reads nothing."""

  @functools.wraps(source)
  def check(**section):
    del section

  return check


# Of `config.data`, by name: checks a section without reading the text.
TEXTS = {name: _check_only(source) for name, source in text.TEXTS.items()}
