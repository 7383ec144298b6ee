"""Runs that differ in a few numbers, trained side by side on one device.

The networks of all runs of a pack are members of one training under `vmap`:
their seeds, learning rates and coefficients are inputs with an axis of members.
An alpha is part of the compiled program, for its power is built of products; of
several alphas every member computes all powers, elementwise, and takes its own.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import members as members_lib
from experiments import plan as plan_lib
from experiments import report as report_lib
from experiments.common import build as build_lib
from experiments.common import classification
from experiments.common import experiment as experiment_lib
from experiments.common import feed as feed_lib
from experiments.common import loop
from experiments.common import methods
from experiments.common import optimizer as optimizers
from experiments.data import table as data_table
import powerprop
from powerprop import reparam
import topkast

# In place of a loss that is not finite, with which the loop would end the pack;
# no loss of a network is as large.
DIVERGED = float(np.finfo(np.float32).max)


class Member(NamedTuple):
  """A network of a pack."""

  run: int
  alpha: float
  seed: int
  learning_rate: float
  weight_decay: float
  penalty: float  # 0 where the method has none


def members_of(configs: Sequence[dict[str, Any]]) -> list[Member]:
  """Returns the networks of all runs, run by run, in their own order."""
  return [
    Member(
      run,
      alpha,
      seed,
      config['optimizer']['learning_rate'],
      config['optimizer']['weight_decay'],
      config['method'].get('penalty', 0.0),
    )
    for run, config in enumerate(configs)
    for alpha in config['powerprop']['alphas']
    for seed in config['seeds']
  ]


def build(configs: Sequence[dict[str, Any]]) -> experiment_lib.Experiment:
  """Returns the experiment that trains all networks of all runs at once.

  Args:
    configs: of image classification on data that lie on the device, equal but
      for what `grouping.FREE` names.

  Raises:
    ValueError: As `image_classification.build`.
  """
  sections = dict(configs[0])
  for key in ('experiment', 'seeds', 'side_by_side'):
    del sections[key]
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  networks = members_of(configs)
  recipe = _make_recipe(plan, sections, networks)
  seeds = np.array([member.seed for member in networks], np.uint32)

  def seed_of(index):
    if isinstance(index, int):
      return int(seeds[index])
    return jnp.asarray(seeds)[index]

  def totals(weights, net_state, batch, counts):
    return classification.totals(
      plan.network, weights, net_state, batch, counts
    )

  source = build_lib.build(data_table.DATA, sections['data'])
  steps = feed_lib.Steps(recipe, totals, classification.means, seed_of)
  [unit] = members_lib.make_units(
    recipe,
    feed_lib.from_arrays(source, steps, plan.shape),
    alpha=0.0,
    groups=[tuple(range(len(networks)))],
    levels=plan.levels,
    num_steps=plan.num_steps,
    num_score_batches=plan.num_score_batches,
    mesh=plan.shape.mesh,
    seed_of=seed_of,
  )
  unit = _bearing_divergence(unit)._replace(
    members=tuple(
      {'run': member.run, 'alpha': member.alpha, 'seed': member.seed}
      for member in networks
    )
  )
  return experiment_lib.Experiment(
    (unit,), plan.schedule, plan.keep, report_lib.report
  )


def _make_recipe(plan: plan_lib.Plan, sections, networks: Sequence[Member]):
  """Returns the function from a member's index to how it is trained."""
  alphas = sorted({member.alpha for member in networks})
  which = np.array([alphas.index(m.alpha) for m in networks], np.int32)
  varying = {
    name: np.array([getattr(m, name) for m in networks], np.float32)
    for name in ('learning_rate', 'weight_decay', 'penalty')
    if len({getattr(m, name) for m in networks}) > 1
  }
  base = plan.recipes[plan.alphas[0]](0)

  def recipe(index, scores=None):
    index = jnp.asarray(index, jnp.int32)
    own = {name: jnp.asarray(x)[index] for name, x in varying.items()}

    def choose(function):
      return _of_alpha(function, alphas, jnp.asarray(which)[index])

    method = _method(sections['method'], own.pop('penalty', None))
    inner = optax.chain(method.link, _optimizer(sections['optimizer'], own))
    scale = choose(reparam.scale_by_derivative)
    to_weights = choose(powerprop.to_weights)
    if sections['powerprop']['optimizer_in'] == 'theta':
      inner = _in_theta(inner, to_weights, scale)
    else:
      inner = optax.chain(
        optax.stateless(lambda updates, params: scale(updates, params)), inner
      )
    seeds = jnp.asarray([member.seed for member in networks], jnp.uint32)
    return base._replace(
      to_weights=to_weights,
      from_weights=choose(powerprop.from_weights),
      optimizer=method.wrap(inner, seeds[index], scores),
    )

  return recipe


def _of_alpha(function, alphas, which) -> Callable[..., Any]:
  """Returns `function` of trees and the alpha that `which` chooses."""

  def of_alpha(*trees):
    results = [function(*trees, alpha) for alpha in alphas]
    if len(results) == 1:
      return results[0]
    return jax.tree.map(lambda *xs: jax.lax.select_n(which, *xs), *results)

  return of_alpha


def _in_theta(inner, to_weights, scale) -> optax.GradientTransformation:
  """Returns `powerprop.powerprop(inner, alpha)` of a chosen alpha."""
  inner = optax.with_extra_args_support(inner)

  def update(updates, state, params=None, **extra):
    updates, state = inner.update(updates, state, to_weights(params), **extra)
    return scale(updates, params), state

  return optax.GradientTransformationExtraArgs(
    lambda params: inner.init(to_weights(params)), update
  )


def _optimizer(section, own) -> optax.GradientTransformation:
  section = {**section, **own}
  return optimizers.OPTIMIZERS[section.pop('name')](**section)


def _method(section, penalty) -> methods.Method:
  if penalty is None:
    return build_lib.build(methods.METHODS, section, name='config.method')
  section = {**section, 'penalty': 0.0}
  method = build_lib.build(methods.METHODS, section, name='config.method')
  return method._replace(link=_penalty(penalty, section['penalty_kind']))


def _penalty(coefficient, kind: str) -> optax.GradientTransformation:
  """Returns Top-KAST's exploration penalty of a traced coefficient."""
  unit = topkast.exploration_penalty(1.0, kind)

  def update(updates, state, params=None, **extra):
    zeros = jax.tree.map(jnp.zeros_like, updates)
    slopes, state = unit.update(zeros, state, params, **extra)
    return optax.tree.add_scale(updates, coefficient, slopes), state

  return optax.GradientTransformationExtraArgs(unit.init, update)


def _bearing_divergence(unit: loop.Unit) -> loop.Unit:
  """Returns a unit of which one member may diverge without the others.

  Its parameters are not finite then and stay so, whatever is resumed.
  """

  def train(state, first_step, num_steps):
    state, metrics = unit.train(state, first_step, num_steps)
    loss = jnp.where(
      jnp.isfinite(metrics['loss']), metrics['loss'], jnp.float32(DIVERGED)
    )
    return state, {**metrics, 'loss': loss}

  def report(state):
    return unit.report(_without_infinities(state))

  return unit._replace(train=train, report=report)


@jax.jit
def _without_infinities(tree):
  return jax.tree.map(
    lambda x: (
      jnp.nan_to_num(x, posinf=0.0, neginf=0.0)
      if jnp.issubdtype(x.dtype, jnp.floating)
      else x
    ),
    tree,
  )
