"""Cost of a training step against density and width.

  python -m benchmarks.growth [--quick] [--record=DIR]

Draws docs/compact_cost.png: milliseconds of a step, and bytes of parameters,
gradients and Adam's moments, for one layer [width, width] at batch 128, dense
and compact. The backward density is twice the forward density.
"""

import argparse
import gc
import pathlib
import statistics

from matplotlib import pyplot as plt
import optax

from benchmarks import compact as cases
from benchmarks import networks
from benchmarks import record
from benchmarks import timing
import sparsity
from sparsity import kernels
import topkast

WIDTH = 2048
DENSITY = 0.1
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
WIDTHS = (512, 1024, 2048, 4096, 8192)
FIGURE = pathlib.Path(__file__).parent.parent / 'docs' / 'compact_cost.png'


def measure(width: int, density: float, rounds: int, figures):
  """Returns (milliseconds, megabytes) of the dense and of the compact step."""
  problem = networks.mlp((width, width))
  tx = topkast.topkast(
    optax.adam(1e-3),
    forward_density=density,
    backward_density=min(1.0, 2 * density),
  )
  training = sparsity.compact.compact(tx)
  steps = {
    'dense': cases.Dense(problem),
    'compact': cases.Compact(problem, training, kernels.implementation()),
  }
  seconds = timing.interleave(steps, rounds)
  found = {
    name: (
      1e3 * statistics.median(seconds[name]),
      step.state_bytes() / 1e6,
    )
    for name, step in steps.items()
  }
  gc.collect()
  (dense_ms, dense_mb), (ms, mb) = found['dense'], found['compact']
  print(
    f'width {width:5} density {density:5g}  dense {dense_ms:8.2f} ms '
    f'{dense_mb:8.2f} MB  compact {ms:8.2f} ms {mb:8.2f} MB  '
    f'{ms / dense_ms:6.3f} x {mb / dense_mb:6.3f} x',
    flush=True,
  )
  case = f'width {width}, density {density:g}'
  for name, (milliseconds, megabytes) in found.items():
    figures.add(case, f'{name} time', milliseconds, 'ms', rounds)
    figures.add(case, f'{name} bytes', megabytes, 'MB')
  figures.add(case, 'ratio', ms / dense_ms, rounds=rounds)
  return found


def draw(by_density, by_width) -> None:
  _, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout='constrained')
  columns = (
    ('forward density [%]', [100 * d for d in by_density], by_density),
    ('width', list(by_width), by_width),
  )
  titles = (
    f'width {WIDTH}',
    f'forward {100 * DENSITY:g}%, backward {200 * DENSITY:g}%',
  )
  labels = ('step [ms]', 'parameters, gradients, Adam [MB]')
  for column, (label, x, found) in enumerate(columns):
    for row, unit in enumerate(labels):
      ax = axes[row, column]
      for name, style in (('dense', 's--'), ('compact', 'o-')):
        y = [point[name][row] for point in found.values()]
        ax.loglog(x, y, style, label=name)
      ax.set(xlabel=label, ylabel=unit, xticks=x)
      ax.set_xticks(x, [f'{value:g}' for value in x])
      ax.set_xticks([], minor=True)
      ax.grid(alpha=0.3)
      if not row:
        ax.set_title(titles[column])
  axes[0, 0].legend()
  FIGURE.parent.mkdir(exist_ok=True)
  plt.savefig(FIGURE, dpi=120)
  print(FIGURE)


def main() -> None:
  parser = argparse.ArgumentParser(description='Draws the cost of a step.')
  parser.add_argument('--quick', action='store_true', help='noisy, no plot')
  record.add_argument(parser)
  given = parser.parse_args()
  quick, figures = given.quick, record.Record('growth')
  rounds = 3 if quick else 15
  print(kernels.describe())
  by_density = {d: measure(WIDTH, d, rounds, figures) for d in DENSITIES}
  widths = WIDTHS[:3] if quick else WIDTHS
  by_width = {w: measure(w, DENSITY, rounds, figures) for w in widths}
  if not quick:
    draw(by_density, by_width)
  figures.write(given.record)


if __name__ == '__main__':
  main()
