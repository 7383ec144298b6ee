"""Many tasks one after another in one network: from a config to units."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.common import build as build_lib
from experiments.common import loop
from experiments.common import methods
from experiments.common import optimizer as optimizers
from experiments.continual import learner as learner_lib
from experiments.continual import packing
from experiments.continual import strategies
from experiments.continual import units as units_lib
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
from experiments.models import table as model_table
from powerprop import packnet

TASKS = {
  'permuted_mnist': tasks_lib.permuted_mnist,
  'rotated_mnist': tasks_lib.rotated_mnist,
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


class Experiment(NamedTuple):
  """A config, checked and built."""

  units: tuple[loop.Unit, ...]
  schedule: loop.Schedule
  keep: int  # checkpoints that rotate


def build(
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
) -> Experiment:
  """Returns the experiment that the sections of a config describe.

  One network is trained for each alpha and each seed, on the same tasks; those
  of one seed see the same batches and begin with the same theta.

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
      range, or the data are not there; before any training.
  """
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise ValueError(
      f'config.seeds: expected different seeds, each >= 0, got {seeds}'
    )
  if heads not in HEADS:
    raise ValueError(f'config.heads: expected one of {HEADS}, got {heads!r}')
  alphas, optimizer_in = build_lib.call(
    _parameterization, powerprop, name='config.powerprop'
  )
  training = build_lib.call(_training, train, name='config.train')
  testing = build_lib.call(_testing, test, name='config.test')
  label_smoothing = build_lib.call(_loss, loss, name='config.loss')
  inner = build_lib.build(
    optimizers.OPTIMIZERS, optimizer, name='config.optimizer'
  )
  stream = build_lib.build(TASKS, tasks, name='config.tasks')
  network = _make_network(model, heads, stream)
  made = _make_strategy(strategy, network, len(stream.tasks))
  _check_batch_size(training.batch_size, stream)
  units = []
  for alpha in alphas:
    settings = learner_lib.Settings(
      network,
      made,
      _make_optimizer(inner, alpha, optimizer_in),
      alpha,
      label_smoothing,
      training.batch_size,
      training.eval_batch_size,
    )
    learner = learner_lib.make_learner(stream, settings)
    for seed in seeds:
      member = units_lib.Member(
        learner, settings, testing, len(stream.tasks), seed
      )
      units += units_lib.make_units(member, training.num_steps)
  return Experiment(tuple(units), training.schedule, training.keep)


def _make_network(model: dict, heads: str, stream) -> heads_lib.Heads:
  def make_network(num_classes):
    return build_lib.build(
      model_table.MODELS, model, name='config.model', num_classes=num_classes
    )

  shape = stream.examples.train.inputs.shape[1:]
  return heads_lib.make_heads(
    make_network,
    jax.ShapeDtypeStruct((1, *shape), jnp.float32),
    num_classes=stream.num_classes,
    num_heads=len(stream.tasks) if heads == 'per_task' else 1,
  )


def _make_strategy(section: dict, heads, num_tasks) -> strategies.Strategy:
  """Returns the strategy; some need to know how many tasks there are."""
  more: dict[str, Any] = {'heads': heads}
  if 'packnet' in section['name']:
    more['num_tasks'] = num_tasks
  return build_lib.build(STRATEGIES, section, name='config.strategy', **more)


def _make_optimizer(inner, alpha: float, optimizer_in: str):
  optimizer = methods.make_optimizer(
    methods.dense(), inner, alpha=alpha, optimizer_in=optimizer_in, seed=0
  )
  return packnet.freeze(optimizer)


def _check_batch_size(batch_size: int, stream) -> None:
  smallest = min(len(task.rows['train']) for task in stream.tasks)
  if batch_size > smallest:
    raise ValueError(
      f'config.train.batch_size: expected 1 to {smallest}, the number of '
      f'training examples of the smallest task, got {batch_size}'
    )


class _Training(NamedTuple):
  schedule: loop.Schedule
  batch_size: int
  eval_batch_size: int
  num_steps: int
  keep: int


def _training(
  *,
  batch_size: int,
  eval_batch_size: int,
  num_steps: int,
  log_every: int,
  eval_every: int,
  checkpoint_every: int,
  keep_checkpoints: int,
) -> _Training:
  for name, value in {
    'batch_size': batch_size,
    'eval_batch_size': eval_batch_size,
    'num_steps': num_steps,
    'keep_checkpoints': keep_checkpoints,
  }.items():
    if value < 1:
      raise ValueError(f'config.train.{name}: expected >= 1, got {value}')
  schedule = loop.make_schedule(
    log_every=log_every,
    eval_every=eval_every,
    checkpoint_every=checkpoint_every,
  )
  return _Training(
    schedule, batch_size, eval_batch_size, num_steps, keep_checkpoints
  )


def _testing(*, every: int, check_forgetting: bool) -> units_lib.Testing:
  if every < 1:
    raise ValueError(f'config.test.every: expected >= 1, got {every}')
  return units_lib.Testing(every, check_forgetting)


def _loss(*, label_smoothing: float) -> float:
  return label_smoothing


def _parameterization(*, alphas: tuple[float, ...], optimizer_in: str):
  if not alphas or len(set(alphas)) < len(alphas):
    raise ValueError(
      f'config.powerprop.alphas: expected different, got {alphas}'
    )
  if bad := [alpha for alpha in alphas if not alpha >= 1]:
    raise ValueError(f'config.powerprop.alphas: expected alpha >= 1, got {bad}')
  if optimizer_in not in methods.SPACES:
    raise ValueError(
      f'config.powerprop.optimizer_in: expected one of {methods.SPACES}, got '
      f'{optimizer_in!r}'
    )
  return alphas, optimizer_in
