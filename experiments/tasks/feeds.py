"""Batches of images, from arrays on the device or from a stream.

B: examples of a batch; N: batches; S: steps of a chunk.
"""

from collections.abc import Callable
import functools
import itertools
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments import step as step_lib
from experiments.data import dataset
from experiments.tasks import base
from experiments.tasks import classification


class Feed(NamedTuple):
  """How examples reach the device."""

  # (seed, first step, number of steps) -> (inputs of a chunk, its steps)
  batches: Callable[..., Any]
  # (weights, network state, 'validation' or 'test') -> metrics
  evaluate: Callable[[Any, Any, str], step_lib.Metrics]
  # (seed, number) -> first training batches, leaves [number, B, ...]
  first_batches: Callable[[int, int], Any]
  counters: Callable[[], dict[str, float]] = dict


def indexed_batch(inputs: Any, i: jax.Array) -> classification.Batch:
  """Returns batch `i` of a chunk of `array_feed`."""
  indices, examples = inputs
  return jax.tree.map(lambda x: x[indices[i]], examples)


def streamed_batch(inputs: Any, i: jax.Array) -> classification.Batch:
  """Returns the one batch of a chunk of `stream_feed`."""
  del i
  return inputs


def array_feed(
  network: hk.TransformedWithState,
  arrays: dataset.Arrays,
  training: base.Training,
) -> Feed:
  """Returns the feed of examples on the device: one dispatch a chunk."""
  mesh = training.mesh
  replicated = mesh_lib.replicated(mesh)
  examples = mesh_lib.to_devices(_batch(arrays.train), replicated)
  splits = {
    name: mesh_lib.to_devices(
      _in_batches(getattr(arrays, name), training.sizes['eval_batch_size']),
      mesh_lib.over_data(mesh, 1),
    )
    for name in ('validation', 'test')
  }

  @functools.partial(jax.jit, out_shardings=replicated)
  def evaluate(weights, net_state, split):
    sums = jax.lax.map(
      lambda part: _totals(network, weights, net_state, *part), split
    )
    return classification.means(jax.tree.map(lambda x: jnp.sum(x, 0), sums))

  def indices(*chunk):
    num_examples = len(arrays.train.labels)
    return dataset.batch_indices(*chunk, training.batch_size, num_examples)

  def batches(seed, first_step, num_steps):
    chosen = mesh_lib.to_devices(
      indices(seed, first_step, num_steps), mesh_lib.over_data(mesh, 1)
    )
    yield (chosen, examples), num_steps

  def first_batches(seed, num):
    chosen = indices(seed, 0, num)
    return jax.tree.map(lambda x: x[chosen], _batch(arrays.train))

  return Feed(
    batches,
    lambda weights, net_state, split: evaluate(
      weights, net_state, splits[split]
    ),
    first_batches,
  )


def stream_feed(
  network: hk.TransformedWithState,
  stream: dataset.Stream,
  training: base.Training,
) -> Feed:
  """Returns the feed of examples read while training: one dispatch a step."""
  over_data = mesh_lib.over_data(training.mesh)
  processes = dict(
    process_index=jax.process_index(), process_count=jax.process_count()
  )
  totals = jax.jit(
    functools.partial(_totals, network),
    out_shardings=mesh_lib.replicated(training.mesh),
  )
  following = {}  # the open iterator, by seed and next step

  def read(seed, first_step):
    size = training.batch_size
    return iter(
      stream.train(
        seed=seed, first_step=first_step, batch_size=size, **processes
      )
    )

  def batches(seed, first_step, num_steps):
    examples = following.pop((seed, first_step), None)
    if examples is None:
      examples = read(seed, first_step)
    for _ in range(num_steps):
      yield mesh_lib.from_shares(_batch(next(examples)), over_data), 1
    following.clear()
    following[seed, first_step + num_steps] = examples

  def evaluate(weights, net_state, split):
    sums = None
    for examples, counts in stream.evaluate(
      split=split, batch_size=training.sizes['eval_batch_size'], **processes
    ):
      part = mesh_lib.from_shares((_batch(examples), counts), over_data)
      more = totals(weights, net_state, *part)
      sums = more if sums is None else jax.tree.map(jnp.add, sums, more)
    return classification.means(sums)

  def first_batches(seed, num):
    taken = [_batch(x) for x in itertools.islice(read(seed, 0), num)]
    return jax.tree.map(lambda *xs: np.stack(xs), *taken)

  return Feed(
    batches,
    evaluate,
    first_batches,
    lambda: {'quarantined': stream.skipped()},
  )


def _totals(network, weights, net_state, batch, counts):
  logits, _ = network.apply(weights, net_state, None, batch.inputs, False)
  return classification.totals(logits, batch.labels, counts)


def _batch(examples: dataset.Examples) -> classification.Batch:
  return classification.Batch(examples.inputs, examples.labels)


def _in_batches(examples: dataset.Examples, batch_size: int):
  """Returns a batch [N, B, ...] and float32 counts [N, B], 0 for padding."""
  num = len(examples.labels)
  counts = np.ones(num, np.float32)

  def reshape(x):
    pads = [(0, -num % batch_size)] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, pads).reshape(-1, batch_size, *x.shape[1:])

  return jax.tree.map(reshape, (_batch(examples), counts))
