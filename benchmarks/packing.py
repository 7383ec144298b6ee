"""What EfficientPackNet's search takes of the time of a task.

  python -m benchmarks.packing [--quick] [--record=DIR]

One task of `configs/permuted_mnist.py`: its training, the search for its
weights as configured, the ranking in it (each layer once for all densities),
and the test. Medians, timed in turns; shares of their sum.
"""

import argparse
import pathlib
import sys

# Run as a script, Python looks for packages next to it only.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax

from benchmarks import record
from benchmarks import timing
from configs import permuted_mnist
from experiments import continual_learning
from experiments.common import build
from experiments.continual import state as state_lib
from powerprop import packnet

CHUNK = 500  # steps


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  record.add_argument(parser)
  given = parser.parse_args()
  repeats, figures = 3 if given.quick else 9, record.Record('packing')
  config = permuted_mnist.get_config()
  sections = config.to_dict()
  sections.pop('experiment')
  unit = build.call(continual_learning.build, sections).units[0]
  state, _ = unit.train(unit.init(None), 0, CHUNK)
  densities = config.strategy.densities
  held = [state]

  def train():
    held[0], metrics = unit.train(held[0], 0, CHUNK)
    return metrics

  def rank():
    network = state_lib.network_of(held[0])
    return packnet.search(
      lambda params: 1.0,
      network.params,
      network.memory.pack,
      densities=densities,
      gamma=0.0,
      method='bisection',
    ).masks

  def finish():
    return jax.tree.leaves(unit.finish(held[0])[0])

  cases = {
    'training': train,
    'search and one test': finish,
    'of it ranking and masks': rank,
    'validation': lambda: unit.evaluate(held[0]),
  }
  medians = timing.medians(timing.interleave(cases, repeats))
  num_chunks = config.train.num_steps / CHUNK
  medians['training'] *= num_chunks
  whole = medians['training'] + medians['search and one test']
  print(f'{config.train.num_steps} steps, {len(densities)} densities')
  for name, seconds in medians.items():
    share = 100 * seconds / whole
    print(f'{name:24} {seconds:8.3f} s {share:6.1f}%')
    figures.add(name, 'time', seconds, 's', repeats)
    figures.add(name, 'share', share, '%', repeats)
  figures.write(given.record)


if __name__ == '__main__':
  main()
