"""Strategies against forgetting: how a network goes from task to task.

The section `config.strategy` holds the keywords of one constructor. Tasks count
from 0 here and from 1 in `powerprop.packnet`.
"""

from collections.abc import Callable
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

import sparsity


class Network(NamedTuple):
  """A network between two phases of its training."""

  params: Any  # phi
  statistics: Any  # of normalization
  memory: Any  # of the strategy


class Probe(NamedTuple):
  """Measurements on the current task, at the end of a phase."""

  to_weights: Callable[[Any], Any]  # phi -> theta
  accuracy: Callable[[Any, Any], Any]  # (phi, statistics), on validation data
  # (network, number of examples, batch size) -> a tree like theta
  fisher: Callable[[Network, int, int], Any]
  trained: Any  # masks of the trained parameters


def train_all(params: Any) -> sparsity.ActiveSets:
  """Returns sets in which every parameter is active and trained."""
  return sparsity.ActiveSets(
    *(jax.tree.map(lambda x: jnp.ones(x.shape, bool), params) for _ in range(2))
  )


class Strategy(NamedTuple):
  """How a network learns tasks one after another, each in some phases."""

  # (params, statistics, paths of the heads, number of tasks) -> memory
  init: Callable[..., Any] = lambda *_: ()
  # (network, newly drawn network with its memory, task, phase) -> network, sets
  start: Callable[..., tuple[Network, sparsity.ActiveSets]] = (
    lambda network, *_: (network, train_all(network.params))
  )
  # (network, probe, task, phase) -> network, row of metrics or None
  finish: Callable[..., tuple[Network, dict | None]] = lambda network, *_: (
    network,
    None,
  )
  # Steps of each phase; None: config.train.num_steps.
  num_steps: tuple[int | None, ...] = (None,)
  # (network, task) -> params and statistics with which the task predicts; the
  # current ones for a task that is not learned yet
  predict: Callable[[Network, Any], tuple[Any, Any]] = lambda network, task: (
    network[:2]
  )
  penalty: Callable[[Any, Any], jax.Array] | None = None  # (theta, memory)
  is_packed: bool = False  # memory.pack; the logits stay the same bit for bit
  is_joint: bool = False  # trains all tasks at once
  is_alone: bool = False  # one network a task, tested on it alone
  keep_statistics: bool = False  # of normalization, from the first task on
  keep_optimizer: bool = False  # its state, from one task to the next
  num_examples: int = 1  # that each task needs at least


def fine_tuning(*, keep_optimizer: bool) -> Strategy:
  """Returns plain training on one task after another.

  Args:
    keep_optimizer: whether the optimizer's state is kept from task to task.
  """
  return Strategy(keep_optimizer=keep_optimizer)


def alone() -> Strategy:
  """Returns one newly drawn network a task; nothing is shared."""
  return Strategy(
    start=lambda network, fresh, *_: (fresh, train_all(fresh.params)),
    is_alone=True,
  )


def joint() -> Strategy:
  """Returns one network trained on all tasks at once, in as many steps."""
  return Strategy(is_joint=True)


def ewc(
  *,
  strength: float,
  num_examples: int,
  fisher_batch_size: int,
  keep_optimizer: bool,
) -> Strategy:
  """Returns elastic weight consolidation, with a penalty for each task.

  Args:
    strength: of the penalty; lambda in the paper.
    num_examples: training examples of a task that estimate the Fisher
      information.
    fisher_batch_size: examples in memory at once, a divisor of `num_examples`.
    keep_optimizer: whether the optimizer's state is kept from task to task.

  Raises:
    ValueError: If an argument is out of range.

  Reference:
    Kirkpatrick et al., 2016, "Overcoming catastrophic forgetting in neural
    networks". https://arxiv.org/abs/1612.00796
  """
  if num_examples < 1 or fisher_batch_size < 1:
    raise ValueError(
      'expected num_examples and fisher_batch_size >= 1, got '
      f'{num_examples} and {fisher_batch_size}'
    )
  if num_examples % fisher_batch_size:
    raise ValueError(
      'expected num_examples as a multiple of fisher_batch_size='
      f'{fisher_batch_size}, got {num_examples}'
    )
  strategy = _anchored(
    strength,
    lambda network, probe: probe.fisher(
      network, num_examples, fisher_batch_size
    ),
  )
  return strategy._replace(
    keep_optimizer=keep_optimizer, num_examples=num_examples
  )


def l2(*, strength: float, keep_optimizer: bool) -> Strategy:
  """Returns a penalty on the squared distance from the end of each task.

  Args:
    strength: of the penalty.
    keep_optimizer: whether the optimizer's state is kept from task to task.
  """
  strategy = _anchored(
    strength,
    lambda _, probe: jax.tree.map(
      lambda x: x.astype(jnp.float32), probe.trained
    ),
  )
  return strategy._replace(keep_optimizer=keep_optimizer)


class Anchor(NamedTuple):
  """The sum of the quadratic penalties of all tasks.

  sum_t F_t (w - w_t)^2 is P (w - m)^2, up to a constant, with P = sum_t F_t and
  m = sum_t F_t w_t / P, so that the memory does not grow with the tasks.
  """

  precision: Any  # P: a tree like the weights
  mean: Any  # m: arbitrary where P is 0


def init_anchor(weights: Any) -> Anchor:
  """Returns the anchor before the first task, whose penalty is 0."""
  return Anchor(*(jax.tree.map(jnp.zeros_like, weights) for _ in range(2)))


@jax.jit
def add_task(anchor: Anchor, weights: Any, importance: Any) -> Anchor:
  """Returns the anchor with the penalty of one more task.

  Example:
    >>> anchor = init_anchor(jnp.zeros(2))
    >>> for weights, importance in (([0., 0.], [1., 0.]), ([4., 4.], [3., 1.])):
    ...   anchor = add_task(anchor, jnp.array(weights), jnp.array(importance))
    >>> anchor
    Anchor(precision=Array([4., 1.], dtype=float32), \
mean=Array([3., 4.], dtype=float32))

  Args:
    anchor: of the tasks before.
    weights: at the end of the task.
    importance: F >= 0, a tree like the weights.
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
  """
  parts = jax.tree.map(
    lambda p, m, w: jnp.sum(p * jnp.square(w - m)), *anchor, weights
  )
  return strength / 2 * sum(jax.tree.leaves(parts))


def _anchored(strength: float, importance: Callable[..., Any]) -> Strategy:
  """Returns a quadratic penalty; `importance`: (network, probe) -> F."""
  if not 0 <= strength < math.inf:
    raise ValueError(f'expected a finite strength >= 0, got {strength}')

  def finish(network, probe, task, phase):
    del task, phase
    weights = probe.to_weights(network.params)
    memory = add_task(network.memory, weights, importance(network, probe))
    return network._replace(memory=memory), None

  return Strategy(
    init=lambda params, *_: init_anchor(params),
    finish=finish,
    penalty=lambda theta, memory: penalty(memory, theta, strength),
  )
