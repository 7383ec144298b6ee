"""Penalties that hold weights where earlier tasks left them: EWC and L2.

Shapes:
  N: number of examples; B: of them at once.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Anchor(NamedTuple):
  """The sum of a quadratic penalty a task, in the memory of one.

  sum_t F_t (w - w_t)^2 is P (w - m)^2, up to a constant, with P = sum_t F_t and
  m = sum_t F_t w_t / P. So the gradient is that of all penalties, exactly.
  """

  precision: Any  # P: a tree like the weights
  mean: Any  # m: where P is 0 it does not matter


def init(weights: Any) -> Anchor:
  """Returns the anchor before the first task, which holds nothing."""
  zeros = jax.tree.map(jnp.zeros_like, weights)
  return Anchor(zeros, zeros)


def add(anchor: Anchor, weights: Any, importance: Any) -> Anchor:
  """Returns the anchor with the penalty of one more task.

  Example:
    >>> anchor = init(jnp.zeros(2))
    >>> for weights, importance in (([0., 0.], [1., 0.]), ([4., 4.], [3., 1.])):
    ...   anchor = add(anchor, jnp.array(weights), jnp.array(importance))
    >>> anchor
    Anchor(precision=Array([4., 1.], dtype=float32), \
mean=Array([3., 4.], dtype=float32))

  Args:
    anchor: of the tasks before.
    weights: at the end of the task.
    importance: F, a tree like the weights, not negative: a Fisher diagonal for
      EWC, ones for L2.
  """
  precision = jax.tree.map(jnp.add, anchor.precision, importance)

  def move(mean, weight, importance, total):
    share = importance / jnp.where(total > 0, total, 1)
    return mean + share * (weight - mean)

  mean = jax.tree.map(move, anchor.mean, weights, importance, precision)
  return Anchor(precision, mean)


def penalty(anchor: Anchor, weights: Any, strength: float) -> jax.Array:
  """Returns strength / 2 times the sum of P (w - m)^2.

  Example:
    >>> anchor = Anchor(jnp.array([4.0, 1.0]), jnp.array([3.0, 4.0]))
    >>> penalty(anchor, jnp.array([4.0, 6.0]), strength=0.5)
    Array(2., dtype=float32)

  Reference:
    Kirkpatrick et al., 2016, "Overcoming catastrophic forgetting in neural
    networks". https://arxiv.org/abs/1612.00796
  """
  parts = jax.tree.map(
    lambda p, m, w: jnp.sum(p * jnp.square(w - m)), *anchor, weights
  )
  return strength / 2 * sum(jax.tree.leaves(parts))


def fisher_diagonal(
  logits: Callable[[Any, Any], jax.Array],
  weights: Any,
  inputs: Any,
  *,
  batch_size: int,
) -> Any:
  """Returns the diagonal of the Fisher information of a classifier.

  That is the mean over examples, and the expectation over the labels that the
  network itself predicts, of the square of each entry of the gradient of the
  log-likelihood. The expectation is exact: a gradient for each class.

  Args:
    logits: from weights and one input to its logits, [C].
    weights: where.
    inputs: a tree of arrays [N, ...].
    batch_size: B, how many gradients are in memory at once, times C; a divisor
      of N.

  Raises:
    ValueError: If `batch_size` is not a divisor of N.

  Reference:
    Kirkpatrick et al., 2016, "Overcoming catastrophic forgetting in neural
    networks". https://arxiv.org/abs/1612.00796
  """
  num = len(jax.tree.leaves(inputs)[0])
  if batch_size < 1 or num % batch_size:
    raise ValueError(
      f'expected batch_size as a divisor of the {num} examples, got '
      f'{batch_size}'
    )

  def log_likelihood(weights, example):
    return jax.nn.log_softmax(logits(weights, example))

  def of_one(example):
    slopes = jax.jacrev(log_likelihood)(weights, example)  # leaves [C, ...]
    likely = jnp.exp(log_likelihood(weights, example))
    return jax.tree.map(
      lambda x: jnp.tensordot(likely, jnp.square(x), 1), slopes
    )

  def body(total, batch):
    found = jax.vmap(of_one)(batch)
    return jax.tree.map(lambda t, x: t + jnp.sum(x, 0), total, found), None

  batches = jax.tree.map(
    lambda x: jnp.reshape(x, (-1, batch_size, *x.shape[1:])), inputs
  )
  zeros = jax.tree.map(jnp.zeros_like, weights)
  total, _ = jax.lax.scan(body, zeros, batches)
  return jax.tree.map(lambda x: x / num, total)
