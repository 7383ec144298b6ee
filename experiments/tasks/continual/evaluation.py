"""Loss, accuracy and fingerprint of the logits on a task; Fisher information.

N: examples; B: examples of a batch; C: classes of a task.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.data import dataset
from experiments.data import views as views_lib
from experiments.tasks.continual import feed


def evaluate(
  logits_of: Callable[[jax.Array], jax.Array],
  task: jax.Array,
  views: views_lib.Views,
  examples: dataset.Examples,
  part: feed.Part,
) -> dict[str, jax.Array]:
  """Returns loss, accuracy and fingerprint of the logits on a task.

  Args:
    logits_of: from images to logits.
    task: from 0, int32 [].
    views: of the stream.
    examples: of the split, those of all tasks.
    part: rows of the task.
  """

  def body(n, totals):
    batch = jax.tree.map(lambda x: x[part.rows[n]], examples)
    inputs, labels = views_lib.see(views, task, batch)
    logits = logits_of(inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    counts = part.counts[n]
    found = {
      'loss': jnp.sum(counts * losses),
      'accuracy': jnp.sum(counts * (jnp.argmax(logits, -1) == labels)),
      'fingerprint': fingerprint(logits, n * logits.size, counts),
    }
    return jax.tree.map(jnp.add, totals, found)

  zeros = {
    'loss': jnp.zeros([]),
    'accuracy': jnp.zeros([]),
    'fingerprint': jnp.zeros([], jnp.uint32),
  }
  totals = jax.lax.fori_loop(0, part.num, body, zeros)
  num = jnp.sum(part.counts)
  return totals | {name: totals[name] / num for name in ('loss', 'accuracy')}


def fingerprint(values: jax.Array, first: Any, counts: jax.Array) -> jax.Array:
  """Returns a uint32 that changes with any single bit of `values`.

  The bits of each value are multiplied by an odd number of its own and added
  up, so that the fingerprints of parts add up to that of the whole. Several
  changes cancel out with a probability of about one in four billion.

  Example:
    >>> values = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> whole = fingerprint(values, 0, jnp.ones(2))
    >>> first = fingerprint(values[:1], 0, jnp.ones(1))
    >>> second = fingerprint(values[1:], 2, jnp.ones(1))
    >>> bool(whole == first + second)
    True

  Shapes:
    values: float32 [B, C]; counts: [B].

  Args:
    values: part of the values.
    first: index of its first value among the values of all parts.
    counts: 0 for rows that are left out.
  """
  bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
  index = jnp.arange(values.size, dtype=jnp.uint32).reshape(values.shape)
  odd = 2 * (index + jnp.asarray(first, jnp.uint32)) + 1
  return jnp.sum(jnp.where(counts[:, None] > 0, bits * odd, 0))


def fisher_diagonal(
  logits_of: Callable[[Any, jax.Array], jax.Array],
  weights: Any,
  inputs: jax.Array,
  *,
  batch_size: int,
) -> Any:
  """Returns the diagonal of the Fisher information of a classifier.

  This is the squared gradient of the log-likelihood, averaged over examples,
  and in expectation over the labels that the network itself predicts. The
  expectation is exact: one gradient for each class.

  Args:
    logits_of: from weights and one input to its logits, [C].
    weights: point of the parameter space.
    inputs: [N, ...].
    batch_size: B, a divisor of N; B times C gradients are in memory at once.

  Reference:
    Kirkpatrick et al., 2016, "Overcoming catastrophic forgetting in neural
    networks". https://arxiv.org/abs/1612.00796
  """

  def log_likelihood(weights, example):
    return jax.nn.log_softmax(logits_of(weights, example))

  def of_example(example):
    gradients = jax.jacrev(log_likelihood)(weights, example)  # leaves [C, ...]
    likely = jnp.exp(log_likelihood(weights, example))
    return jax.tree.map(
      lambda x: jnp.tensordot(likely, jnp.square(x), 1), gradients
    )

  def body(total, batch):
    found = jax.vmap(of_example)(batch)
    return jax.tree.map(lambda t, x: t + jnp.sum(x, 0), total, found), None

  batches = jnp.reshape(inputs, (-1, batch_size, *inputs.shape[1:]))
  zeros = jax.tree.map(jnp.zeros_like, weights)
  total, _ = jax.lax.scan(body, zeros, batches)
  return jax.tree.map(lambda x: x / len(inputs), total)
