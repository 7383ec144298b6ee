"""The objective of classification, in training and in evaluation."""

from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from experiments.common import step as step_lib


def make_objective(
  *,
  network: hk.TransformedWithState,
  augment: Callable[..., jax.Array] | None,
  label_smoothing: float,
) -> step_lib.Objective:
  """Returns the objective of a network that is called (images, is_training).

  The loss is the mean cross-entropy, in nats; labels are smoothed in training
  only: the own class gets 1 - `label_smoothing` and all share the rest evenly.
  Images are augmented in training only.

  Raises:
    ValueError: If `label_smoothing` is outside [0, 1).
  """
  if not 0 <= label_smoothing < 1:
    raise ValueError(
      f'expected label_smoothing in [0, 1), got {label_smoothing}'
    )

  def objective(weights, net_state, key, batch, is_training):
    inputs = batch.inputs
    if augment is not None and is_training:
      inputs = augment(jax.random.fold_in(key, 1), inputs)
    logits, net_state = network.apply(
      weights, net_state, key, inputs, is_training
    )
    loss = cross_entropy(logits, batch.labels)
    if label_smoothing and is_training:
      even = -jnp.mean(jax.nn.log_softmax(logits))
      loss = (1 - label_smoothing) * loss + label_smoothing * even
    metrics = {'accuracy': accuracy(logits, batch.labels)}
    return loss, (metrics, net_state)

  return objective


def totals(
  network: hk.TransformedWithState,
  weights,
  net_state,
  batch: step_lib.Batch,
  counts: jax.Array,
) -> step_lib.Metrics:
  """Returns sums over a batch, to be added up over batches.

  Shapes:
    counts: float32 [B], 1 for an example and 0 for padding.
  """
  logits, _ = network.apply(weights, net_state, None, batch.inputs, False)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
  is_right = jnp.argmax(logits, -1) == batch.labels
  return {
    'loss': jnp.sum(counts * losses),
    'accuracy': jnp.sum(counts * is_right),
    'count': jnp.sum(counts),
  }


def means(sums: step_lib.Metrics) -> step_lib.Metrics:
  """Returns the loss and accuracy of sums that `totals` gave."""
  return {
    name: value / sums['count']
    for name, value in sums.items()
    if name != 'count'
  }


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the share of examples whose largest logit is the label's."""
  return jnp.mean(jnp.argmax(logits, -1) == labels)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the mean negative log-likelihood of the labels, in nats."""
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )
