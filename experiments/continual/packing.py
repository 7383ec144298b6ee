"""PackNet and EfficientPackNet as strategies.

Shapes:
  T: number of tasks.
"""

from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from experiments.common import loop
from experiments.continual import strategies
from experiments.models import heads as heads_lib
from powerprop import packnet
import sparsity
from sparsity import select as select_lib

BIASES = ('frozen', 'per_task')
WHEN_EXHAUSTED = ('continue', 'stop')


class Memory(NamedTuple):
  """What the tasks so far own."""

  pack: packnet.PackState
  net_states: Any  # the network's state of each task, [T, ...]; None: shared


def packnet_strategy(
  *,
  density: float | None,
  retrain_steps: int,
  biases: str,
  when_exhausted: str,
  keep_optimizer: bool,
  heads: heads_lib.Heads,
  num_tasks: int,
) -> strategies.Strategy:
  """Returns PackNet: a fixed share of what is free, and training once more.

  Args:
    density: the share of the free weights that a task gets; None: 1 / T of all
      weights each, and so all that is left for the last.
    retrain_steps: after pruning.
    biases: 'frozen' after the first task, with normalization and its
      statistics, or 'per_task'.
    when_exhausted: what to do where no weight is free: 'stop' with an error, or
      'continue' with the weights there are.
    keep_optimizer: whether its state goes on from task to task.
    heads: the network.
    num_tasks: T.

  Raises:
    ValueError: If an argument is out of range.

  Reference:
    Mallya and Lazebnik, 2018, "PackNet: Adding multiple tasks to a single
    network by iterative pruning". https://arxiv.org/abs/1711.05769
  """
  if density is not None and not 0 < density <= 1:
    raise ValueError(f'expected density in (0, 1] or None, got {density}')
  if retrain_steps < 1:
    raise ValueError(f'expected retrain_steps >= 1, got {retrain_steps}')

  def prune(network, tools, task):
    del tools
    share = density or 1 / (num_tasks - task)
    pack = network.memory.pack
    masks = packnet.fixed_share(network.params, pack, share)
    pack = packnet.claim(network.params, pack, masks)
    return _remember(network, pack, task), None

  def start_retraining(network, fresh, task):
    del fresh
    pack = network.memory.pack
    sets = packnet.retraining_sets(network.params, pack)
    return network, _with_head(sets, network.params, heads, task)

  def finish(network, tools, task):
    pack = packnet.store_copies(network.params, network.memory.pack)
    network = _remember(network, pack, task)
    return network, {
      'density': share_used(pack, task),
      'accuracy': float(tools.accuracy(*predict(network, jnp.int32(task)))),
    }

  strategy = _packed(biases, when_exhausted, keep_optimizer, heads, num_tasks)
  [training] = strategy.phases
  return strategy._replace(
    phases=(
      training._replace(finish=prune),
      strategies.Phase(start_retraining, finish, retrain_steps),
    )
  )


def efficient_packnet(
  *,
  gamma: float,
  densities: tuple[float, ...],
  search: str,
  biases: str,
  when_exhausted: str,
  keep_optimizer: bool,
  heads: heads_lib.Heads,
  num_tasks: int,
) -> strategies.Strategy:
  """Returns EfficientPackNet: as few weights as accuracy allows, reused.

  Args:
    gamma: the share of the validation accuracy that has to be kept.
    densities: shares of all weights to try, decreasing.
    search: 'linear', as in the paper, or 'bisection'.
    biases: 'frozen' after the first task, with normalization and its
      statistics, or 'per_task'.
    when_exhausted: what to do where no weight is free: 'stop' with an error, or
      'continue' with the weights there are.
    keep_optimizer: whether its state goes on from task to task.
    heads: the network.
    num_tasks: T.

  Raises:
    ValueError: If an argument is out of range.

  Reference:
    Schwarz et al., 2021, "Powerpropagation: A sparsity inducing weight
    reparameterisation". https://arxiv.org/abs/2110.00296
  """
  packnet.check_search(densities, gamma, search)

  def choose(network, tools, task):
    pack = network.memory.pack
    found = packnet.search(
      lambda params: tools.accuracy(params, network.net_state),
      network.params,
      pack,
      densities=densities,
      gamma=gamma,
      method=search,
    )
    pack = packnet.claim(network.params, pack, found.masks)
    return _remember(network, pack, task), {
      'density': found.density,
      'accuracy': found.accuracy,
      'full_accuracy': found.full_accuracy,
      'tried': [list(pair) for pair in found.tried],
    }

  strategy = _packed(biases, when_exhausted, keep_optimizer, heads, num_tasks)
  [training] = strategy.phases
  return strategy._replace(phases=(training._replace(finish=choose),))


def predict(network: strategies.Network, task: Any) -> tuple[Any, Any]:
  """Returns the parameters and state with which a task predicts.

  A task that owns nothing yet predicts with the current ones.
  """
  params, net_state, memory = network
  is_known = task < memory.pack.num_tasks
  # Tasks count from 1 there, and a traced number is not checked.
  own = packnet.task_params(params, memory.pack, jnp.asarray(task) + 1)
  if memory.net_states is None:
    own_state = net_state
  else:
    own_state = jax.tree.map(
      lambda x: lax.dynamic_index_in_dim(x, task, keepdims=False),
      memory.net_states,
    )
  return jax.tree.map(
    lambda a, b: jnp.where(is_known, a, b),
    (own, own_state),
    (params, net_state),
  )


def share_used(pack: packnet.PackState, task: int) -> float:
  """Returns the share of the packed weights that a task uses."""
  shares = packnet.usage(pack, task + 1)['all']
  return shares.new + shares.reused


def _packed(
  biases, when_exhausted, keep_optimizer, heads, num_tasks
) -> strategies.Strategy:
  """Returns what the two have in common; one phase, which has no end yet."""
  for name, value, known in (
    ('biases', biases, BIASES),
    ('when_exhausted', when_exhausted, WHEN_EXHAUSTED),
  ):
    if value not in known:
      raise ValueError(f'expected {name} out of {known}, got {value!r}')
  is_per_task = biases == 'per_task'

  def init(params, net_state):
    pack = packnet.init(
      params,
      num_tasks=num_tasks,
      is_head=lambda module, name, _: (
        select_lib.join(module, name) in heads.paths
      ),
      per_task_heads=False,  # the network holds one for each, where they are
      per_task_biases=is_per_task,
    )
    room = jax.tree.map(
      lambda x: jnp.zeros((num_tasks, *x.shape), x.dtype), net_state
    )
    return Memory(pack, room if is_per_task else None)

  def start(network, fresh, task):
    pack = network.memory.pack
    if when_exhausted == 'stop':
      try:
        packnet.check_capacity(pack)
      except ValueError as error:
        raise loop.StopError(str(error)) from error
    params = packnet.start_task(network.params, pack, fresh.params, min_free=0)
    is_new = is_per_task or task == 0
    net_state = fresh.net_state if is_new else network.net_state
    sets = packnet.training_sets(params, pack)
    return (
      strategies.Network(params, net_state, network.memory),
      _with_head(sets, params, heads, task),
    )

  return strategies.Strategy(
    init=init,
    phases=(strategies.Phase(start, finish=None),),
    predict=predict,
    usage=lambda memory: packnet.usage(memory.pack),
    masks=lambda memory, task: packnet.task_masks(memory.pack, task + 1),
    never_forgets=True,
    keeps_statistics=not is_per_task,
    keeps_optimizer=keep_optimizer,
  )


def _with_head(sets, params, heads, task) -> sparsity.ActiveSets:
  """Returns the sets with the task's head trained, and no other one."""
  if not heads.are_per_task:
    return sets  # which train the one there is in the first task
  own = heads.masks(params, task)
  return sets._replace(backward=select_lib.put(sets.backward, own))


def _remember(network, pack, task) -> strategies.Network:
  net_states = network.memory.net_states
  if net_states is not None:
    net_states = jax.tree.map(
      lambda all_, x: all_.at[task].set(x), net_states, network.net_state
    )
  return network._replace(memory=Memory(pack, net_states))
