"""What a sparse method adds to a training step of ResNet-50.

  python -m benchmarks.vision [--batch_size=8] [--rounds=9] [--record=DIR]

Full images (224 pixels), float32, the recipe of `configs/imagenet_resnet50.py`,
random data. A step that changes the sets is timed apart from one that does not;
of 100 steps one does: (99 a + b) / 100, as a multiple of the dense step. The
cases are timed in turns; medians of ratios within a round.
"""

import argparse
from collections.abc import Sequence
import functools
import json
import pathlib
import statistics
import sys

# Run as a script, Python looks for packages next to it only.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

from benchmarks import record
from benchmarks import timing
from configs import imagenet_resnet50
from experiments import members
from experiments import plan as plan_lib
from experiments.common import build
from experiments.common import step as step_lib

EVERY = 100


def make_plan(variant: str, batch_size: int) -> plan_lib.Plan:
  config = imagenet_resnet50.get_config(variant)
  config.model.compute_dtype = 'float32'
  config.train.update(batch_size=batch_size, num_devices=1)
  sections = json.loads(json.dumps(config.to_dict()))
  for key in ('experiment', 'seeds', 'side_by_side'):
    sections.pop(key)
  return build.call(plan_lib.make_plan, sections)


def at_count(state, count: int):
  """Returns the state as if `count` updates had been made."""

  def is_sparse(node):
    return hasattr(node, 'sets') and hasattr(node, 'count')

  def put(node):
    return node._replace(count=jnp.int32(count)) if is_sparse(node) else node

  opt_state = jax.tree.map(put, state.opt_state, is_leaf=is_sparse)
  return state._replace(opt_state=opt_state)


def make_cases(batch_size: int):
  batch = step_lib.Batch(
    jax.random.normal(jax.random.key(0), (batch_size, 224, 224, 3)),
    jnp.arange(batch_size, dtype=jnp.int32),
  )
  cases = {}
  for variant in ('dense', 'topkast', 'rigl'):
    plan = make_plan(variant, batch_size)
    [make] = plan.recipes.values()
    state = jax.jit(functools.partial(members.init_state, make))(0)

    def step(state, make=make):
      return step_lib.train_step(make(0), state, batch, jax.random.key(1))

    step = jax.jit(step)
    cases[variant] = functools.partial(step, at_count(state, 1))
    if variant != 'dense':
      due = at_count(state, EVERY - 1)
      cases[f'{variant}, sets change'] = functools.partial(step, due)
  return cases


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=9)
  record.add_argument(parser)
  given = parser.parse_args(arguments)
  figures = record.Record('vision', arguments)
  seconds = timing.interleave(make_cases(given.batch_size), given.rounds)
  print(f'ResNet-50, batch of {given.batch_size}, {given.rounds} rounds')
  for name, times in seconds.items():
    print(f'  {name:26} {statistics.median(times):8.3f} s')
    figures.add(name, 'time', statistics.median(times), 's', given.rounds)
  for variant in ('topkast', 'rigl'):
    ratio = statistics.median(
      ((EVERY - 1) * a + b) / EVERY / dense
      for a, b, dense in zip(
        seconds[variant],
        seconds[f'{variant}, sets change'],
        seconds['dense'],
        strict=True,
      )
    )
    print(f'  {variant}, a change every {EVERY} steps: {ratio:.3f} x dense')
    figures.add(variant, 'ratio', ratio, rounds=given.rounds)
  figures.write(given.record)


if __name__ == '__main__':
  main()
