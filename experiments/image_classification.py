"""Image classification with sparse networks: from a config to metrics."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pruning
from experiments.common import build as build_lib
from experiments.common import loop
from experiments.common import methods
from experiments.common import optimizer as optimizers
from experiments.common import step as step_lib
from experiments.data import mnist
from experiments.data import order
from experiments.models import lenet
import powerprop as powerprop_lib

DATA = {'mnist': mnist.load}
MODELS = {'lenet': lenet.lenet}
HISTOGRAM = {'num_bins': 201, 'limit': 0.3}


class Experiment(NamedTuple):
  """A config, checked and built."""

  units: tuple[loop.Unit, ...]
  schedule: loop.Schedule
  keep: int  # checkpoints that rotate


class Parts(NamedTuple):
  """What the members of an experiment have in common."""

  network: Any
  method: methods.Method
  optimizer: Any
  optimizer_in: str  # 'theta' | 'phi'
  splits: Any  # of the data: train, validation, test, each a Batch
  levels: pruning.Levels
  batch_size: int


def build(
  *,
  seeds: tuple[int, ...],
  side_by_side: str,
  data: dict,
  model: dict,
  powerprop: dict,
  method: dict,
  optimizer: dict,
  train: dict,
  prune: dict,
) -> Experiment:
  """Returns the experiment that the sections of a config describe.

  One member is trained for each alpha and each seed; members of one seed see
  the same batches and begin with the same theta.

  Raises:
    ValueError: If anything in a section is unknown, missing, mistyped or out of
      range, or the data are not there; before any training.
  """
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise ValueError(
      f'config.seeds: expected different seeds, each >= 0, got {seeds}'
    )
  alphas, optimizer_in = build_lib.call(
    _parameterization, powerprop, name='config.powerprop'
  )
  batch_size, keep, schedule = build_lib.call(
    _schedule, train, name='config.train'
  )
  network = build_lib.build(MODELS, model, name='config.model')
  made_method = build_lib.build(methods.METHODS, method, name='config.method')
  made_optimizer = build_lib.build(
    optimizers.OPTIMIZERS, optimizer, name='config.optimizer'
  )
  splits = build_lib.build(DATA, data, name='config.data')
  splits = jax.device_put(
    type(splits)(*(step_lib.Batch(*split) for split in splits))
  )
  if not 1 <= batch_size <= len(splits.train.labels):
    raise ValueError(
      f'config.train.batch_size: expected 1 to {len(splits.train.labels)}, the '
      f'number of training examples, got {batch_size}'
    )
  levels = build_lib.call(
    pruning.make_levels,
    prune,
    name='config.prune',
    params=_shapes(network, splits),
  )
  parts = Parts(
    network,
    made_method,
    made_optimizer,
    optimizer_in,
    splits,
    levels,
    batch_size,
  )
  groups = _groups(seeds, side_by_side)
  units = tuple(
    unit for alpha in alphas for unit in _make_units(parts, alpha, groups)
  )
  for unit in units[:: len(groups)]:
    jax.eval_shape(unit.init)  # so that a bad density is an error now
  return Experiment(units, schedule, keep)


def _parameterization(*, alphas: tuple[float, ...], optimizer_in: str):
  if not alphas or len(set(alphas)) < len(alphas):
    raise ValueError(
      f'config.powerprop.alphas: expected different, got {alphas}'
    )
  if bad := [alpha for alpha in alphas if not alpha >= 1]:
    raise ValueError(f'config.powerprop.alphas: expected alpha >= 1, got {bad}')
  if optimizer_in not in methods.SPACES:
    raise ValueError(
      f'config.powerprop.optimizer_in: expected one of {methods.SPACES}, got '
      f'{optimizer_in!r}'
    )
  return alphas, optimizer_in


def _schedule(
  *,
  batch_size: int,
  num_steps: int,
  log_every: int,
  eval_every: int,
  checkpoint_every: int,
  keep_checkpoints: int,
):
  if keep_checkpoints < 1:
    raise ValueError(
      f'config.train.keep_checkpoints: expected >= 1, got {keep_checkpoints}'
    )
  schedule = loop.make_schedule(
    num_steps=num_steps,
    log_every=log_every,
    eval_every=eval_every,
    checkpoint_every=checkpoint_every,
  )
  return batch_size, keep_checkpoints, schedule


def _groups(seeds, side_by_side: str) -> list[tuple[int, ...]]:
  """Returns which seeds are trained at once.

  On a CPU one after another was measured faster (benchmarks/loop.py); an
  accelerator is idle most of the time with one small network.
  """
  if side_by_side not in ('auto', 'always', 'never'):
    raise ValueError(
      "config.side_by_side: expected 'auto', 'always' or 'never', got "
      f'{side_by_side!r}'
    )
  together = side_by_side == 'always' or (
    side_by_side == 'auto' and jax.default_backend() != 'cpu'
  )
  return [tuple(seeds)] if together else [(seed,) for seed in seeds]


def _shapes(network, splits):
  example = jax.ShapeDtypeStruct(
    (1, *splits.train.inputs.shape[1:]), jnp.float32
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  params, _ = jax.eval_shape(
    lambda key, x: network.init(key, x, True), key, example
  )
  return params


def _make_units(parts: Parts, alpha: float, groups) -> list[loop.Unit]:
  """Returns the units of one alpha; they share what is compiled."""
  splits = parts.splits

  def make_recipe(seed):
    return step_lib.Recipe(
      parts.network,
      lambda phi: powerprop_lib.to_weights(phi, alpha),
      lambda theta: powerprop_lib.from_weights(theta, alpha),
      parts.method.weights,
      parts.method.density,
      step_lib.cross_entropy,
      methods.make_optimizer(
        parts.method,
        parts.optimizer,
        alpha=alpha,
        optimizer_in=parts.optimizer_in,
        seed=seed,
      ),
    )

  def init(seed):
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return step_lib.init_state(
      make_recipe(seed), key, jnp.asarray(splits.train.inputs[:1])
    )

  def train(state, seed, indices, examples):
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return step_lib.train_steps(
      make_recipe(seed), state, examples, indices, key
    )

  def see(state):
    return step_lib.seen_weights(make_recipe(0), state)

  def evaluate(state, examples):
    return step_lib.evaluate(
      make_recipe(0), see(state), state.net_state, examples
    )

  def curve(state, initial, examples):
    return pruning.curve(
      lambda pruned: step_lib.evaluate(
        make_recipe(0), pruned, state.net_state, examples
      ),
      parts.levels,
      see(state),
      see(initial),
    )

  # Of these every argument and result has members along its leading axis.
  init_all = jax.jit(jax.vmap(init))
  train_all = jax.jit(_over_members(train, 3), donate_argnums=0)
  evaluate_all = jax.jit(_over_members(evaluate, 1))
  curve_all = jax.jit(_over_members(curve, 2))
  see_all = jax.jit(jax.vmap(see))

  def make_unit(seeds):
    seed_array = np.array(seeds, np.uint32)

    def train_unit(state, first_step, num_steps):
      indices = [
        order.batch_indices(
          seed,
          first_step,
          num_steps,
          parts.batch_size,
          len(splits.train.labels),
        )
        for seed in seeds
      ]
      return train_all(state, seed_array, np.stack(indices), splits.train)

    def finish(state):
      initial = init_all(seed_array)
      results = (
        evaluate_all(state, splits.test),
        curve_all(state, initial, splits.test),
        see_all(initial),
        see_all(state),
      )
      results = jax.device_get(results)
      return [
        _rows(parts.levels, *jax.tree.map(lambda x, i=i: x[i], results))
        for i in range(len(seeds))
      ]

    return loop.Unit(
      tuple({'alpha': alpha, 'seed': seed} for seed in seeds),
      lambda: init_all(seed_array),
      train_unit,
      lambda state: evaluate_all(state, splits.validation),
      finish,
    )

  return [make_unit(seeds) for seeds in groups]


def _over_members(fn, num_mapped: int):
  """Returns `fn` over the leading axis of its first arguments.

  A single member is trained without vmap, under which a refresh that is not due
  would be computed all the same (`cond` becomes `select`).
  """

  def over_members(*args):
    mapped, shared = args[:num_mapped], args[num_mapped:]
    if len(jax.tree.leaves(mapped)[0]) > 1:
      axes = (0,) * num_mapped + (None,) * len(shared)
      return jax.vmap(fn, axes)(*args)
    result = fn(*jax.tree.map(lambda x: x[0], mapped), *shared)
    return jax.tree.map(lambda x: x[None], result)

  return over_members


def _rows(levels: pruning.Levels, test, curve, before, after) -> list[loop.Row]:
  """Returns the final rows of one member."""
  rows = [{'split': 'test', **_floats(test)}]
  for i, share in enumerate(levels.shares):
    if i and curve['density'][i] <= curve['density'][i - 1]:
      break  # a sparse network has no more weights to keep
    at_level = _floats({name: values[i] for name, values in curve.items()})
    rows.append({'split': 'pruned', 'share': share, **at_level})
  for when, weights in (('before', before), ('after', after)):
    bins = pruning.histogram(weights, **HISTOGRAM)
    rows.append({'split': 'histogram', 'when': when, **bins})
  return rows


def _floats(values) -> dict[str, float]:
  return {name: float(value) for name, value in values.items()}
