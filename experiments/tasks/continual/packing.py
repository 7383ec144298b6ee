"""PackNet and EfficientPackNet as strategies.

T: number of tasks.
"""

from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from experiments import build
from experiments.tasks import base
from experiments.tasks.continual import strategies
from powerprop import packnet
from sparsity import select as select_lib

BIASES = ('frozen', 'per_task')


class Memory(NamedTuple):
  """The weights and statistics that the tasks so far own."""

  pack: packnet.PackState
  statistics: Any  # of each task, [T, ...]; None: shared


def packnet_strategy(*, retrain_steps: int, biases: str) -> strategies.Strategy:
  """Returns PackNet: each task claims 1 / T of the weights, then retrains.

  The biases are 'frozen' after the first task, with normalization and its
  statistics, or 'per_task'.

  Reference:
    Mallya and Lazebnik, 2018, "PackNet: Adding multiple tasks to a single
    network by iterative pruning". https://arxiv.org/abs/1711.05769
  """
  build.check_least('config.strategy', 1, retrain_steps=retrain_steps)

  def finish(state, feed, seed, task, phase):
    del seed
    params, pack = state.params, state.net_state.memory.pack
    if phase == 0:
      num_tasks = len(next(iter(pack.masks.values())))
      masks = packnet.fixed_share(params, pack, 1 / (num_tasks - task))
      return _remember(state, packnet.claim(params, pack, masks), task), None
    pack = packnet.store_copies(params, pack)
    state = _remember(state, pack, task)
    shares = packnet.usage(pack, task + 1)['all']
    network = feed.predict(state, task)
    metrics = feed.evaluate(*network, task, 'validation')
    return state, {
      'density': shares.new + shares.reused,
      'accuracy': float(metrics['accuracy']),
    }

  return _packed(finish, biases)._replace(num_steps=(None, retrain_steps))


def efficient_packnet(
  *, gamma: float, densities: tuple[float, ...], scope: str, biases: str
) -> strategies.Strategy:
  """Returns EfficientPackNet: the fewest weights that keep the accuracy.

  A task reuses weights of earlier tasks. Of the decreasing densities, shares of
  the weights of each layer or, with scope 'global', of all layers together, it
  takes the last that keeps the share `gamma` of the validation accuracy.

  Reference:
    Schwarz et al., 2021, "Powerpropagation: A sparsity inducing weight
    reparameterisation". https://arxiv.org/abs/2110.00296
  """
  packnet.check_search(densities, gamma, scope)

  def finish(state, feed, seed, task, phase):
    del seed, phase
    params, pack = state.params, state.net_state.memory.pack

    def accuracy(params):
      statistics = state.net_state.statistics
      metrics = feed.evaluate(params, statistics, task, 'validation')
      return metrics['accuracy']

    found = packnet.search(
      accuracy, params, pack, densities=densities, gamma=gamma, scope=scope
    )
    pack = packnet.claim(params, pack, found.masks)
    return _remember(state, pack, task), {
      'density': found.density,
      'accuracy': found.accuracy,
      'full_accuracy': found.full_accuracy,
      'tried': [list(pair) for pair in found.tried],
    }

  return _packed(finish, biases)


def predict(state: base.State, task: Any) -> tuple[Any, Any]:
  """Returns parameters and statistics of a task, or the current without own."""
  params, (statistics, memory, _) = state.params, state.net_state
  # A traced task number is not checked against the number of tasks.
  own = packnet.task_params(params, memory.pack, jnp.asarray(task) + 1)
  own_statistics = statistics
  if memory.statistics is not None:
    own_statistics = jax.tree.map(
      lambda x: lax.dynamic_index_in_dim(x, task, keepdims=False),
      memory.statistics,
    )
  return jax.tree.map(
    lambda a, b: jnp.where(task < memory.pack.num_tasks, a, b),
    (own, own_statistics),
    (params, statistics),
  )


def _packed(finish, biases: str) -> strategies.Strategy:
  """Returns a strategy whose first phase trains the free weights."""
  if biases not in BIASES:
    raise ValueError(f'expected biases out of {BIASES}, got {biases!r}')
  is_per_task = biases == 'per_task'

  def init(params, statistics, head_paths, num_tasks):
    pack = packnet.init(
      params,
      num_tasks=num_tasks,
      is_head=lambda module, name, _: (
        select_lib.join(module, name) in head_paths
      ),
      per_task_heads=False,  # the network itself has one for each task
      per_task_biases=is_per_task,
    )
    room = jax.tree.map(
      lambda x: jnp.zeros((num_tasks, *x.shape), x.dtype), statistics
    )
    return Memory(pack, room if is_per_task else None)

  def start(state, fresh, task, phase):
    params, pack = state.params, state.net_state.memory.pack
    if phase:
      return state, packnet.retraining_sets(params, pack)
    params = packnet.start_task(params, pack, fresh[0], min_free=0)
    statistics = state.net_state.statistics
    if is_per_task or task == 0:
      statistics = fresh[1]
    state = strategies.replace(state, params, statistics=statistics)
    return state, packnet.training_sets(params, pack)

  return strategies.Strategy(
    init=init,
    start=start,
    finish=finish,
    predict=predict,
    is_packed=True,
    keep_statistics=not is_per_task,
  )


def _remember(state, pack, task) -> base.State:
  """Returns the state with the pack and statistics of a task in memory."""
  own, memory, _ = state.net_state
  statistics = memory.statistics
  if statistics is not None:
    statistics = jax.tree.map(
      lambda all_, x: all_.at[task].set(x), statistics, own
    )
  memory = Memory(pack, statistics)
  return strategies.replace(state, state.params, memory=memory)
