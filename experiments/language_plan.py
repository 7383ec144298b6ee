"""What the config of a language model says, before any text is read.

B: batch; T: tokens of a segment; M: memory; D: d_model; N: micro-batches.
"""

import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import language_sections as sections
from experiments import members
from experiments.common import build as build_lib
from experiments.common import distributed
from experiments.common import methods
from experiments.common import optimizer as optimizers
from experiments.common import sharding
from experiments.common import step as step_lib
from experiments.common import storage as storage_lib
from experiments.data import segments
from experiments.models import transformer_xl


class Plan(NamedTuple):
  """What a config says, checked, before any text is read."""

  model: transformer_xl.TransformerXL  # as it is trained
  evaluated: transformer_xl.TransformerXL  # as it is evaluated
  num_layers: int
  vocab_size: int
  recipes: dict[float, members.MakeRecipe]  # by alpha
  training: sections.Training
  evaluation: sections.Evaluation
  params: Any  # shapes of theta


def make_plan(
  *,
  data: dict,
  model: dict,
  evaluation: dict,
  powerprop: dict,
  method: dict,
  optimizer: dict,
  train: dict,
) -> Plan:
  """Returns what a config says, without reading a text.

  Raises:
    ValueError: If anything in a section is unknown, missing, mistyped or out of
      range.
  """
  build_lib.build(sections.TEXTS, data, name='config.data')
  alphas, optimizer_in = build_lib.call(
    members.parameterization, powerprop, name='config.powerprop'
  )
  training = build_lib.call(sections.training, train, name='config.train')
  trained = build_lib.call(
    transformer_xl.transformer_xl, model, name='config.model'
  )
  shape, clamp_len, same_length = build_lib.call(
    sections.evaluation,
    evaluation,
    name='config.evaluation',
    mesh=training.mesh,
  )
  changed = {**model, 'clamp_len': clamp_len, 'same_length': same_length}
  evaluated = build_lib.call(
    transformer_xl.transformer_xl, changed, name='config.evaluation'
  )
  sections.check_memory('train', training.memory_len, model['same_length'])
  sections.check_memory('evaluation', shape.memory_len, same_length)
  made_method = build_lib.build(methods.METHODS, method, name='config.method')
  if made_method.num_score_batches:
    raise ValueError(
      'config.method.name: expected a method that needs no scores before '
      f'training, got {method["name"]!r}'
    )
  made_optimizer = build_lib.build(
    optimizers.OPTIMIZERS, optimizer, name='config.optimizer'
  )
  params = jax.eval_shape(trained.init, jax.random.key(0))
  methods.check_exclude(made_method, params)
  recipes = {
    alpha: members.make_recipe(
      functools.partial(_init, trained, training),
      make_objective(trained),
      made_method,
      made_optimizer,
      alpha=alpha,
      optimizer_in=optimizer_in,
      num_micro=training.num_micro,
      skips=training.skips,
    )
    for alpha in alphas
  }
  plan = Plan(
    trained,
    evaluated,
    model['num_layers'],
    model['vocab_size'],
    recipes,
    training,
    shape,
    params,
  )
  sections.check_storage(made_method.storage, train['model_devices'])
  for alpha in alphas:
    # So that a bad density is an error now, or a layer that cannot be compact.
    state = state_shapes(plan, alpha)
    members.check_model(recipes[alpha], state, batch_shapes(plan))
  return plan


def make_objective(
  model: transformer_xl.TransformerXL,
) -> step_lib.Objective:
  """Returns the objective: the mean of -log p of the next token, in nats.

  The network's state is the memory of each micro-batch, a `Memory` with leaves
  [N, B / N, ...]. A call sees the first of them and puts what it leaves last,
  so that after the N calls of a step each is back in its place.

  Args:
    model: what is trained on batches of `segments.Segments`.
  """

  def objective(weights, net_state, key, batch, is_training):
    memory = jax.tree.map(lambda x: x[0], net_state)
    nll, memory = model.apply(
      weights,
      forget(memory, batch.is_first),
      key,
      batch.inputs,
      batch.targets,
      is_training,
    )
    net_state = jax.tree.map(
      lambda rest, new: jnp.concatenate([rest[1:], new[None]]),
      net_state,
      memory,
    )
    return jnp.mean(nll), ({}, net_state)

  return objective


def forget(
  memory: transformer_xl.Memory, is_first: jax.Array
) -> transformer_xl.Memory:
  """Returns a memory that holds nothing in the rows of a new text."""
  return memory._replace(length=jnp.where(is_first, 0, memory.length))


def state_shapes(plan: Plan, alpha: float) -> step_lib.TrainState:
  """Returns the shapes of a member's training state, with their shardings."""
  return storage_lib.shapes(
    plan.recipes[alpha](0).storage.pack,
    masked_shapes(plan, alpha),
    lambda state: _divided(plan, state),
  )


def masked_shapes(plan: Plan, alpha: float) -> step_lib.TrainState:
  """Returns the same of the state that a member begins with, masked."""
  return _divided(
    plan,
    jax.eval_shape(lambda: members.init_state(plan.recipes[alpha], 0)),
  )


def _divided(plan: Plan, state: step_lib.TrainState) -> step_lib.TrainState:
  """Returns the shapes of a state, divided among devices.

  The memory is divided as the batch is; parameters, the optimizer's state and
  the active sets among the devices of a model.
  """
  mesh = plan.training.mesh
  divided = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding.over_model(mesh, x.shape)
    ),
    state,
  )
  return divided._replace(
    net_state=distributed.with_sharding(
      state.net_state, distributed.over_data(mesh, 1)
    )
  )


def batch_shapes(plan: Plan) -> segments.Segments:
  """Returns the shapes of a training batch, with their shardings."""
  training = plan.training
  row = (training.batch_size,)
  both = (*row, training.segment_len)
  shapes = segments.Segments(
    jax.ShapeDtypeStruct(both, jnp.int32),
    jax.ShapeDtypeStruct(both, jnp.int32),
    jax.ShapeDtypeStruct(row, bool),
    jax.ShapeDtypeStruct(both, jnp.float32),
  )
  return distributed.with_sharding(shapes, distributed.over_data(training.mesh))


def _init(model, training: sections.Training, key):
  """Returns theta, and a memory of each micro-batch that holds nothing."""
  num = training.num_micro
  memory = model.memory(training.batch_size, training.memory_len)
  memory = jax.tree.map(
    lambda x: jnp.reshape(x, (num, -1, *x.shape[1:])), memory
  )
  return model.init(key), memory
