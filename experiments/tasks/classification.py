"""The loss of classification, in training and in evaluation.

B: examples of a batch.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from experiments import mesh as mesh_lib
from experiments.tasks import base

Metrics = dict[str, jax.Array]


class Batch(NamedTuple):
  """Some examples."""

  inputs: jax.Array  # [B, ...]
  labels: jax.Array  # int32 [B]
  task: jax.Array | None = None  # int32 [B] from 0, in continual learning


def batch_shapes(
  example_shape: tuple[int, ...], training: base.Training
) -> Batch:
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
  if not 0 <= label_smoothing < 1:
    raise ValueError(
      f'expected label_smoothing in [0, 1), got {label_smoothing}'
    )

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


def totals(logits: jax.Array, labels: jax.Array, counts: jax.Array) -> Metrics:
  """Returns sums over a batch; `counts` [B] is 0 for padding, otherwise 1."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return {
    'loss': jnp.sum(counts * losses),
    'accuracy': jnp.sum(counts * (jnp.argmax(logits, -1) == labels)),
    'count': jnp.sum(counts),
  }


def means(sums: Metrics) -> Metrics:
  """Returns the mean loss and accuracy, from the sums of `totals`."""
  return {name: sums[name] / sums['count'] for name in ('loss', 'accuracy')}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean negative log-likelihood of the labels, in nats."""
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )
