"""Image classification with sparse networks: from a config to metrics."""

import jax
import jax.numpy as jnp

from experiments import export
from experiments import members
from experiments import plan as plan_lib
from experiments import report as report_lib
from experiments.common import build as build_lib
from experiments.common import classification
from experiments.common import distributed
from experiments.common import experiment as experiment_lib
from experiments.common import feed as feed_lib
from experiments.common import step as step_lib
from experiments.common import storage as storage_lib
from experiments.data import table as data_table


def build(
  *,
  seeds: tuple[int, ...],
  side_by_side: str,
  data: dict,
  **sections: dict,
) -> experiment_lib.Experiment:
  """Returns the experiment that the sections of a config describe.

  One member is trained for each alpha and each seed; members of one seed see
  the same batches and begin with the same theta.

  Args:
    seeds: each of its own, at least 0.
    side_by_side: 'auto', 'always' or 'never': whether seeds are trained at
      once.
    data: the section of `experiments.data.table.DATA`.
    **sections: the others, those of `plan.make_plan`.

  Raises:
    ValueError: If anything in a section is unknown, missing, mistyped or out of
      range, or the data are not there; before any training.
  """
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise ValueError(
      f'config.seeds: expected different seeds, each >= 0, got {seeds}'
    )
  plan = build_lib.call(
    plan_lib.make_plan, {'data': data, **sections}, name='config'
  )
  groups = plan_lib.groups(plan, seeds, side_by_side)
  source = build_lib.build(data_table.DATA, data, name='config.data')
  num_train = (
    source.num_train if plan.spec.is_stream else len(source.train.labels)
  )
  if not plan.shape.batch_size <= num_train:
    raise ValueError(
      f'config.train.batch_size: expected 1 to {num_train}, the number of '
      f'training examples, got {plan.shape.batch_size}'
    )
  units = tuple(
    unit
    for recipe, alpha in zip(plan.recipes.values(), plan.alphas, strict=True)
    for unit in members.make_units(
      recipe,
      _make_feed(plan, source, recipe),
      alpha=alpha,
      groups=groups,
      levels=plan.levels,
      num_steps=plan.num_steps,
      num_score_batches=plan.num_score_batches,
      mesh=plan.shape.mesh,
    )
  )
  return experiment_lib.Experiment(
    units, plan.schedule, plan.keep, report_lib.report
  )


def outlines(
  *, seeds: tuple[int, ...], side_by_side: str, **sections: dict
) -> list[experiment_lib.Outline]:
  """Returns what is known of an experiment without its data, by alpha.

  Raises:
    ValueError: As `build`.
  """
  del seeds, side_by_side
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  return [_outline(plan, alpha) for alpha in plan.alphas]


def trained(
  *, seeds: tuple[int, ...], side_by_side: str, **sections: dict
) -> list[export.Trained]:
  """Returns the networks that a run of this config leaves.

  Raises:
    ValueError: As `build`.
  """
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  groups = plan_lib.groups(plan, seeds, side_by_side)
  found = []
  for alpha in plan.alphas:
    one = plan_lib.state_shapes(plan, alpha)
    for group in groups:
      position = (len(found) // len(seeds) * len(groups)) * plan.num_steps
      position += (groups.index(group) + 1) * plan.num_steps
      like = _stacked(one, len(group))
      found += [
        export.Trained(
          {'alpha': alpha, 'seed': seed},
          position,
          like,
          _extraction(plan.recipes[alpha](0), i),
          feed_lib.of_members(plan.recipes[alpha](0).storage),
        )
        for i, seed in enumerate(group)
      ]
  return found


def _make_feed(plan: plan_lib.Plan, source, recipe) -> feed_lib.Feed:
  def totals(weights, net_state, batch, counts):
    return classification.totals(
      plan.network, weights, net_state, batch, counts
    )

  steps = feed_lib.Steps(recipe, totals, classification.means)
  make = feed_lib.from_stream if plan.spec.is_stream else feed_lib.from_arrays
  return make(source, steps, plan.shape)


def _stacked(tree, num: int):
  """Returns the shapes of several states, side by side."""
  stacked = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((num, *x.shape), x.dtype), tree
  )
  return storage_lib.on_host(stacked)


def _extraction(recipe: step_lib.Recipe, index: int):
  def extract(states):
    state = jax.tree.map(lambda x: x[index], states)
    state = recipe.storage.unpack(state)
    weights = step_lib.seen_weights(recipe, state)
    return weights, recipe.masks(state.params, state.opt_state), state.net_state

  return extract


def _outline(plan: plan_lib.Plan, alpha: float) -> experiment_lib.Outline:
  mesh = plan.shape.mesh

  def step(state, seed, batch):
    key = jax.random.key(seed)
    return step_lib.train_step(plan.recipes[alpha](seed), state, batch, key)

  state = plan_lib.state_shapes(plan, alpha)
  return experiment_lib.Outline(
    f'alpha = {alpha:g}, batch of {plan.shape.batch_size} on {mesh.size} '
    'device(s)',
    plan.params,
    step,
    (
      distributed.with_sharding(
        storage_lib.on_device(state), distributed.replicated(mesh)
      ),
      jax.ShapeDtypeStruct((), jnp.uint32),
      distributed.with_sharding(
        plan_lib.batch_shapes(plan), distributed.over_data(mesh)
      ),
    ),
    storage_lib.describe(state),
  )
