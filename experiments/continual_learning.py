"""Many tasks one after another in one network: from a config to metrics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import export
from experiments.common import build as build_lib
from experiments.common import distributed
from experiments.common import experiment as experiment_lib
from experiments.common import step as step_lib
from experiments.continual import learner as learner_lib
from experiments.continual import plan as plan_lib
from experiments.continual import report as report_lib
from experiments.continual import state as state_lib
from experiments.continual import training
from experiments.continual import units as units_lib
from experiments.data import dataset
from experiments.data import tasks as tasks_lib
import powerprop


def build(**sections: Any) -> experiment_lib.Experiment:
  """Returns the experiment that the sections of a config describe.

  One network is trained for each alpha and each seed, on the same tasks; those
  of one seed see the same batches and begin with the same theta.

  Args:
    **sections: those of `plan.make_plan`.

  Raises:
    ValueError: If anything in a section is unknown, missing, mistyped or out of
      range, or the data are not there; before any training.
  """
  distributed.check_one_process('continual_learning')
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  tasks = tasks_lib.read(plan.settings[0].stream)
  smallest = min(len(rows['train']) for rows in tasks.rows)
  if plan.settings[0].batch_size > smallest:
    raise ValueError(
      f'config.train.batch_size: expected 1 to {smallest}, the number of '
      'training examples of the smallest task, got '
      f'{plan.settings[0].batch_size}'
    )
  units = []
  for settings in plan.settings:
    learner = learner_lib.make_learner(tasks, settings)
    for seed in plan.seeds:
      member = units_lib.Member(learner, settings, plan.testing, seed)
      units += units_lib.make_units(member, plan.num_steps)
  return experiment_lib.Experiment(
    tuple(units), plan.schedule, plan.keep, report_lib.report
  )


def outlines(**sections: Any) -> list[experiment_lib.Outline]:
  """Returns what is known of an experiment without its data, by alpha.

  Raises:
    ValueError: As `build`.
  """
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  return [_outline(settings) for settings in plan.settings]


def trained(**sections: Any) -> list[export.Trained]:
  """Returns the networks that a run of this config leaves.

  For each task the one with which it predicts just after it is learned; where
  all are trained at once there is one.

  Raises:
    ValueError: As `build`.
  """
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  found, position = [], 0
  for settings in plan.settings:
    like = jax.eval_shape(lambda s=settings: state_lib.initial(s, 0))
    for seed in plan.seeds:
      for spell in units_lib.spells(settings, plan.num_steps):
        position += spell.num_steps
        if spell.is_last_phase:
          member = {
            'alpha': settings.alpha, 'seed': seed, 'task': spell.learned + 1,
          }  # fmt: skip
          extract = _extraction(settings, spell.learned)
          found.append(export.Trained(member, position, like, extract))
  return found


def _extraction(settings: state_lib.Settings, task: int):
  def extract(state):
    network = state_lib.network_of(state)
    params, net_state = settings.strategy.predict(network, task)
    weights = powerprop.to_weights(params, settings.alpha)
    masks = settings.strategy.masks
    own = masks(network.memory, task) if masks else None
    return weights, own, net_state

  return extract


def _outline(settings: state_lib.Settings) -> experiment_lib.Outline:
  stream = settings.stream
  state = jax.eval_shape(lambda: state_lib.initial(settings, 0))
  views = jax.eval_shape(lambda: tasks_lib.make_views(stream))
  size = settings.batch_size

  def step(state, memory, views, seed, batch):
    recipe = training.make_recipe(settings, views, memory, False)
    return step_lib.train_step(recipe, state, batch, jax.random.key(seed))

  batch = training.Batch(
    dataset.Examples(
      jax.ShapeDtypeStruct((size, *stream.example_shape), np.float32),
      jax.ShapeDtypeStruct((size,), jnp.int32),
    ),
    jax.ShapeDtypeStruct(
      (size,) if settings.strategy.trains == 'all' else (), jnp.int32
    ),
  )
  return experiment_lib.Outline(
    f'alpha = {settings.alpha:g}, {len(stream.tasks)} tasks, batch of {size}',
    state.train.params,
    step,
    (
      state.train,
      state.memory,
      views,
      jax.ShapeDtypeStruct((), jnp.uint32),
      batch,
    ),
  )
