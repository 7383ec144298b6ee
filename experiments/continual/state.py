"""What training goes through: the state, and how each phase of a task begins.

Shapes:
  T: number of tasks.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.common import step as step_lib
from experiments.continual import strategies
from experiments.data import tasks as tasks_lib
from experiments.models import heads as heads_lib
import powerprop
from powerprop import packnet


class State(NamedTuple):
  """Everything that training changes, and so everything a checkpoint holds."""

  train: step_lib.TrainState
  memory: Any  # of the strategy
  fingerprints: jax.Array  # uint32 [T], of the test logits of tasks learned


class Settings(NamedTuple):
  """How a network learns a stream of tasks."""

  stream: tasks_lib.Stream
  heads: heads_lib.Heads
  strategy: strategies.Strategy
  optimizer: optax.GradientTransformationExtraArgs  # from `packnet.freeze`
  alpha: float
  label_smoothing: float
  batch_size: int
  eval_batch_size: int
  skips: bool = False  # steps whose loss or gradient is not finite


Draw = Callable[[Any, Any], strategies.Network]  # of a seed and a task


def network_of(state: State) -> strategies.Network:
  """Returns the network in a state, with what the strategy remembers."""
  return strategies.Network(
    state.train.params, state.train.net_state, state.memory
  )


def draw(settings: Settings, seed: Any, task: Any) -> strategies.Network:
  """Returns a network as drawn for a task, without memory."""
  key = jax.random.fold_in(jax.random.key(seed), task)
  inputs = jnp.zeros((1, *settings.stream.example_shape))
  weights, net_state = settings.heads.init(key, inputs)
  params = powerprop.from_weights(weights, settings.alpha)
  return strategies.Network(params, net_state, None)


def initial(settings: Settings, seed: Any) -> State:
  """Returns a state before the first task, in which all is trained."""
  network = draw(settings, seed, 0)
  params, net_state, _ = network
  return State(
    step_lib.TrainState(
      jnp.zeros([], jnp.int32),
      params,
      net_state,
      settings.optimizer.init(params),
    ),
    settings.strategy.init(params, net_state),
    jnp.zeros(len(settings.stream.tasks), jnp.uint32),
  )


def begin(
  settings: Settings,
  draw: Draw,
  last: State | None,
  *,
  seed: int,
  task: int,
  phase: int,
) -> State:
  """Returns the state before the first step of a phase of a task.

  Args:
    settings: how the network learns.
    draw: the function of this name, compiled.
    last: the state at the end of the phase before. For the first of all it does
      not matter.
    seed: of the network.
    task: from 0.
    phase: from 0.

  Raises:
    ValueError: If the strategy has no room for a further task.
  """
  strategy = settings.strategy
  is_first = task == phase == 0
  if is_first:
    last = initial(settings, seed)
  network = network_of(last)
  fresh = draw(seed, task)._replace(memory=network.memory)
  network, sets = strategy.phases[phase].start(network, fresh, task)
  opt_state = last.train.opt_state
  if not strategy.keeps_optimizer:
    opt_state = settings.optimizer.init(network.params)
  train = step_lib.TrainState(
    jnp.zeros([], jnp.int32),
    network.params,
    network.net_state,
    packnet.with_sets(opt_state, sets),
  )
  return State(train, network.memory, last.fingerprints)
