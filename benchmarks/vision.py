"""The cost of a sparse method in a training step of ResNet-50.

  python -m benchmarks.vision [--batch_size=8] [--rounds=9] [--record=DIR]

Full images (224 pixels), float32, the recipe of `configs/imagenet_resnet50.py`,
random data. Steps that change the sets are timed apart from the others; one of
100 does: (99 a + b) / 100, as a multiple of the dense step.
"""

import argparse
from collections.abc import Sequence
import functools
import json
import statistics

import jax
import jax.numpy as jnp

from benchmarks import record
from benchmarks import timing
from configs import imagenet_resnet50
from experiments import state as state_lib
from experiments import step as step_lib
from experiments.tasks import base
from experiments.tasks import classification
from experiments.tasks import table as tasks

EVERY = 100


def make_task(variant: str, batch_size: int) -> base.Task:
  """Returns the task of a variant of the config."""
  config = imagenet_resnet50.get_config(variant)
  config.model.compute_dtype = 'float32'
  config.train.update(batch_size=batch_size, num_devices=1)
  plain = json.loads(json.dumps(config.to_dict()))
  plain['seed'] = plain.pop('seeds')[0]
  plain['powerprop']['alpha'] = plain['powerprop'].pop('alphas')[0]
  return tasks.make_task(plain)


def at_count(state: base.State, count: int) -> base.State:
  """Returns the state as after `count` updates."""

  def is_sparse(node):
    return hasattr(node, 'sets') and hasattr(node, 'count')

  def put(node):
    return node._replace(count=jnp.int32(count)) if is_sparse(node) else node

  opt_state = jax.tree.map(put, state.opt_state, is_leaf=is_sparse)
  return state._replace(opt_state=opt_state)


def make_cases(batch_size: int):
  """Returns compiled steps by name."""
  batch = classification.Batch(
    jax.random.normal(jax.random.key(0), (batch_size, 224, 224, 3)),
    jnp.arange(batch_size, dtype=jnp.int32),
  )
  cases = {}
  for variant in ('dense', 'topkast', 'rigl'):
    task = make_task(variant, batch_size)
    state = task.stages[0].begin(0, None)

    def step(state, objective=task.objective):
      return step_lib.train_step(
        objective, state, 0, state_lib.training_key(0), batch
      )

    step = jax.jit(step)
    cases[variant] = functools.partial(step, at_count(state, 1))
    if variant != 'dense':
      due = at_count(state, EVERY - 1)
      cases[f'{variant}, sets change'] = functools.partial(step, due)
  return cases


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=9)
  record.add_argument(parser)
  given = parser.parse_args(arguments)
  rounds, figures = given.rounds, record.Record('vision', arguments)
  seconds = timing.interleave(make_cases(given.batch_size), rounds)
  print(f'ResNet-50, batch of {given.batch_size}, {rounds} rounds')
  for name, times in seconds.items():
    print(f'  {name:26} {statistics.median(times):8.3f} s')
    figures.add(name, 'time', statistics.median(times), 's', rounds)
  for variant in ('topkast', 'rigl'):
    mean = [
      ((EVERY - 1) * a + b) / EVERY
      for a, b in zip(
        seconds[variant], seconds[f'{variant}, sets change'], strict=True
      )
    ]
    ratio = timing.ratio(mean, seconds['dense'])
    print(f'  {variant}, a change every {EVERY} steps: {ratio:.3f} x dense')
    figures.add(variant, 'ratio', ratio, rounds=rounds)
  figures.write(given.record)


if __name__ == '__main__':
  main()
