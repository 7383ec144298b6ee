"""Classification: the loss, and batches from arrays or from a stream.

B: examples of a batch; N: batches; S: steps of a chunk.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import build
from experiments import mesh as mesh_lib
from experiments import step as step_lib
from experiments.data import dataset
from experiments.tasks import base


class Batch(NamedTuple):
  """Some examples."""

  inputs: jax.Array  # [B, ...]
  labels: jax.Array  # int32 [B]
  task: jax.Array | None = None  # int32 [B] from 0, in continual learning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(base.Training):
  """The section `config.train` of classification."""

  eval_batch_size: int


class Feed(NamedTuple):
  """How examples reach the device."""

  # (seed, first step, number of steps) -> (inputs of a chunk, its steps)
  batches: Callable[..., Any]
  # (weights, network state, 'validation' or 'test') -> metrics
  evaluate: Callable[[Any, Any, str], step_lib.Metrics]
  counters: Callable[[], dict[str, float]] = dict


def batch_shapes(example_shape: tuple[int, ...], training: Training) -> Batch:
  """Returns the shapes of a training batch, sharded over the devices."""
  size = training.batch_size
  shapes = Batch(
    jax.ShapeDtypeStruct((size, *example_shape), jnp.float32),
    jax.ShapeDtypeStruct((size,), jnp.int32),
  )
  return mesh_lib.with_sharding(shapes, mesh_lib.over_data(training.mesh))


def make_loss(
  *,
  network: hk.TransformedWithState,
  augment: Callable[..., jax.Array] | None,
  label_smoothing: float,
) -> Callable[..., Any]:
  """Returns the mean cross-entropy of a network on augmented images, in nats.

  The true class has the label 1 - `label_smoothing`, and all classes share the
  rest evenly.
  """
  build.check_range(0, 1, label_smoothing=label_smoothing)

  def loss_fn(weights, net_state, key, batch, is_training):
    inputs = batch.inputs
    if augment is not None:
      inputs = augment(jax.random.fold_in(key, 1), inputs)
    logits, net_state = network.apply(
      weights, net_state, key, inputs, is_training
    )
    loss = cross_entropy(logits, batch.labels)
    if label_smoothing:
      even = -jnp.mean(jax.nn.log_softmax(logits))
      loss = (1 - label_smoothing) * loss + label_smoothing * even
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch.labels)
    return loss, ({'accuracy': accuracy}, net_state)

  return loss_fn


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean negative log-likelihood of the labels, in nats."""
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )


def totals(
  logits: jax.Array, labels: jax.Array, counts: jax.Array
) -> step_lib.Metrics:
  """Returns sums over a batch; `counts` [B] is 0 for padding, otherwise 1."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return {
    'loss': jnp.sum(counts * losses),
    'accuracy': jnp.sum(counts * (jnp.argmax(logits, -1) == labels)),
    'count': jnp.sum(counts),
  }


def means(sums: step_lib.Metrics) -> step_lib.Metrics:
  """Returns the mean loss and accuracy, from the sums of `totals`."""
  return {name: sums[name] / sums['count'] for name in ('loss', 'accuracy')}


def array_feed(
  network: hk.TransformedWithState,
  arrays: dataset.Arrays,
  training: Training,
) -> Feed:
  """Returns the feed of examples on the device: one dispatch a chunk."""
  mesh, num_examples = training.mesh, len(arrays.train.labels)
  replicated = mesh_lib.replicated(mesh)
  over_data = mesh_lib.over_data(mesh, 1)
  train = mesh_lib.to_devices(Batch(*arrays.train), replicated)
  splits = mesh_lib.to_devices(
    {
      name: _in_batches(getattr(arrays, name), training.eval_batch_size)
      for name in ('validation', 'test')
    },
    over_data,
  )

  @functools.partial(jax.jit, out_shardings=replicated)
  def evaluate(weights, net_state, split):
    sums = jax.lax.map(
      lambda part: _totals(network, weights, net_state, *part), split
    )
    return means(jax.tree.map(lambda x: jnp.sum(x, 0), sums))

  def batches(seed, first_step, num_steps):
    indices = dataset.batch_indices(
      seed, first_step, num_steps, training.batch_size, num_examples
    )
    yield (mesh_lib.to_devices(indices, over_data), train), num_steps

  return Feed(
    batches,
    lambda weights, net_state, split: evaluate(
      weights, net_state, splits[split]
    ),
  )


def stream_feed(
  network: hk.TransformedWithState,
  stream: dataset.Stream,
  training: Training,
) -> Feed:
  """Returns the feed of examples read while training: one dispatch a step."""
  over_data = mesh_lib.over_data(training.mesh)
  processes = dict(
    process_index=jax.process_index(), process_count=jax.process_count()
  )
  batch_totals = jax.jit(
    functools.partial(_totals, network),
    out_shardings=mesh_lib.replicated(training.mesh),
  )
  following = {}  # the open iterator, by seed and next step

  def batches(seed, first_step, num_steps):
    examples = following.pop((seed, first_step), None)
    if examples is None:
      examples = iter(
        stream.train(
          seed=seed,
          first_step=first_step,
          batch_size=training.batch_size,
          **processes,
        )
      )
    for _ in range(num_steps):
      yield mesh_lib.from_shares(Batch(*next(examples)), over_data), 1
    following.clear()
    following[seed, first_step + num_steps] = examples

  def evaluate(weights, net_state, split):
    sums = None
    for examples, counts in stream.evaluate(
      split=split, batch_size=training.eval_batch_size, **processes
    ):
      part = mesh_lib.from_shares((Batch(*examples), counts), over_data)
      more = batch_totals(weights, net_state, *part)
      sums = more if sums is None else jax.tree.map(jnp.add, sums, more)
    return means(sums)

  return Feed(batches, evaluate, lambda: {'quarantined': stream.skipped()})


def _indexed_batch(inputs: Any, i: jax.Array) -> Batch:
  indices, examples = inputs
  return jax.tree.map(lambda x: x[indices[i]], examples)


# The feed, and the batch of a step; by `dataset.Source.is_stream`.
FEEDS = {
  False: (array_feed, _indexed_batch),
  True: (stream_feed, lambda inputs, i: inputs),
}


def _totals(network, weights, net_state, batch, counts):
  logits, _ = network.apply(weights, net_state, None, batch.inputs, False)
  return totals(logits, batch.labels, counts)


def _in_batches(examples: dataset.Examples, batch_size: int):
  """Returns a batch [N, B, ...] and float32 counts [N, B], 0 for padding."""
  num = len(examples.labels)
  counts = np.ones(num, np.float32)

  def reshape(x):
    pads = [(0, -num % batch_size)] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, pads).reshape(-1, batch_size, *x.shape[1:])

  return jax.tree.map(reshape, (Batch(*examples), counts))
