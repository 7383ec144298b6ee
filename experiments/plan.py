"""What the config of an image classification says, before any data are read."""

from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from experiments import members
from experiments import pruning
from experiments.common import build as build_lib
from experiments.common import classification
from experiments.common import distributed
from experiments.common import feed as feed_lib
from experiments.common import loop
from experiments.common import methods
from experiments.common import optimizer as optimizers
from experiments.common import step as step_lib
from experiments.common import storage as storage_lib
from experiments.data import table as data_table
from experiments.models import table as model_table


class Plan(NamedTuple):
  """What a config says, checked, before any data are read."""

  network: hk.TransformedWithState  # called (images, is_training)
  spec: data_table.Spec
  recipes: dict[float, members.MakeRecipe]  # by alpha
  alphas: tuple[float, ...]
  num_score_batches: int
  levels: pruning.Levels
  shape: feed_lib.Shape
  schedule: loop.Schedule
  num_steps: int
  keep: int
  params: Any  # shapes of theta
  net_state: Any  # shapes


def make_plan(
  *,
  data: dict,
  model: dict,
  powerprop: dict,
  method: dict,
  optimizer: dict,
  loss: dict,
  train: dict,
  prune: dict,
) -> Plan:
  """Returns what a config says, without reading data.

  Raises:
    ValueError: If anything in a section is unknown, missing, mistyped or out of
      range.
  """
  spec = build_lib.build(data_table.SPECS, data, name='config.data')
  alphas, optimizer_in = build_lib.call(
    members.parameterization, powerprop, name='config.powerprop'
  )
  training = build_lib.call(_training, train, name='config.train')
  network = build_lib.build(
    model_table.MODELS, model, name='config.model', num_classes=spec.num_classes
  )
  made_method = build_lib.build(methods.METHODS, method, name='config.method')
  made_optimizer = build_lib.build(
    optimizers.OPTIMIZERS, optimizer, name='config.optimizer'
  )
  objective = build_lib.call(
    classification.make_objective,
    loss,
    name='config.loss',
    network=network,
    augment=spec.augment,
  )
  init = _make_init(network, spec.example_shape)
  params, net_state = jax.eval_shape(init, jax.random.key(0))
  methods.check_exclude(made_method, params)
  levels = build_lib.call(
    pruning.make_levels, prune, name='config.prune', params=params
  )
  recipes = {
    alpha: members.make_recipe(
      init,
      objective,
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
    network,
    spec,
    recipes,
    alphas,
    made_method.num_score_batches,
    levels,
    training.shape,
    training.schedule,
    training.num_steps,
    training.keep,
    params,
    net_state,
  )
  for alpha in alphas:
    # So that a bad density is an error now, or a layer that cannot be compact.
    state = state_shapes(plan, alpha)
    members.check_model(plan.recipes[alpha], state, batch_shapes(plan))
  return plan


def state_shapes(plan: Plan, alpha: float) -> Any:
  """Returns the shapes of a member's training state."""
  scores = plan.params if plan.num_score_batches else None
  state = jax.eval_shape(
    lambda scores: members.init_state(plan.recipes[alpha], 0, scores), scores
  )
  storage = plan.recipes[alpha](0).storage
  return storage_lib.shapes(storage.pack, state, lambda tree: tree)


def batch_shapes(plan: Plan) -> Any:
  """Returns the shapes of a training batch."""
  size = plan.shape.batch_size
  return step_lib.Batch(
    jax.ShapeDtypeStruct((size, *plan.spec.example_shape), jnp.float32),
    jax.ShapeDtypeStruct((size,), jnp.int32),
  )


def groups(plan: Plan, seeds, side_by_side: str) -> list[tuple[int, ...]]:
  """Returns which seeds are trained at once.

  On a CPU one after another was measured faster (benchmarks/loop.py); an
  accelerator is idle most of the time with one small network.
  """
  is_compact = plan.recipes[plan.alphas[0]](0).storage.is_compact
  if side_by_side not in ('auto', 'always', 'never'):
    raise ValueError(
      "config.side_by_side: expected 'auto', 'always' or 'never', got "
      f'{side_by_side!r}'
    )
  for name, excludes in (
    ('data that are read while training', plan.spec.is_stream),
    ("config.method.storage='compact'", is_compact),
  ):
    if excludes and side_by_side == 'always':
      raise ValueError(
        f"config.side_by_side: expected 'never' with {name}, got 'always'"
      )
  on_cpu = jax.default_backend() == 'cpu'
  together = side_by_side == 'always' or (
    side_by_side == 'auto' and not (on_cpu or plan.spec.is_stream or is_compact)
  )
  return [tuple(seeds)] if together else [(seed,) for seed in seeds]


def _make_init(network, example_shape):
  def init(key):
    return network.init(key, jnp.zeros((1, *example_shape)), True)

  return init


class _Training(NamedTuple):
  shape: feed_lib.Shape
  schedule: loop.Schedule
  num_steps: int
  num_micro: int
  keep: int
  skips: bool


def _training(
  *,
  batch_size: int,
  eval_batch_size: int,
  num_micro: int,
  num_devices: int | None,
  num_steps: int,
  log_every: int,
  eval_every: int,
  checkpoint_every: int,
  keep_checkpoints: int,
  on_not_finite: str,
) -> _Training:
  build_lib.check_least(
    'config.train',
    1,
    batch_size=batch_size,
    eval_batch_size=eval_batch_size,
    num_micro=num_micro,
    num_steps=num_steps,
    keep_checkpoints=keep_checkpoints,
  )
  mesh = distributed.make_mesh(num_devices)
  distributed.check_batch_size(batch_size, mesh, num_micro)
  distributed.check_batch_size(eval_batch_size, mesh)
  schedule = loop.make_schedule(
    log_every=log_every,
    eval_every=eval_every,
    checkpoint_every=checkpoint_every,
  )
  shape = feed_lib.Shape(batch_size, eval_batch_size, mesh)
  skips = step_lib.is_skipping(on_not_finite)
  return _Training(
    shape, schedule, num_steps, num_micro, keep_checkpoints, skips
  )
