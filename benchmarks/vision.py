"""The cost of a sparse method in a training step of ResNet-50.

  python -m benchmarks.vision [--quick] [--record=DIR]

Full images (224 pixels), batches of 8, float32, the recipe of
`configs/imagenet_resnet50.py`, random data. Steps that change the sets are
timed apart from the others; one of 100 does: (99 a + b) / 100, as a multiple of
the dense step.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import optax

from benchmarks import record
from benchmarks import storage
from experiments import methods
from experiments import step as step_lib
from experiments.tasks import base
from experiments.tasks import classification

EVERY = 100
BATCH_SIZE = 8
OVERRIDES = (
  '--config.model.compute_dtype=float32',
  f'--config.train.batch_size={BATCH_SIZE}',
  '--config.train.num_devices=1',
)


def at_count(state: base.State, count: int) -> base.State:
  """Returns the state as after `count` updates."""
  opt_state = optax.tree.set(state.opt_state, count=jnp.int32(count))
  return state._replace(opt_state=opt_state)


def make_cases():
  """Returns compiled steps by name."""
  batch = classification.Batch(
    jax.random.normal(jax.random.key(0), (BATCH_SIZE, 224, 224, 3)),
    jnp.arange(BATCH_SIZE, dtype=jnp.int32),
  )
  cases = {}
  for variant in ('dense', 'topkast', 'rigl'):
    name = f'configs/imagenet_resnet50.py:{variant}'
    task = storage.make_task(name, OVERRIDES)
    state = task.stages[0].begin(0, None)

    def step(state, objective=task.objective):
      return step_lib.train_step(
        objective, state, 0, methods.training_key(0), batch
      )

    step = jax.jit(step)
    cases[variant] = functools.partial(step, at_count(state, 1))
    if variant != 'dense':
      due = at_count(state, EVERY - 1)
      cases[f'{variant}, sets change'] = functools.partial(step, due)
  return cases


def main() -> None:
  given, figures = record.start('vision', __doc__)
  rounds = 1 if given.quick else 9
  seconds = record.interleave(make_cases(), rounds)
  for name, times in seconds.items():
    figures.add(name, 'time', statistics.median(times), 's', rounds)
  for variant in ('topkast', 'rigl'):
    pairs = zip(
      seconds[variant], seconds[f'{variant}, sets change'], strict=True
    )
    mean = [((EVERY - 1) * a + b) / EVERY for a, b in pairs]
    ratio = record.ratio(mean, seconds['dense'])
    figures.add(variant, 'ratio', ratio, rounds=rounds)
  figures.write(given.record)


if __name__ == '__main__':
  main()
