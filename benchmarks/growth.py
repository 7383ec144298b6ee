"""Cost of a training step against density and width.

  python -m benchmarks.growth [--quick] [--record=DIR]

Draws docs/compact_cost.png: milliseconds of a step, and bytes of parameters,
gradients and Adam's moments, for one layer [width, width] at batch 128, dense
and compact. The backward density is twice the forward density.
"""

import gc
import pathlib
import statistics

from matplotlib import pyplot as plt
import optax

from benchmarks import compact as cases
from benchmarks import networks
from benchmarks import record
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
  seconds = record.interleave(steps, rounds)
  case, found = f'width {width}, density {density:g}', {}
  for name, step in steps.items():
    found[name] = (
      1e3 * statistics.median(seconds[name]),
      step.state_bytes() / 1e6,
    )
    figures.add(case, f'{name} time', found[name][0], 'ms', rounds)
    figures.add(case, f'{name} bytes', found[name][1], 'MB')
  ratio = record.ratio(seconds['compact'], seconds['dense'])
  figures.add(case, 'ratio', ratio, rounds=rounds)
  gc.collect()
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
  given, figures = record.start('growth', __doc__)
  rounds = 3 if given.quick else 15
  by_density = {d: measure(WIDTH, d, rounds, figures) for d in DENSITIES}
  widths = WIDTHS[:3] if given.quick else WIDTHS
  by_width = {w: measure(w, DENSITY, rounds, figures) for w in widths}
  if not given.quick:
    draw(by_density, by_width)
  figures.write(given.record)


if __name__ == '__main__':
  main()
