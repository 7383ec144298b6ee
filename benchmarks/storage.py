"""A step of an experiment with compact against masked storage.

  python -m benchmarks.storage [--quick] [--config=FILE[:VARIANT]]
      [--record=DIR]

The first network of a config makes the same steps in both storages, refreshes
and host work included, evaluation and compilation excluded.
"""

from collections.abc import Sequence

import jax

from benchmarks import record
from experiments import storage as storage_lib
from experiments import trainer
from experiments.sweep import plan
from experiments.tasks import base
from experiments.tasks import table as tasks

CONFIGS = (
  'configs/mnist_topkast.py',
  'configs/mnist_methods.py:rigl',
  'configs/text_transformer_xl.py:topkast',
)


def make_task(name: str, overrides: Sequence[str]) -> base.Task:
  """Returns the task of the first network of a config."""
  return tasks.make_task(plan.make(name, overrides).runs[0].config)


def make_steps(name: str, overrides: Sequence[str], num_steps: int):
  """Returns a function that makes `num_steps` more steps each time."""
  task = make_task(name, overrides)
  stage, (_, store) = task.stages[0], task.objective.method.make(0)
  held, step = [stage.begin(0, None)], [0]

  def run():
    held[0], row = trainer.train_chunk(
      task, store, stage, 0, held[0], step[0], num_steps
    )
    step[0] += num_steps
    jax.block_until_ready(storage_lib.on_device(held[0]))
    return row['loss']

  return run


def main() -> None:
  given, figures = record.start(
    'storage', __doc__, config={'help': 'one config only'}
  )
  for name in (given.config,) if given.config else CONFIGS:
    # A multiple of the refresh interval: each round has as many refreshes.
    num_steps, every = 100, ()
    if 'transformer' in name:  # the config refreshes at each step
      num_steps, every = 20, ('--config.method.refresh_every=10',)
    functions = {
      storage: make_steps(
        name, [f'--config.method.storage={storage}', *every], num_steps
      )
      for storage in storage_lib.STORAGES
    }
    rounds = 3 if given.quick else 9
    figures.compare(functions, rounds, 'masked', f'{name}, ', num_steps)
  figures.write(given.record)


if __name__ == '__main__':
  main()
