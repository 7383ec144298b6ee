"""The functions of a stream of tasks, compiled once for all of them."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.continual import evaluation
from experiments.continual import state as state_lib
from experiments.continual import strategies
from experiments.continual import training
from experiments.data import tasks as tasks_lib


class Learner(NamedTuple):
  """What can be done with one stream and one way to learn it."""

  draw: state_lib.Draw
  # (state, seed, task, phase, first_step, num_steps) -> state, figures
  train: Callable[..., tuple[state_lib.State, evaluation.Figures]]
  # (params, net_state, task, 'validation' | 'test') -> figures
  evaluate: Callable[..., evaluation.Figures]
  # (network, task) -> params, net_state
  predict: Callable[[strategies.Network, int], tuple[Any, Any]]
  # (params, net_state, seed, task, num, batch_size) -> a tree like the weights
  fisher: Callable[..., Any]


def make_learner(
  tasks: tasks_lib.Tasks, settings: state_lib.Settings
) -> Learner:
  """Returns the compiled functions; the data are put on the device once."""
  strategy = settings.strategy
  views = tasks_lib.make_views(settings.stream)
  splits = {
    name: jax.tree.map(jnp.asarray, getattr(tasks.examples, name))
    for name in tasks_lib.SPLITS
  }
  rows = {
    name: tuple(own[name] for own in tasks.rows) for name in tasks_lib.SPLITS
  }
  parts = {
    name: evaluation.parts(rows[name], settings.eval_batch_size)
    for name in ('validation', 'test')
  }
  draw = jax.jit(functools.partial(state_lib.draw, settings))
  train_steps = jax.jit(
    functools.partial(training.train_steps, settings),
    static_argnums=0,
    donate_argnums=1,
  )
  evaluate_part = jax.jit(functools.partial(evaluation.evaluate, settings))
  fisher_of = jax.jit(
    functools.partial(evaluation.fisher, settings), static_argnums=0
  )

  def train(state, seed, task, phase, first_step, num_steps):
    chosen = training.choose(
      rows['train'],
      task=None if strategy.trains == 'all' else task,
      order_seed=training.order_seed(seed, task, phase),
      batch_size=settings.batch_size,
      first_step=first_step,
      num_steps=num_steps,
    )
    has_statistics = bool(jax.tree.leaves(state.train.net_state))
    after, figures = train_steps(
      strategy.keeps_statistics and has_statistics and task > 0,
      state.train,
      state.memory,
      np.uint32(seed),
      task * len(strategy.phases) + phase,
      splits['train'],
      views,
      chosen,
    )
    return state._replace(train=after), figures

  def evaluate(params, net_state, task, split):
    return evaluate_part(
      params, net_state, task, views, splits[split], parts[split][task]
    )

  def fisher(params, net_state, seed, task, num, batch_size):
    chosen, _ = training.choose(
      rows['train'],
      task=task,
      order_seed=training.order_seed(seed, task, 0),
      batch_size=num,
      first_step=0,
      num_steps=1,
    )
    examples = jax.tree.map(lambda x: x[chosen[0]], tasks.examples.train)
    return fisher_of(batch_size, params, net_state, task, views, examples)

  return Learner(
    lambda seed, task: draw(np.uint32(seed), task),
    train,
    evaluate,
    jax.jit(strategy.predict),
    fisher,
  )
