"""The report on a run of many tasks: figures, a table and plots.

Shapes:
  T: number of tasks.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np
from rich import table as rich_table
import rich.console

from experiments import results
from experiments.continual import measures
from experiments.continual import plots

TITLES = {
  'average_accuracy': 'average accuracy [%]',
  'learning_accuracy': 'when learned [%]',
  'forgetting': 'forgetting [%]',
  'forward_transfer': 'forward transfer [%]',
  'owned': 'weights owned [%]',
  'reused': 'reused by the last [%]',
}


def report(
  rows: Sequence[results.Row],
  directory: pathlib.Path | None,
  console: rich.console.Console,
) -> dict[str, Any]:
  """Prints the results, draws the plots, and returns the summary.

  Args:
    rows: the metrics of a run.
    directory: where the plots go; None: no plots.
    console: where the table goes.
  """
  summary = summarize(rows)
  console.print(make_table(summary))
  if directory is not None:
    print('Plots:', *plots.draw_all(rows, directory), sep='\n  ')
  return summary


def summarize(rows: Sequence[results.Row]) -> dict[str, Any]:
  """Returns the figures of each alpha over seeds, and all accuracies.

  Networks that have not learned every task are left out of the figures.
  """
  num_tasks = max(results.distinct(rows, 'tested'), default=0)
  summary: dict[str, Any] = {'networks': [], 'figures': []}
  for alpha in results.distinct(rows, 'alpha'):
    found = []
    for seed in results.distinct(results.select(rows, alpha=alpha), 'seed'):
      own = results.select(rows, alpha=alpha, seed=seed)
      tests = results.select(own, split='test')
      matrix = measures.matrix_of(tests, num_tasks)
      figures = figures_of(own, matrix)
      summary['networks'].append(
        {'alpha': alpha, 'seed': seed, 'accuracies': matrix, **figures}
      )
      found.append(figures)
    summary['figures'].append(
      {
        'alpha': alpha,
        'num_tasks': num_tasks,
        **{
          name: results.cell([f[name] for f in found])._asdict()
          for name in TITLES
          if all(np.isfinite(f.get(name, np.nan)) for f in found)
        },
      }
    )
  return summary


def figures_of(
  rows: Sequence[results.Row], matrix: np.ndarray
) -> dict[str, float]:
  """Returns what is measured of one network; NaN where rows are missing."""
  untrained = np.full(len(matrix), np.nan)
  for row in results.select(rows, split='untrained'):
    untrained[row['tested'] - 1] = row['accuracy']
  is_whole = np.isfinite(matrix[-1]).all() if matrix.size else False
  figures = {
    'learning_accuracy': measures.learning_accuracy(matrix),
    'forward_transfer': measures.forward_transfer(matrix, untrained),
  }
  if is_whole:
    figures['average_accuracy'] = measures.average_accuracy(matrix)
    if np.isfinite(figures['learning_accuracy']):
      figures['forgetting'] = measures.forgetting(matrix)
      figures['backward_transfer'] = measures.backward_transfer(matrix)
  usage = results.select(rows, split='usage', layer='all')
  if usage:
    figures |= {name: usage[-1][name] for name in ('owned', 'reused')}
  return figures


def make_table(summary: dict[str, Any]) -> rich_table.Table:
  """Returns the figures for a terminal, a line an alpha."""
  shown = summary['figures']
  titles = {
    name: title
    for name, title in TITLES.items()
    if any(name in figures for figures in shown)
  }
  num_tasks = shown[0]['num_tasks'] if shown else 0
  table = rich_table.Table(title=f'{num_tasks} tasks, mean ± deviation')
  for title in ('alpha', *titles.values()):
    table.add_column(title, justify='right')
  for figures in shown:
    cells = [
      str(results.Cell(**figures[name])) if name in figures else ''
      for name in titles
    ]
    table.add_row(f'{figures["alpha"]:g}', *cells)
  return table
