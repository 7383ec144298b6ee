"""The report on a run of language modelling: a table and a plot."""

from collections.abc import Sequence
import pathlib
from typing import Any

from matplotlib import pyplot as plt
from rich import table as rich_table
import rich.console

from experiments import plots
from experiments import results

METRICS = {
  'bits_per_character': 'bits per character',
  'perplexity': 'perplexity',
}


def report(
  rows: Sequence[results.Row],
  directory: pathlib.Path | None,
  console: rich.console.Console,
) -> dict[str, Any]:
  """Prints the results, draws the plot, and returns the summary.

  Args:
    rows: the metrics of a run.
    directory: where the plot goes; None: no plot.
    console: where the table goes.
  """
  header, lines = make_table(rows)
  seeds = len(results.distinct(rows, 'seed'))
  table = rich_table.Table(title=f'Mean ± deviation of {seeds} seed(s)')
  for name in header:
    table.add_column(name, justify='right')
  for line in lines:
    table.add_row(*line)
  console.print(table)
  if directory is not None:
    directory.mkdir(exist_ok=True)
    figure = draw_training(rows)
    if figure is not None:
      path = directory / 'training.png'
      figure.savefig(path)
      plt.close(figure)
      print('Plots:', path, sep='\n  ')
  return summarize(rows)


def summarize(rows: Sequence[results.Row]) -> dict[str, Any]:
  """Returns the final figures of each alpha, means over seeds."""
  return {
    'test': [
      {
        'alpha': alpha,
        'seeds': results.distinct(found, 'seed'),
        **{
          name: results.cell([row[name] for row in found])._asdict()
          for name in _figures(found)
        },
      }
      for alpha, found in _final(rows)
    ]
  }


def make_table(
  rows: Sequence[results.Row],
) -> tuple[list[str], list[list[str]]]:
  """Returns header and lines, an alpha each."""
  metric = metric_of(rows)
  label = METRICS.get(metric, 'loss [nats]')
  header = ['alpha', 'density [%]', f'validation, {label}', f'test, {label}']
  lines = [
    [
      f'{alpha:g}',
      _show([100 * row['density'] for row in found], 2),
      _show([row[f'validation_{metric}'] for row in found], 4),
      _show([row[metric] for row in found], 4),
    ]
    for alpha, found in _final(rows)
  ]
  return header, lines


def draw_training(rows: Sequence[results.Row]) -> Any:
  """Draws the metric in training and validation against steps."""
  alphas = results.distinct(results.select(rows, split='train'), 'alpha')
  if not alphas:
    return None
  metric = metric_of(rows)
  with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, split in zip(axes, ('train', 'validation'), strict=True):
      for i, alpha in enumerate(alphas):
        chosen = results.select(rows, split=split, alpha=alpha)
        steps = results.distinct(chosen, 'step')
        cells = [
          results.cell([r[metric] for r in results.select(chosen, step=step)])
          for step in steps
        ]
        plots.draw_band(axis, steps, cells, f'alpha = {alpha:g}', i, 1)
      axis.set(xlabel='step', title=split, yscale='log')
    axes[0].set_ylabel(METRICS.get(metric, 'loss [nats]'))
    axes[1].legend()
  return figure


def metric_of(rows: Sequence[results.Row]) -> str:
  """Returns which metric of `METRICS` the rows have."""
  for name in METRICS:
    if any(name in row for row in rows):
      return name
  return 'loss'


def _final(rows) -> list[tuple[float, list[results.Row]]]:
  """Returns each alpha with the last rows of its seeds."""
  tests = results.select(rows, split='test')
  return [
    (alpha, results.select(tests, alpha=alpha))
    for alpha in results.distinct(tests, 'alpha')
  ]


def _figures(found: Sequence[results.Row]) -> list[str]:
  names = ('loss', *METRICS)
  names += tuple(f'validation_{name}' for name in names)
  return [name for name in (*names, 'density') if name in found[0]]


def _show(values: Sequence[float], digits: int) -> str:
  cell = results.cell(values)
  text = f'{cell.mean:.{digits}f}'
  return text + (f' ± {cell.deviation:.{digits}f}' if cell.num > 1 else '')
