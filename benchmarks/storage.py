"""A step of an experiment with compact against masked storage.

  python -m benchmarks.storage [--quick] [--config=FILE[:VARIANT]]
      [--record=DIR]

The first network of a config makes the same steps in both storages, refreshes
and host work included, evaluation and compilation excluded.
"""

import argparse
import statistics

import jax

from benchmarks import record
from benchmarks import timing
from experiments import storage as storage_lib
from experiments import trainer
from experiments.sweep import plan
from experiments.tasks import table as tasks
import sparsity

CONFIGS = (
  'configs/mnist_topkast.py',
  'configs/mnist_methods.py:rigl',
  'configs/text_transformer_xl.py:topkast',
)


def make_steps(name: str, storage: str, num_steps: int):
  """Returns a function that makes `num_steps` more steps each time."""
  runs = plan.make(name, [f'--config.method.storage={storage}']).runs
  task = tasks.make_task(runs[0].config)
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
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  parser.add_argument('--config', help='one config only')
  record.add_argument(parser)
  given = parser.parse_args()
  figures, repeats = record.Record('storage'), 3 if given.quick else 9
  print(sparsity.kernels.describe())
  for name in (given.config,) if given.config else CONFIGS:
    # A multiple of the refresh interval: each round has as many refreshes.
    num_steps = 20 if 'transformer' in name else 100
    seconds = timing.interleave(
      {
        storage: make_steps(name, storage, num_steps)
        for storage in storage_lib.STORAGES
      },
      repeats,
    )
    for storage, times in seconds.items():
      ms = 1e3 * statistics.median(times) / num_steps
      ratio = timing.ratio(times, seconds['masked'])
      print(f'{name}, {storage}: {ms:.2f} ms a step, {ratio:.2f} x masked')
      figures.add(f'{name}, {storage}', 'time', ms, 'ms', repeats)
      figures.add(f'{name}, {storage}', 'ratio', ratio, rounds=repeats)
  figures.write(given.record)


if __name__ == '__main__':
  main()
