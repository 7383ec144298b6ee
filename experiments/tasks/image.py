"""Image classification: from a config to a task.

B: examples of a batch; N: batches.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments import mesh as mesh_lib
from experiments import methods
from experiments import storage as storage_lib
from experiments.data import dataset
from experiments.data import table as data_table
from experiments.models import table as model_table
from experiments.tasks import base
from experiments.tasks import classification
from experiments.tasks import pruning
import sparsity

HISTOGRAM = {'num_bins': 201, 'limit': 0.3}


def image_classification(
  *,
  data: dict,
  model: dict,
  powerprop: dict,
  method: dict,
  optimizer: dict,
  loss: dict,
  train: dict,
  prune: dict,
) -> base.Task:
  """Returns the task of a config."""
  source = build.build(data_table.SOURCES, data, name='config.data')
  training = base.make_training(classification.Training, train)
  mesh_lib.check_batch_size(
    training.eval_batch_size, training.mesh, name='train.eval_batch_size'
  )
  network, loss_fn = _make_network(model, loss, source)
  full = {'compute_dtype': 'float32'} if 'compute_dtype' in model else {}
  _, full_loss = _make_network({**model, **full}, loss, source)
  made = methods.make_method(method, powerprop, optimizer, training.mesh.size)

  def init(key):
    return network.init(key, jnp.zeros((1, *source.example_shape)), True)

  params, net_state = jax.eval_shape(init, jax.random.key(0))
  levels = build.call(
    pruning.make_levels, prune, name='config.prune', params=params
  )
  # The data are read at the first use.
  load = functools.cache(source.load)
  make_feed, batch_at = classification.FEEDS[source.is_stream]
  feed = functools.cache(lambda: make_feed(network, load(), training))
  return base.make_task(
    title=f'{model["name"]} on {data["name"]}',
    loss=loss_fn,
    method=made,
    training=training,
    init=init,
    batch=classification.batch_shapes(source.example_shape, training),
    batch_at=batch_at,
    in_loop=not source.is_stream,
    scores=_make_scores(full_loss, init, training, feed, batch_at),
    make_stages=lambda begin: (
      _make_stage(made, begin, training, levels, feed),
    ),
    example=_example(network, source, net_state),
    check_data=lambda: _check_data(load(), training),
  )


def _make_network(model: dict, loss: dict, source: dataset.Source):
  """Returns the network of a section, and its loss."""
  network = build.build(
    model_table.MODELS,
    model,
    name='config.model',
    num_classes=source.num_classes,
  )
  return network, build.call(
    classification.make_loss,
    loss,
    name='config.loss',
    network=network,
    augment=source.augment,
  )


def _example(network, source: dataset.Source, net_state) -> base.Example:
  image = jax.ShapeDtypeStruct((1, *source.example_shape), jnp.float32)
  return base.Example(
    lambda params, net_state, images: network.apply(
      params, net_state, None, images, False
    )[0],
    (net_state, image),
  )


def _check_data(data: Any, training: base.Training) -> None:
  is_stream = isinstance(data, dataset.Stream)
  num = data.num_train if is_stream else len(data.train.labels)
  if training.batch_size > num:
    raise ValueError(
      f'config.train.batch_size: expected 1 to {num}, the number of training '
      f'examples, got {training.batch_size}'
    )


def _make_scores(loss_fn, init, training, feed, batch_at):
  """Returns the function from a seed to the saliency of the initial theta."""
  replicated = mesh_lib.replicated(training.mesh)

  @functools.partial(jax.jit, out_shardings=replicated)
  def saliency(seed, inputs):
    key = methods.init_key(seed)
    weights, net_state = init(key)

    def loss(weights, batch):
      return loss_fn(weights, net_state, key, batch, True)[0]

    return sparsity.saliency(loss, weights, [batch_at(inputs, 0)])

  def scores(seed):
    [(inputs, _)] = feed().batches(seed, 0, 1)
    return saliency(np.uint32(seed), inputs)

  return scores


def _make_stage(method, begin, training, levels, feed) -> base.Stage:
  replicated = mesh_lib.replicated(training.mesh)
  forward_weights = jax.jit(
    functools.partial(methods.forward_weights, method),
    out_shardings=replicated,
  )
  prune = jax.jit(pruning.at_level, out_shardings=replicated)

  def evaluate(state):
    weights = forward_weights(storage_lib.on_device(state))
    return feed().evaluate(weights, state.net_state, 'validation')

  def report(seed, state):
    before = forward_weights(base.unpack(method, begin(seed, None)))
    after = forward_weights(base.unpack(method, state))
    test = feed().evaluate(after, state.net_state, 'test')
    rows = [{'split': 'test', **base.to_floats(test)}]
    for level, share in enumerate(levels.shares):
      kept = {path: counts[level] for path, counts in levels.kept.items()}
      pruned, metrics = prune(after, before, kept)
      metrics |= feed().evaluate(pruned, state.net_state, 'test')
      row = {'split': 'pruned', 'share': share, **base.to_floats(metrics)}
      # Levels above the density of the network repeat the one below.
      if row['density'] > max(r.get('density', 0.0) for r in rows):
        rows.append(row)
    for when, weights in (('before', before), ('after', after)):
      bins = pruning.histogram(weights, **HISTOGRAM)
      rows.append({'split': 'histogram', 'when': when, **bins})
    return rows

  return base.Stage(
    num_steps=training.num_steps,
    labels={},
    begin=begin,
    key=functools.partial(methods.training_key, prng=training.prng),
    batches=lambda *chunk: feed().batches(*chunk),
    evaluate=evaluate,
    report=report,
    counters=lambda: feed().counters(),
  )
