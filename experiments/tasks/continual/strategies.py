"""Strategies against forgetting, by name.

The section `config.strategy` holds the keywords of one constructor. Tasks count
from 0 here and from 1 in `powerprop.packnet`.
"""

from collections.abc import Callable
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.models import heads as heads_lib
from powerprop import packnet
import sparsity
from sparsity import select as select_lib


class Network(NamedTuple):
  """A network between two phases of its training."""

  params: Any  # phi
  statistics: Any  # of normalization
  memory: Any  # of the strategy


class Probe(NamedTuple):
  """Measurements on the current task, for the end of a phase."""

  to_weights: Callable[[Any], Any]  # phi -> theta
  accuracy: Callable[[Any, Any], Any]  # (phi, statistics), on validation data
  # (network, number of examples, batch size) -> a tree like theta
  fisher: Callable[[Network, int, int], Any]


class Phase(NamedTuple):
  """A part of the training on a task."""

  # (network, newly drawn network with its memory, task) -> network, sets
  start: Callable[..., tuple[Network, sparsity.ActiveSets]]
  # (network, probe, task) -> network, row of metrics or None
  finish: Callable[..., tuple[Network, dict | None]]
  num_steps: int | None = None  # None: config.train.num_steps


class Strategy(NamedTuple):
  """How a network learns tasks one after another."""

  init: Callable[[Any, Any], Any]  # (params, statistics) -> memory
  phases: tuple[Phase, ...]
  # (network, task) -> params and statistics with which the task predicts; the
  # current ones for a task that is not learned yet
  predict: Callable[[Network, Any], tuple[Any, Any]]
  penalty: Callable[[Any, Any], jax.Array] | None = None  # (theta, memory)
  usage: Callable[[Any], dict[str, packnet.Usage]] | None = None  # of memory
  # (memory, task) -> masks of the weights with which the task predicts
  masks: Callable[[Any, int], dict[str, jax.Array]] | None = None
  never_forgets: bool = False  # logits stay the same bit for bit
  is_joint: bool = False  # trains all tasks at once
  is_alone: bool = False  # one network a task, tested on it alone
  keep_statistics: bool = False  # of normalization, from the first task on
  keep_optimizer: bool = False  # its state, from one task to the next
  num_examples: int = 1  # that each task needs at least


def fine_tuning(*, keep_optimizer: bool, heads: heads_lib.Heads) -> Strategy:
  """Returns plain training on one task after another.

  Args:
    keep_optimizer: whether the optimizer's state is kept from task to task.
    heads: the network.
  """
  return _plain(Phase(_continued(heads), _end), keep_optimizer=keep_optimizer)


def alone(*, heads: heads_lib.Heads) -> Strategy:
  """Returns one newly drawn network a task; nothing is shared."""

  def start(network, fresh, task):
    del network
    return fresh, active_sets(fresh.params, heads, task)

  return _plain(Phase(start, _end), is_alone=True)


def joint(*, heads: heads_lib.Heads) -> Strategy:
  """Returns one network trained on all tasks at once, in as many steps."""
  del heads

  def start(network, fresh, task):
    del network, task
    return fresh, active_sets(fresh.params)

  return _plain(Phase(start, _end), is_joint=True)


def ewc(
  *,
  strength: float,
  num_examples: int,
  fisher_batch_size: int,
  keep_optimizer: bool,
  heads: heads_lib.Heads,
) -> Strategy:
  """Returns elastic weight consolidation, with a penalty for each task.

  Args:
    strength: of the penalty; lambda in the paper.
    num_examples: training examples of a task that estimate the Fisher
      information.
    fisher_batch_size: examples in memory at once.
    keep_optimizer: whether the optimizer's state is kept from task to task.
    heads: the network.

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

  def importance(network, probe, task):
    del task
    return probe.fisher(network, num_examples, fisher_batch_size)

  strategy = _anchored(strength, importance, keep_optimizer, heads)
  return strategy._replace(num_examples=num_examples)


def l2(
  *, strength: float, keep_optimizer: bool, heads: heads_lib.Heads
) -> Strategy:
  """Returns a penalty on the squared distance from the end of each task.

  Args:
    strength: of the penalty.
    keep_optimizer: whether the optimizer's state is kept from task to task.
    heads: the network.
  """

  def importance(network, probe, task):
    del probe
    trained = active_sets(network.params, heads, task).backward
    return jax.tree.map(lambda x: x.astype(jnp.float32), trained)

  return _anchored(strength, importance, keep_optimizer, heads)


def active_sets(params, heads=None, task=0) -> sparsity.ActiveSets:
  """Returns sets with everything active, but no head other than the task's.

  Args:
    params: of the network.
    heads: the network; None: all heads are trained.
    task: from 0.
  """

  def trues():
    return jax.tree.map(lambda x: jnp.ones(x.shape, bool), params)

  own = heads.masks(params, task) if heads else {}
  return sparsity.ActiveSets(trues(), select_lib.put(trues(), own))


class Anchor(NamedTuple):
  """The sum of the quadratic penalties of all tasks.

  sum_t F_t (w - w_t)^2 is P (w - m)^2, up to a constant, with P = sum_t F_t and
  m = sum_t F_t w_t / P, so that the memory does not grow with the tasks.
  """

  precision: Any  # P: a tree like the weights
  mean: Any  # m: arbitrary where P is 0


def init_anchor(weights: Any) -> Anchor:
  """Returns the anchor before the first task, whose penalty is 0."""
  return Anchor(
    jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights)
  )


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
    importance: F >= 0, a tree like the weights: the Fisher diagonal for EWC,
      ones for L2.
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


def _anchored(strength, importance, keep_optimizer, heads) -> Strategy:
  """Returns a quadratic penalty; `importance`: (network, probe, task) -> F."""
  if not 0 <= strength < math.inf:
    raise ValueError(f'expected a finite strength >= 0, got {strength}')

  def finish(network, probe, task):
    memory = jax.jit(add_task)(
      network.memory,
      probe.to_weights(network.params),
      importance(network, probe, task),
    )
    return network._replace(memory=memory), None

  return _plain(
    Phase(_continued(heads), finish),
    init=lambda params, _: init_anchor(params),
    penalty=lambda theta, memory: penalty(memory, theta, strength),
    keep_optimizer=keep_optimizer,
  )


def _plain(phase: Phase, **options) -> Strategy:
  """Returns a strategy of one phase that predicts with the current network."""
  strategy = Strategy(lambda *_: (), (phase,), lambda network, _: network[:2])
  return strategy._replace(**options)


def _continued(heads):
  """Returns the start of a phase that trains the network further."""

  def start(network, fresh, task):
    network = network if task else fresh
    return network, active_sets(network.params, heads, task)

  return start


def _end(network, probe, task):
  """Finishes a phase that leaves the network as it is."""
  del probe, task
  return network, None
