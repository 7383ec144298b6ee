"""Strategies against forgetting: how a network goes from task to task.

Tasks count from 0 here and from 1 in `powerprop.packnet`.

T: number of tasks.
"""

from collections.abc import Callable
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import build
from experiments import storage as storage_lib
import sparsity


class NetState(NamedTuple):
  """The part of the training state without gradients."""

  statistics: Any  # of normalization
  memory: Any  # of the strategy
  fingerprints: jax.Array  # uint32 [T], of the test logits of learned tasks


def replace(
  state: storage_lib.TrainState, params: Any, **net_state: Any
) -> storage_lib.TrainState:
  """Returns a state with other parameters and parts of its `NetState`."""
  net_state = state.net_state._replace(**net_state)
  return state._replace(params=params, net_state=net_state)


class Strategy(NamedTuple):
  """How a network learns tasks one after another, each in some phases."""

  # (params, statistics, paths of the heads, number of tasks) -> memory
  init: Callable[..., Any] = lambda *_: ()
  # (state, newly drawn parameters and statistics, task, phase) -> state, sets
  start: Callable[..., tuple[Any, sparsity.ActiveSets]] = lambda state, *_: (
    state,
    sparsity.state.everything(state.params),
  )
  # (state, feed, seed, task, phase) -> state, row of metrics or None
  finish: Callable[..., tuple[Any, dict | None]] = lambda *args: (args[0], None)
  # Steps of each phase; None: config.train.num_steps.
  num_steps: tuple[int | None, ...] = (None,)
  # (state, task) -> params and statistics with which the task predicts; the
  # current ones for a task that is not learned yet
  predict: Callable[[Any, Any], tuple[Any, Any]] = lambda state, task: (
    state.params,
    state.net_state.statistics,
  )
  penalty: Callable[[Any, Any], jax.Array] | None = None  # (theta, memory)
  is_packed: bool = False  # memory.pack; the logits stay the same bit for bit
  is_joint: bool = False  # trains all tasks at once
  is_alone: bool = False  # one network a task, tested on it alone
  keep_statistics: bool = False  # of normalization, from the first task on
  num_examples: int = 1  # that each task needs at least


def fine_tuning() -> Strategy:
  """Returns plain training on one task after another."""
  return Strategy()


def alone() -> Strategy:
  """Returns one newly drawn network a task; nothing is shared."""
  return Strategy(
    start=lambda state, fresh, *_: (
      replace(state, fresh[0], statistics=fresh[1]),
      sparsity.state.everything(fresh[0]),
    ),
    is_alone=True,
  )


def joint() -> Strategy:
  """Returns one network trained on all tasks at once, in as many steps."""
  return Strategy(is_joint=True)


def ewc(
  *, strength: float, num_examples: int, fisher_batch_size: int
) -> Strategy:
  """Returns elastic weight consolidation, with a penalty for each task.

  The Fisher information is that of `num_examples` training examples of a task,
  `fisher_batch_size` at once; `strength` is lambda in the paper.

  Reference:
    Kirkpatrick et al., 2016, "Overcoming catastrophic forgetting in neural
    networks". https://arxiv.org/abs/1612.00796
  """
  build.check_least(
    'config.strategy',
    1,
    num_examples=num_examples,
    fisher_batch_size=fisher_batch_size,
  )
  if num_examples % fisher_batch_size:
    raise ValueError(
      'expected num_examples as a multiple of fisher_batch_size='
      f'{fisher_batch_size}, got {num_examples}'
    )
  strategy = _anchored(
    strength,
    lambda state, feed, seed, task: feed.fisher(
      state, seed, task, num_examples, fisher_batch_size
    ),
  )
  return strategy._replace(num_examples=num_examples)


def l2(*, strength: float) -> Strategy:
  """Returns a penalty on the squared distance from the end of each task."""

  def importance(state, *_):
    trained = sparsity.active_sets(state.opt_state).backward
    return jax.tree.map(lambda x: x.astype(jnp.float32), trained)

  return _anchored(strength, importance)


class Anchor(NamedTuple):
  """The sum of the quadratic penalties of all tasks.

  sum_t F_t (w - w_t)^2 is P (w - m)^2, up to a constant, with P = sum_t F_t and
  m = sum_t F_t w_t / P, so that the memory does not grow with the tasks.
  """

  precision: Any  # P: a tree like the weights
  mean: Any  # m: arbitrary where P is 0


@jax.jit
def add_task(anchor: Anchor, weights: Any, importance: Any) -> Anchor:
  """Returns the anchor with one more task of these weights and F."""
  precision = jax.tree.map(jnp.add, anchor.precision, importance)

  def move(mean, weight, importance, total):
    share = importance / jnp.where(total > 0, total, 1)
    return mean + share * (weight - mean)

  mean = jax.tree.map(move, anchor.mean, weights, importance, precision)
  return Anchor(precision, mean)


def penalty(anchor: Anchor, weights: Any, strength: float) -> jax.Array:
  """Returns strength / 2 times the sum of P (w - m)^2."""
  parts = jax.tree.map(
    lambda p, m, w: jnp.sum(p * jnp.square(w - m)), *anchor, weights
  )
  return strength / 2 * sum(jax.tree.leaves(parts))


def _anchored(strength: float, importance: Callable[..., Any]) -> Strategy:
  """Returns a penalty; `importance`: (state, feed, seed, task) -> F."""
  build.check_range(0, math.inf, strength=strength)

  def finish(state, feed, seed, task, phase):
    del phase
    weights = feed.to_weights(state.params)
    found = importance(state, feed, seed, task)
    memory = add_task(state.net_state.memory, weights, found)
    return replace(state, state.params, memory=memory), None

  return Strategy(
    init=lambda params, *_: Anchor(
      *(jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    ),
    finish=finish,
    penalty=lambda theta, memory: penalty(memory, theta, strength),
  )
