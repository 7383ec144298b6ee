"""Methods against each other: accuracy at each density.

  python -m experiments.paper.methods --runs=DIR --out=DIR

Reads the folders of runs below `--runs` that are done, prints the table as
Markdown, and writes it (`methods.md`) and the plot (`methods.png`).
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

from experiments import results
from experiments.paper import collect

# (method, alpha) -> density -> accuracy over seeds
Cells = dict[tuple[str, float], dict[float, results.Cell]]


def make_cells(records: Sequence[collect.Record]) -> Cells:
  """Returns the test accuracy of each method and alpha at each density.

  Raises:
    ValueError: If two runs are of one cell, which differ in what is not shown.
  """
  cells: Cells = {}
  paths = {}
  for record in records:
    density = collect.density_of(record.config)
    for entry in record.summary['test']:
      row = (record.config['method']['name'], entry['alpha'])
      if density in cells.setdefault(row, {}):
        raise ValueError(
          f'expected one run of {row[0]}, alpha {row[1]:g}, density '
          f'{density:g}, got {paths[row, density]} and {record.path}'
        )
      cells[row][density] = results.Cell(**entry['accuracy'])
      paths[row, density] = record.path
  return cells


def markdown(cells: Cells) -> str:
  """Returns the table: methods down, weights kept across."""
  densities = sorted({d for row in cells.values() for d in row}, reverse=True)
  header = ['method', 'alpha', *(f'{100 * d:g}%' for d in densities)]
  lines = [header, ['---', '---:', *['---:'] * len(densities)]]
  for (name, alpha), row in sorted(cells.items()):
    found = [str(row[d]) if d in row else '' for d in densities]
    lines.append([name, f'{alpha:g}', *found])
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def draw(cells: Cells):
  """Draws accuracy against density, a line a method, a panel an alpha."""
  alphas = sorted({alpha for _, alpha in cells})
  names = sorted({name for name, _ in cells} - {'dense'})
  figure, axes = plt.subplots(
    1,
    len(alphas),
    figsize=(5 * len(alphas), 4.2),
    sharex=True,
    sharey=True,
    squeeze=False,
    constrained_layout=True,
  )
  for axis, alpha in zip(axes[0], alphas, strict=True):
    for i, name in enumerate(names):
      row = cells.get((name, alpha), {})
      densities = sorted(row)
      axis.errorbar(
        [100 * d for d in densities],
        [100 * row[d].mean for d in densities],
        [100 * row[d].deviation for d in densities],
        color=f'C{i}',
        marker='os^vDP*X'[i % 8],
        ms=5,
        lw=1.3,
        capsize=2,
        label=name,
      )
    if ('dense', alpha) in cells:
      dense = 100 * cells['dense', alpha][1.0].mean
      axis.axhline(dense, color='0.4', ls=':', label='dense')
    ticks = sorted({100 * d for row in cells.values() for d in row if d < 1})
    axis.set_xscale('log')
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
    axis.set_title('plain' if alpha == 1 else f'Powerprop., alpha = {alpha:g}')
    axis.set_xlabel('weights remaining [%]')
    axis.grid(alpha=0.3)
  axes[0][0].invert_xaxis()  # all share it
  axes[0][0].set_ylabel('test accuracy [%]')
  axes[0][0].legend(fontsize=8)
  return figure


def main(arguments: Sequence[str]) -> int:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    'python -m experiments.paper.methods',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--runs', required=True, help='folder of the runs')
  parser.add_argument('--out', required=True, help='folder to write to')
  given = parser.parse_args(arguments)
  try:
    cells = make_cells(collect.read_runs(given.runs))
  except ValueError as error:
    print(f'experiments.paper.methods: {error}', file=sys.stderr)
    return 2
  out = pathlib.Path(given.out)
  out.mkdir(parents=True, exist_ok=True)
  (out / 'methods.md').write_text(markdown(cells))
  figure = draw(cells)
  figure.savefig(out / 'methods.png', dpi=150)
  plt.close(figure)
  print(markdown(cells))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
