"""What the loop gains by many steps in one dispatch, and by members at once.

  python -m benchmarks.loop [--quick] [--record=DIR]

LeNet-300-100 on MNIST as `configs/mnist_dense.py` trains it: the same steps in
one dispatch (`lax.scan` over a chunk) and in one dispatch each, and five seeds
one after another and side by side (`vmap`). Ratios of medians, timed in turns.
"""

import argparse
import pathlib
import statistics
import sys

# Run as a script, Python looks for packages next to it only.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax

from benchmarks import record
from benchmarks import timing
from configs import mnist_dense
from experiments import image_classification
from experiments.common import build

NUM_SEEDS = 5


def make_units(side_by_side: str):
  config = mnist_dense.get_config()
  config.seeds = tuple(range(NUM_SEEDS))
  config.side_by_side = side_by_side
  sections = config.to_dict()
  sections.pop('experiment')
  return build.call(image_classification.build, sections).units


def train(units, chunk: int, num_steps: int):
  """Returns a function that makes `num_steps` steps of each unit."""
  states = [unit.init(None) for unit in units]

  def run():
    for i, unit in enumerate(units):
      for first_step in range(0, num_steps, chunk):
        states[i], metrics = unit.train(states[i], first_step, chunk)
        jax.device_get(metrics)

  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  record.add_argument(parser)
  given = parser.parse_args()
  quick, figures = given.quick, record.Record('loop')
  num_steps, repeats = (50, 3) if quick else (500, 9)
  one_by_one, together = make_units('never'), make_units('always')
  cases = {
    'one seed, a dispatch a step': train(one_by_one[:1], 1, num_steps),
    'one seed, one dispatch': train(one_by_one[:1], num_steps, num_steps),
    f'{NUM_SEEDS} seeds, one by one': train(one_by_one, num_steps, num_steps),
    f'{NUM_SEEDS} seeds, side by side': train(together, num_steps, num_steps),
  }
  seconds = timing.interleave(cases, repeats)
  base = seconds['one seed, one dispatch']
  print(f'{num_steps} steps, {repeats} rounds, {jax.devices()[0].device_kind}')
  for name, times in seconds.items():
    ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
    step = 1e3 * statistics.median(times) / num_steps
    print(f'{name:30} {step:8.3f} ms a step {ratio:8.2f} x')
    figures.add(name, 'time', step, 'ms', repeats)
    figures.add(name, 'ratio', ratio, rounds=repeats)
  figures.write(given.record)


if __name__ == '__main__':
  main()
