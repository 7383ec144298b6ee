"""Continual learning: from a config to a task.

T: number of tasks.
"""

import functools

import haiku as hk
import jax
import jax.numpy as jnp

from experiments import build
from experiments import methods
from experiments import storage as storage_lib
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
from experiments.models import table as model_table
from experiments.tasks import base
from experiments.tasks import classification
from experiments.tasks.continual import feed as feed_lib
from experiments.tasks.continual import packing
from experiments.tasks.continual import stages as stages_lib
from experiments.tasks.continual import strategies
from powerprop import packnet
import sparsity

TASKS = {
  'cifar': tasks_lib.cifar,
  'permuted_mnist': tasks_lib.permuted_mnist,
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


def continual_learning(
  *,
  tasks: dict,
  model: dict,
  powerprop: dict,
  strategy: dict,
  optimizer: dict,
  train: dict,
  test: dict,
) -> base.Task:
  """Returns the task of a config."""
  if jax.process_count() > 1:
    raise ValueError(
      'expected one process with continual_learning, got '
      f'{jax.process_count()}; start it without --distributed'
    )
  training = base.make_training(classification.Training, train)
  if training.shard_params:
    raise ValueError(
      'config.train.shard_params: expected False with continual learning'
    )
  stream = build.build(TASKS, tasks, name='config.tasks')
  network = heads_lib.make_heads(
    lambda num_classes: build.build(
      model_table.MODELS, model, name='config.model', num_classes=num_classes
    ),
    jax.ShapeDtypeStruct((1, *stream.example_shape), jnp.float32),
    num_classes=stream.num_classes,
    num_heads=len(stream.tasks),
  )
  made = build.build(STRATEGIES, strategy, name='config.strategy')
  testing = build.call(stages_lib.Testing, test, name='config.test')
  build.check_least('config.test', 1, every=testing.every)
  method = _make_method(powerprop, optimizer)
  num_tasks = len(stream.tasks)
  init = functools.partial(_init, network, made, stream)
  feed = feed_lib.Feed(
    stream, training, network, made.predict, method.to_weights
  )
  learner = stages_lib.Learner(made, method, init, testing, num_tasks, feed)
  batch = classification.batch_shapes(stream.example_shape, training)
  return base.make_task(
    title=f'{num_tasks} tasks of {tasks["name"]}, {strategy["name"]}',
    loss=_make_loss(network, made, stream.augment),
    method=method,
    training=training,
    init=init,
    batch=batch._replace(task=batch.labels),
    batch_at=feed_lib.batch_at,
    make_stages=lambda _: learner.stages(),
    exports=learner.exports(),
    example=None,
    check_data=lambda: _check_data(
      feed.data(), training.batch_size, made.num_examples
    ),
  )


def _init(heads: heads_lib.Heads, strategy, stream, key):
  """Returns theta and `NetState`."""
  num_tasks = len(stream.tasks)
  images = jnp.zeros((1, *stream.example_shape))
  weights, statistics = heads.init(key, images)
  memory = strategy.init(weights, statistics, heads.paths, num_tasks)
  fingerprints = jnp.zeros(num_tasks, jnp.uint32)
  return weights, strategies.NetState(statistics, memory, fingerprints)


def _make_loss(heads: heads_lib.Heads, strategy, augment):
  """Returns the loss on one task or all, with the strategy's penalty."""

  def loss(weights, net_state, key, batch, is_training):
    task = batch.task if strategy.is_joint else batch.task[0]
    apply = functools.partial(heads.apply, task=task)
    plain = classification.make_loss(
      network=hk.TransformedWithState(heads.init, apply),
      augment=augment,
      label_smoothing=0.0,
    )
    mean, (metrics, statistics) = plain(
      weights, net_state.statistics, key, batch, is_training
    )
    if strategy.penalty:
      mean += strategy.penalty(weights, net_state.memory)
    return mean, (metrics, net_state._replace(statistics=statistics))

  return loss


def _make_method(powerprop: dict, optimizer: dict) -> methods.Method:
  """Returns dense training restricted to the sets of the strategy."""
  dense = methods.make_method(
    {'name': 'dense', 'storage': 'masked'}, powerprop, optimizer, 1
  )
  tx, storage = storage_lib.masked(packnet.freeze(dense.make(0)[0]), 1)
  storage = storage._replace(forward_weights=sparsity.forward_weights)
  return dense._replace(
    make=lambda seed, scores=None: (tx, storage),
    forward_weights=sparsity.forward_weights,
    density=methods.density,
  )


def _check_data(
  data: feed_lib.Data, batch_size: int, num_examples: int
) -> None:
  """Checks that the smallest task has enough training examples."""
  smallest = min(map(len, data.rows))
  for name, num in (
    ('config.train.batch_size', batch_size),
    ('config.strategy.num_examples', num_examples),
  ):
    if num > smallest:
      raise ValueError(
        f'{name}: expected 1 to {smallest}, the number of training examples of '
        f'the smallest task, got {num}'
      )
