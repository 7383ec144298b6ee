"""Language models with sparse weights: from a config to metrics.

What is trained is Transformer-XL. Its memory is part of the training state, and
what a step sees is a pure function of the step, so that a run that is stopped
goes on with the same numbers.
"""

from collections.abc import Iterator
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import export
from experiments import language_evaluation as evaluation
from experiments import language_plan as plan_lib
from experiments import language_report
from experiments import language_steps
from experiments import members
from experiments.common import build as build_lib
from experiments.common import distributed
from experiments.common import experiment as experiment_lib
from experiments.common import loop
from experiments.common import run as run_lib
from experiments.common import step as step_lib
from experiments.common import storage as storage_lib
from experiments.data import segments
from experiments.data import text
from experiments.data import vocabulary as vocabulary_lib

VOCABULARY = 'vocabulary.json'  # in the folder of the run


def build(
  *, seeds: tuple[int, ...], data: dict, **sections: dict
) -> experiment_lib.Experiment:
  """Returns the experiment that the sections of a config describe.

  One member is trained for each alpha and each seed, one after another; they
  see the same batches, for a text has one order.

  Args:
    seeds: each of its own, at least 0.
    data: the section of `experiments.data.text.TEXTS`.
    **sections: the others, those of `language_plan.make_plan`.

  Raises:
    ValueError: If anything in a section is unknown, missing, mistyped or out of
      range, or the text is not there or too short; before any training.
  """
  _check_seeds(seeds)
  plan = build_lib.call(
    plan_lib.make_plan, {'data': data, **sections}, name='config'
  )
  corpus = build_lib.build(text.TEXTS, data, name='config.data')
  _check_corpus(plan, corpus)
  units = tuple(
    unit
    for alpha in plan.recipes
    for unit in _units(plan, corpus, alpha, seeds)
  )
  return experiment_lib.Experiment(
    units,
    plan.training.schedule,
    plan.training.keep,
    language_report.report,
    lambda workdir: _check_vocabulary(workdir, corpus.vocabulary),
    lambda workdir: _write_vocabulary(workdir, corpus.vocabulary),
  )


def outlines(
  *, seeds: tuple[int, ...], **sections: dict
) -> list[experiment_lib.Outline]:
  """Returns what is known of an experiment without its text, by alpha.

  Raises:
    ValueError: As `build`.
  """
  _check_seeds(seeds)
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  return [_outline(plan, alpha) for alpha in plan.recipes]


def trained(
  *, seeds: tuple[int, ...], **sections: dict
) -> list[export.Trained]:
  """Returns the networks that a run of this config leaves.

  Their memory is not of the network: there is no state.

  Raises:
    ValueError: As `build`.
  """
  _check_seeds(seeds)
  plan = build_lib.call(plan_lib.make_plan, sections, name='config')
  pairs = [(alpha, seed) for alpha in plan.recipes for seed in seeds]
  return [
    export.Trained(
      {'alpha': alpha, 'seed': seed},
      (i + 1) * plan.training.num_steps,
      plan_lib.state_shapes(plan, alpha),
      _extraction(plan.recipes[alpha](0)),
      plan.recipes[alpha](0).storage,
    )
    for i, (alpha, seed) in enumerate(pairs)
  ]


def _units(
  plan: plan_lib.Plan, corpus: text.Corpus, alpha: float, seeds
) -> Iterator[loop.Unit]:
  """Yields the units of one alpha; they share what is compiled."""
  recipe, training = plan.recipes[alpha], plan.training
  like, masked = (
    shapes(plan, alpha)
    for shapes in (plan_lib.state_shapes, plan_lib.masked_shapes)
  )
  replicated = distributed.replicated(training.mesh)
  unit = corpus.vocabulary.unit
  init = jax.jit(
    lambda seed: members.init_state(recipe, seed),
    out_shardings=_shardings(masked),
  )
  see = jax.jit(lambda state: step_lib.seen_weights(recipe(0), state))
  compiled = language_steps.compile_steps(
    recipe, _shardings(storage_lib.on_device(like)), replicated
  )
  summarize = jax.jit(
    lambda *args: step_lib.summarize(recipe(0), *args),
  )
  masks = jax.jit(lambda state: recipe(0).masks(state.params, state.opt_state))
  storages = functools.cache(lambda seed: recipe(seed).storage)
  loss = evaluation.make_loss(plan)

  def train(state, seed, first_step, num_steps):
    batches = [
      segments.train_batch(
        corpus.train, step, training.batch_size, training.segment_len
      )
      for step in range(first_step, first_step + num_steps)
    ]
    batches = distributed.to_devices(
      jax.tree.map(lambda *xs: np.stack(xs), *batches),
      distributed.over_data(training.mesh, 1),
    )
    before = storages(seed).keep(masks(storage_lib.on_device(state)))
    state, sums = storage_lib.make_steps(
      storages(seed),
      language_steps.of_chunk(compiled, np.uint32(seed), batches),
      state,
      first_step,
      num_steps,
    )
    metrics = jax.tree.map(lambda x: x / num_steps, sums)
    metrics = summarize(storage_lib.on_device(state), metrics, before)
    return state, metrics | evaluation.figures(metrics['loss'], unit)

  def evaluate(state):
    found = loss(see(storage_lib.on_device(state)), corpus.validation)
    return evaluation.figures(found, unit)

  def report(state):
    state = storage_lib.on_device(state)
    weights = see(state)
    test = evaluation.figures(loss(weights, corpus.test), unit)
    validation = evaluation.figures(loss(weights, corpus.validation), unit)
    row = {'split': 'test', **test, 'density': density(state)}
    row |= {f'validation_{name}': x for name, x in validation.items()}
    return [[row]]

  def density(state):
    return float(recipe(0).density(state.params, state.opt_state))

  def start(seed):
    return storages(seed).pack(init(np.uint32(seed)))

  for seed in seeds:
    yield loop.Unit(
      members=({'alpha': alpha, 'seed': seed},),
      num_steps=training.num_steps,
      init=lambda _, seed=seed: start(seed),
      train=lambda state, *steps, seed=seed: train(state, seed, *steps),
      evaluate=evaluate,
      report=report,
      like=lambda: like,
    )


def _shardings(state: Any) -> Any:
  return jax.tree.map(lambda x: x.sharding, state)


def _extraction(recipe: step_lib.Recipe):
  def extract(state):
    state = recipe.storage.unpack(state)
    weights = step_lib.seen_weights(recipe, state)
    return weights, recipe.masks(state.params, state.opt_state), {}

  return extract


def _outline(plan: plan_lib.Plan, alpha: float) -> experiment_lib.Outline:
  training = plan.training

  def step(state, seed, batch):
    key = jax.random.key(seed)
    return step_lib.train_step(plan.recipes[alpha](seed), state, batch, key)

  state = plan_lib.state_shapes(plan, alpha)
  return experiment_lib.Outline(
    f'alpha = {alpha:g}, batch of {training.batch_size} x '
    f'{training.segment_len} on {training.mesh.size} device(s)',
    plan.params,
    step,
    (
      storage_lib.on_device(state),
      jax.ShapeDtypeStruct((), jnp.uint32),
      plan_lib.batch_shapes(plan),
    ),
    storage_lib.describe(state),
  )


def _check_seeds(seeds) -> None:
  if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
    raise ValueError(
      f'config.seeds: expected different seeds, each >= 0, got {seeds}'
    )


def _check_corpus(plan: plan_lib.Plan, corpus: text.Corpus) -> None:
  """Raises unless the model and the batches fit a text.

  Raises:
    ValueError: If they do not.
  """
  size = corpus.vocabulary.size
  if plan.vocab_size != size:
    raise ValueError(
      f'config.model.vocab_size: expected {size}, the number of different '
      f'tokens of the text, got {plan.vocab_size}'
    )
  try:
    segments.steps_per_epoch(
      len(corpus.train), plan.training.batch_size, plan.training.segment_len
    )
  except ValueError as error:
    raise ValueError(f'config.train: {error}') from error
  for name in ('validation', 'test'):
    if len(getattr(corpus, name)) < 2:
      raise ValueError(
        f'config.data: expected at least 2 tokens for {name}, got '
        f'{len(getattr(corpus, name))}; take a longer text'
      )


def _check_vocabulary(
  workdir: pathlib.Path, vocabulary: vocabulary_lib.Vocabulary
) -> None:
  """Raises unless the run in a folder, if there is one, has this vocabulary.

  Raises:
    ValueError: If it has another, or lost its own.
  """
  path = workdir / VOCABULARY
  checkpoints = workdir / 'checkpoints'
  if path.exists() or (checkpoints.is_dir() and any(checkpoints.iterdir())):
    there = vocabulary_lib.read(path)
    vocabulary_lib.check_same(there, vocabulary, path)


def _write_vocabulary(workdir: pathlib.Path, vocabulary: Any) -> None:
  path = workdir / VOCABULARY
  if not path.exists():
    run_lib.write_bytes(path, vocabulary_lib.to_json(vocabulary))
