"""Strategies by name: what keeps a network from forgetting, if anything does.

A config section is the arguments of one of these constructors. Tasks count from
0 here, and from 1 in `powerprop.packnet`.

Shapes:
  T: number of tasks.
"""

from collections.abc import Callable
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.continual import penalty as penalty_lib
from experiments.models import heads as heads_lib
from powerprop import packnet
import sparsity
from sparsity import select as select_lib


class Network(NamedTuple):
  """What a strategy keeps, for later tasks to build on."""

  params: Any  # phi
  net_state: Any
  memory: Any  # of the strategy


class Tools(NamedTuple):
  """What a strategy may ask at the end of a phase, about the task at hand."""

  accuracy: Callable[[Any, Any], Any]  # (params, net_state): on validation
  weights: Callable[[Any], Any]  # phi -> theta
  fisher: Callable[..., Any]  # (params, net_state, num, batch_size)


class Phase(NamedTuple):
  """A part of a task's training."""

  # (network, fresh network, task) -> network, sets: with what it begins.
  start: Callable[..., tuple[Network, sparsity.ActiveSets]]
  # (network, tools, task) -> network and a row of figures, or None.
  finish: Callable[..., tuple[Network, dict | None]]
  num_steps: int | None = None  # None: as configured for all


class Strategy(NamedTuple):
  """How tasks are learned one after another."""

  init: Callable[[Any, Any], Any]  # (params, net_state) -> memory
  phases: tuple[Phase, ...]
  # (network, task) -> params and net_state with which a task predicts; one that
  # is not learned yet does so with the current ones.
  predict: Callable[[Network, Any], tuple[Any, Any]]
  penalty: Callable[[Any, Any], jax.Array] | None = None  # (theta, memory)
  usage: Callable[[Any], dict[str, packnet.Usage]] | None = None  # of memory
  masks: Callable[[Any, int], dict[str, jax.Array]] | None = (
    None  # (memory, task)
  )
  never_forgets: bool = False  # exactly: not a bit of any logit
  trains: str = 'one'  # 'one' task after another | 'all' at once
  tests: str = 'all'  # tasks so far | 'one': the task at hand
  keeps_statistics: bool = False  # of the first task, in normalization
  keeps_optimizer: bool = False  # its state, from one task to the next


def fine_tuning(*, keep_optimizer: bool, heads: heads_lib.Heads) -> Strategy:
  """Returns the strategy that does nothing against forgetting.

  Args:
    keep_optimizer: whether its state goes on from task to task.
    heads: the network.
  """
  return Strategy(
    init=lambda *_: (),
    phases=(Phase(_go_on(heads), _end),),
    predict=lambda network, _: network[:2],
    keeps_optimizer=keep_optimizer,
  )


def alone(*, heads: heads_lib.Heads) -> Strategy:
  """Returns one network a task, each drawn anew: nothing is shared."""

  def start(network, fresh, task):
    del network
    return fresh, _sets(fresh.params, heads, task)

  return Strategy(
    init=lambda *_: (),
    phases=(Phase(start, _end),),
    predict=lambda network, _: network[:2],
    tests='one',
  )


def joint(*, heads: heads_lib.Heads) -> Strategy:
  """Returns one network trained on all tasks at once, in as many steps."""

  def start(network, fresh, task):
    del network, task
    return fresh, _sets(fresh.params)

  return Strategy(
    init=lambda *_: (),
    phases=(Phase(start, _end),),
    predict=lambda network, _: network[:2],
    trains='all',
  )


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
    num_examples: of a task's training, from which Fisher's information is
      estimated.
    fisher_batch_size: how many of them at once.
    keep_optimizer: whether its state goes on from task to task.
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

  def importance(network, tools, task):
    del task
    return tools.fisher(
      network.params, network.net_state, num_examples, fisher_batch_size
    )

  return _anchored(strength, importance, keep_optimizer, heads)


def l2(
  *, strength: float, keep_optimizer: bool, heads: heads_lib.Heads
) -> Strategy:
  """Returns a penalty on the distance from where each earlier task ended.

  Args:
    strength: of the penalty.
    keep_optimizer: whether its state goes on from task to task.
    heads: the network.
  """

  def importance(network, tools, task):
    del tools
    trained = _sets(network.params, heads, task).backward
    return jax.tree.map(lambda x: x.astype(jnp.float32), trained)

  return _anchored(strength, importance, keep_optimizer, heads)


def _anchored(strength, importance, keep_optimizer, heads) -> Strategy:
  if not 0 <= strength < math.inf:
    raise ValueError(f'expected a finite strength >= 0, got {strength}')

  def finish(network, tools, task):
    weights = tools.weights(network.params)
    memory = jax.jit(penalty_lib.add)(
      network.memory, weights, importance(network, tools, task)
    )
    return network._replace(memory=memory), None

  return Strategy(
    init=lambda params, _: penalty_lib.init(params),
    phases=(Phase(_go_on(heads), finish),),
    predict=lambda network, _: network[:2],
    penalty=lambda theta, memory: penalty_lib.penalty(memory, theta, strength),
    keeps_optimizer=keep_optimizer,
  )


def _go_on(heads):
  """Returns the start of a phase that takes the network as it is."""

  def start(network, fresh, task):
    network = fresh if task == 0 else network
    return network, _sets(network.params, heads, task)

  return start


def _end(network, tools, task):
  del tools, task
  return network, None


def _sets(params, heads=None, task=0) -> sparsity.ActiveSets:
  """Returns the sets in which all is trained, and of the heads the task's."""

  def trues():
    return jax.tree.map(lambda x: jnp.ones(x.shape, bool), params)

  own = heads.masks(params, task) if heads else {}
  return sparsity.ActiveSets(trues(), select_lib.put(trues(), own))
