"""Training in an experiment with compact weights against masked ones.

  python -m benchmarks.storage [--quick] [--config=FILE[:VARIANT]]
      [--record=DIR]

The first member of a config makes the same steps with `method.storage` masked
and compact, refreshes and all that the host does between dispatches included;
evaluation and compilation are not. Ratios of medians, timed in turns.
"""

import argparse
import statistics

import jax

from benchmarks import record
from benchmarks import timing
from experiments import table
from experiments.common import build
from experiments.common import config as config_lib
from experiments.common import storage as storage_lib
import sparsity

CONFIGS = (
  'configs/mnist_topkast.py',
  'configs/mnist_methods.py:rigl',
  'configs/text_transformer_xl.py:topkast',
)


def make_unit(name: str, storage: str):
  """Returns the first member of a config with some storage."""
  config = config_lib.load(name, [f'--config.method.storage={storage}'])
  modules = {key: module.build for key, module in table.EXPERIMENTS.items()}
  return build.build(modules, config, key='experiment').units[0]


def train(unit, num_steps: int):
  """Returns a function that makes `num_steps` more steps each time."""
  held, step = [unit.init(None)], [0]

  def run():
    held[0], metrics = unit.train(held[0], step[0], num_steps)
    step[0] += num_steps
    jax.block_until_ready((storage_lib.on_device(held[0]), metrics))

  return run


def compare(name: str, num_steps: int, repeats: int, figures) -> None:
  """Prints the times of a config's steps, masked and compact."""
  seconds = timing.interleave(
    {
      storage: train(make_unit(name, storage), num_steps)
      for storage in storage_lib.STORAGES
    },
    repeats,
  )
  ratio = statistics.median(
    a / b for a, b in zip(seconds['compact'], seconds['masked'], strict=True)
  )
  times = []
  for storage, of_rounds in seconds.items():
    ms = 1e3 * statistics.median(of_rounds) / num_steps
    times.append(f'{storage} {ms:.2f} ms a step')
    figures.add(name, f'{storage} time', ms, 'ms', repeats)
  figures.add(name, 'ratio', ratio, rounds=repeats)
  print(f'{name}: {", ".join(times)}, ratio {ratio:.2f}', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  parser.add_argument('--config', help='one config only')
  record.add_argument(parser)
  given = parser.parse_args()
  figures = record.Record('storage')
  repeats = 3 if given.quick else 9
  print(sparsity.kernels.describe())
  for name in (given.config,) if given.config else CONFIGS:
    # A multiple of every refresh: each round has as many.
    num_steps = 20 if 'transformer' in name else 100
    compare(name, num_steps, repeats, figures)
  figures.write(given.record)


if __name__ == '__main__':
  main()
