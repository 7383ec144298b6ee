"""What runs gain by being trained side by side: `launch.py --sweep --pack=N`.

  python -m benchmarks.packs [--quick] [--only=NAME] [--record=DIR]

The same steps of the same networks, one run after another and in one pack:
LeNet-300-100 as `configs/mnist_topkast.py` trains it, four seeds, four learning
rates, four alphas; and one hidden layer of 32, four seeds. Ratios of times,
taken in turns, one by one / side by side: over 1 is a gain. What a process that
need not be started costs, and a program that need not be compiled, is left out
of these; `whole commands` are CPU seconds of three short runs with both, once
each.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

# Run as a script, Python looks for packages next to it only.
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax

from benchmarks import record
from benchmarks import timing
from configs import mnist_topkast
from experiments import image_classification
from experiments.common import build
from experiments.sweeps import packing

NUM_RUNS = 4
CACHE = 'JAX_COMPILATION_CACHE_DIR'
COMMANDS = 'whole commands'
COMMAND = [
  sys.executable,
  'launch.py',
  '--config=configs/mnist_topkast.py:quick',
  '--sweep=seeds',
  '--config.powerprop.alphas=(2.0,)',
  '--config.prune.num_levels=0',
]


def variants(config, section, key, values):
  """Returns plain configs that differ in one value."""
  found = []
  for value in values:
    changed = config.copy_and_resolve_references()
    if section is None:
      changed[key] = value
    else:
      changed[section][key] = value
    found.append(json.loads(json.dumps(changed.to_dict())))
  return found


def cases():
  topkast = mnist_topkast.get_config()
  topkast.seeds, topkast.powerprop.alphas = (0,), (2.0,)
  small = topkast.copy_and_resolve_references()
  small.model.hidden = (32,)
  small.prune.output_layer = 'linear_1/w'
  seeds = [(seed,) for seed in range(NUM_RUNS)]
  alphas = [(alpha,) for alpha in (1.0, 2.0, 3.0, 4.0)]
  rates = (0.1, 0.05, 0.02, 0.01)
  return {
    'LeNet-300-100, seeds': variants(topkast, None, 'seeds', seeds),
    'LeNet-300-100, learning rates': variants(
      topkast, 'optimizer', 'learning_rate', rates
    ),
    'LeNet-300-100, alphas': variants(topkast, 'powerprop', 'alphas', alphas),
    'one layer of 32, seeds': variants(small, None, 'seeds', seeds),
  }


def train(units, num_steps: int):
  """Returns a function that makes `num_steps` steps of each unit."""
  states = [unit.init(None) for unit in units]

  def run():
    for i, unit in enumerate(units):
      states[i], metrics = unit.train(states[i], 0, num_steps)
      jax.device_get(metrics)

  return run


def alone(config):
  sections = {k: v for k, v in config.items() if k != 'experiment'}
  return build.call(image_classification.build, sections).units


def compare(name: str, configs, num_steps: int, repeats: int, figures) -> None:
  """Times runs one by one and side by side."""
  seconds = timing.interleave(
    {
      'one by one': train([u for c in configs for u in alone(c)], num_steps),
      'side by side': train(packing.build(configs).units, num_steps),
    },
    repeats,
  )
  ratio = statistics.median(
    a / b
    for a, b in zip(seconds['one by one'], seconds['side by side'], strict=True)
  )
  step = 1e3 * timing.medians(seconds)['one by one'] / num_steps
  print(
    f'{name:32} {step:8.3f} ms a step of {NUM_RUNS} {ratio:8.2f} x',
    flush=True,
  )
  figures.add(name, 'time', step, 'ms', repeats)
  figures.add(name, 'ratio', ratio, rounds=repeats)


def cpu_seconds(*arguments: str) -> float:
  """Returns the CPU seconds of a sweep, its processes and all.

  Nothing that was compiled earlier is used.
  """
  kept = {k: v for k, v in os.environ.items() if k != CACHE}
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  with tempfile.TemporaryDirectory(prefix='packs-') as folder:
    subprocess.run(
      [*COMMAND, f'--workdir={folder}/sweep', *arguments],
      cwd=pathlib.Path(__file__).parent.parent,
      env=kept,
      stdout=subprocess.DEVNULL,
      check=True,
    )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return sum(after[:2]) - sum(before[:2])  # user's and system's


def compare_commands(figures) -> None:
  """Times whole commands."""
  alone, packed = cpu_seconds(), cpu_seconds('--pack=3')
  print(f'{COMMANDS:32} {alone:.1f} CPU seconds, in a pack {packed:.1f}')
  figures.add(COMMANDS, 'one by one', alone, 's', 1)
  figures.add(COMMANDS, 'side by side', packed, 's', 1)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  parser.add_argument('--only', help='cases whose name has this')
  record.add_argument(parser)
  given = parser.parse_args()
  quick, only = given.quick, given.only or ''
  figures = record.Record('packs')
  num_steps, repeats = (50, 3) if quick else (200, 9)
  print(f'{num_steps} steps, {repeats} rounds, {jax.devices()[0].device_kind}')
  for name, configs in cases().items():
    if only in name:
      compare(name, configs, num_steps, repeats, figures)
  if only in COMMANDS:
    compare_commands(figures)
  figures.write(given.record)


if __name__ == '__main__':
  main()
