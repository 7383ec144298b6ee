"""What the config of a stream of tasks says, before any data are read."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import members
from experiments.common import build as build_lib
from experiments.common import loop
from experiments.common import methods
from experiments.common import optimizer as optimizers
from experiments.common import step as step_lib
from experiments.continual import packing
from experiments.continual import state as state_lib
from experiments.continual import strategies
from experiments.continual import units as units_lib
from experiments.data import image_tasks
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
from experiments.models import table as model_table
from powerprop import packnet

TASKS = {
  'cifar': image_tasks.cifar_tasks,
  'permuted_mnist': tasks_lib.permuted_mnist,
  'rotated_mnist': tasks_lib.rotated_mnist,
  'split_images': image_tasks.split_images,
  'split_mnist': tasks_lib.split_mnist,
}
STRATEGIES = {
  'alone': strategies.alone,
  'efficient_packnet': packing.efficient_packnet,
  'ewc': strategies.ewc,
  'fine_tuning': strategies.fine_tuning,
  'joint': strategies.joint,
  'l2': strategies.l2,
  'packnet': packing.packnet_strategy,
}
HEADS = ('per_task', 'shared')


class Plan(NamedTuple):
  """What a config says, checked, before any data are read."""

  seeds: tuple[int, ...]
  settings: tuple[state_lib.Settings, ...]  # of each alpha
  testing: units_lib.Testing
  schedule: loop.Schedule
  num_steps: int  # of a task
  keep: int  # checkpoints that rotate


def make_plan(
  *,
  seeds: tuple[int, ...],
  tasks: dict,
  model: dict,
  heads: str,
  powerprop: dict,
  strategy: dict,
  optimizer: dict,
  loss: dict,
  train: dict,
  test: dict,
) -> Plan:
  """Returns what a config says, without reading data.

  Args:
    seeds: of networks and batches, each of its own, at least 0.
    tasks: the section of one of `TASKS`.
    model: the section of a network.
    heads: 'per_task' or 'shared' output layers.
    powerprop: the parameterization: `alphas` and `optimizer_in`.
    strategy: the section of one of `STRATEGIES`.
    optimizer: the section of an optimizer.
    loss: `label_smoothing`.
    train: sizes of batches, steps of each task, and what happens how often.
    test: `every` how many tasks all that are learned are tested, and whether to
      `check_forgetting`.

  Raises:
    ValueError: If anything in a section is unknown, missing, mistyped or out of
      range.
  """
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise ValueError(
      f'config.seeds: expected different seeds, each >= 0, got {seeds}'
    )
  alphas, optimizer_in = build_lib.call(
    members.parameterization, powerprop, name='config.powerprop'
  )
  training = build_lib.call(_training, train, name='config.train')
  stream = build_lib.build(TASKS, tasks, name='config.tasks')
  network = _make_network(model, heads, stream)
  inner = build_lib.build(
    optimizers.OPTIMIZERS, optimizer, name='config.optimizer'
  )
  settings = tuple(
    state_lib.Settings(
      stream,
      network,
      _make_strategy(strategy, network, len(stream.tasks)),
      _make_optimizer(inner, alpha, optimizer_in),
      alpha,
      build_lib.call(_loss, loss, name='config.loss'),
      training.batch_size,
      training.eval_batch_size,
      training.skips,
    )
    for alpha in alphas
  )
  return Plan(
    seeds,
    settings,
    build_lib.call(_testing, test, name='config.test'),
    training.schedule,
    training.num_steps,
    training.keep,
  )


def _make_network(model: dict, heads: str, stream) -> heads_lib.Heads:
  if heads not in HEADS:
    raise ValueError(f'config.heads: expected one of {HEADS}, got {heads!r}')

  def make_network(num_classes):
    return build_lib.build(
      model_table.MODELS, model, name='config.model', num_classes=num_classes
    )

  return heads_lib.make_heads(
    make_network,
    jax.ShapeDtypeStruct((1, *stream.example_shape), jnp.float32),
    num_classes=stream.num_classes,
    num_heads=len(stream.tasks) if heads == 'per_task' else 1,
  )


def _make_strategy(section: dict, heads, num_tasks) -> strategies.Strategy:
  """Returns the strategy; some need to know how many tasks there are."""
  more: dict[str, Any] = {'heads': heads}
  name = section.get('name') if hasattr(section, 'keys') else None
  if name in ('packnet', 'efficient_packnet'):
    more['num_tasks'] = num_tasks
  return build_lib.build(STRATEGIES, section, name='config.strategy', **more)


def _make_optimizer(inner, alpha: float, optimizer_in: str):
  optimizer = methods.make_optimizer(
    methods.dense(storage='masked'),
    inner,
    alpha=alpha,
    optimizer_in=optimizer_in,
    seed=0,
  )
  return packnet.freeze(optimizer)


class _Training(NamedTuple):
  schedule: loop.Schedule
  batch_size: int
  eval_batch_size: int
  num_steps: int
  keep: int
  skips: bool


def _training(
  *,
  batch_size: int,
  eval_batch_size: int,
  num_steps: int,
  log_every: int,
  eval_every: int,
  checkpoint_every: int,
  keep_checkpoints: int,
  on_not_finite: str,
) -> _Training:
  build_lib.check_least(
    'config.train',
    1,
    batch_size=batch_size,
    eval_batch_size=eval_batch_size,
    num_steps=num_steps,
    keep_checkpoints=keep_checkpoints,
  )
  schedule = loop.make_schedule(
    log_every=log_every,
    eval_every=eval_every,
    checkpoint_every=checkpoint_every,
  )
  return _Training(
    schedule,
    batch_size,
    eval_batch_size,
    num_steps,
    keep_checkpoints,
    step_lib.is_skipping(on_not_finite),
  )


def _testing(*, every: int, check_forgetting: bool) -> units_lib.Testing:
  build_lib.check_least('config.test', 1, every=every)
  return units_lib.Testing(every, check_forgetting)


def _loss(*, label_smoothing: float) -> float:
  if not 0 <= label_smoothing < 1:
    raise ValueError(
      f'config.loss.label_smoothing: expected in [0, 1), got {label_smoothing}'
    )
  return label_smoothing
