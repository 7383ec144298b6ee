"""Plots of tables: the metric against costs, and those of metrics rows."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib import ticker
import numpy as np
import pandas as pd

from experiments.paper import curves
from experiments.paper import render
from experiments.paper import runs as runs_lib
from experiments.paper import table as table_lib

STYLE = {
  'axes.grid': True,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.constrained_layout.use': True,
  'grid.alpha': 0.3,
  'savefig.dpi': 150,
}
MARKERS = 'os^vDP*X'
DESCENDING = ('bits_per_character', 'loss', 'perplexity')  # lower is better

# By kind; a plot without data is None.
Plots = Mapping[str, Callable[[], Any]]


def of_table(
  table: table_lib.Table,
  cells: pd.DataFrame,
  results: pd.DataFrame,
  runs: Sequence[runs_lib.Run],
) -> Plots:
  """Returns the plots of a table by kind; most need more than stored results.

  Args:
    table: the table.
    cells: `fill.summarize` of its results.
    results: those of `fill.fill`.
    runs: those of `fill.fill`.
  """
  if not table.has_plots:
    return {}
  lines = _lines(table, cells, results, runs)
  train = curves.rows_of(lines, 'train')
  plots = {
    'density': lambda: draw_density(cells),
    'flops': lambda: draw_flops(cells),
    'tasks': lambda: curves.draw_tasks(lines),
    'training': lambda: curves.draw_training(train),
    'masks': lambda: curves.draw_mask_change(train),
    'histograms': lambda: curves.draw_histograms(
      curves.rows_of(lines, 'histogram')
    ),
  }
  if table.lines == 'columns':
    pruned = curves.levels_of(lines)
    plots['overlap'] = lambda: curves.draw_levels(pruned, 'overlap')
  is_continual = any('strategy' in line.run.config for line in lines)
  unwanted = {'training', 'masks', 'histograms'} if is_continual else {'tasks'}
  return {kind: plots[kind] for kind in plots.keys() - unwanted}


def save(
  plots: Plots, directory: pathlib.Path, prefix: str = ''
) -> list[pathlib.Path]:
  """Writes the plots that have data as PNG; returns the files."""
  paths = []
  with plt.rc_context(STYLE):
    for kind, draw in sorted(plots.items()):
      figure = draw()
      if figure is not None:
        directory.mkdir(parents=True, exist_ok=True)
        paths.append(directory / f'{prefix}{kind}.png')
        figure.savefig(paths[-1])
        plt.close(figure)
  return paths


def draw_density(cells: pd.DataFrame) -> Any:
  """Draws the metric against density; None if no line has two densities."""
  panels = _panels(cells, 'density')
  if not panels:
    return None
  figure, axes = _axes(cells, panels)
  for axis, (title, lines) in zip(axes, panels.items(), strict=True):
    for i, (line, own) in enumerate(lines.items()):
      factor, level = _factor(own), own['mean'].iloc[0]
      if len(own) == 1 and own.density.iloc[0] == 1:  # dense, beside others
        axis.axhline(factor * level, color='0.45', ls=':', label=line)
      else:
        _errorbar(axis, own, 100 * own.density, line, i)
    curves.log_percent(
      axis, 100 * min(own.density.min() for own in lines.values())
    )
    axis.set(xlabel='weights remaining [%]', title=title)
  axes[0].invert_xaxis()  # shared by all panels
  axes[-1].legend(fontsize=7)
  return figure


def draw_flops(cells: pd.DataFrame) -> Any:
  """Draws the metric against training FLOPs; None if all cost the same."""
  panels = _panels(cells, 'train_flops')
  every = [own for lines in panels.values() for own in lines.values()]
  costs = pd.concat([own.train_flops for own in every]) if every else []
  if len(set(costs)) < 2:
    return None
  figure, axes = _axes(cells, panels)
  for axis, (title, lines) in zip(axes, panels.items(), strict=True):
    for i, (line, own) in enumerate(lines.items()):
      _errorbar(axis, own, own.train_flops, line, i)
    front = pareto(pd.concat(list(lines.values())))
    axis.step(
      front.train_flops,
      _factor(front) * front['mean'],
      where='post',
      color='0.45',
      lw=4,
      alpha=0.35,
      zorder=0,
      label='Pareto front',
    )
    axis.set(xlabel='FLOPs of training', title=title, xscale='log')
    is_long = costs.max() > 100 * costs.min()
    locator = ticker.LogLocator(subs=(1,) if is_long else (1, 2, 5))
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(
      ticker.LogFormatterSciNotation(
        labelOnlyBase=False, minor_thresholds=(np.inf, np.inf)
      )
    )
    axis.minorticks_off()
  axes[-1].legend(fontsize=7)
  return figure


def pareto(cells: pd.DataFrame) -> pd.DataFrame:
  """Returns the cells that no other beats at as few FLOPs of training."""
  done = cells[cells.status == 'done']
  sign = -1 if done.metric.isin(DESCENDING).any() else 1
  done = done.assign(worth=sign * done['mean'])
  done = done.sort_values(['train_flops', 'worth'], ascending=[True, False])
  best = done.worth.cummax().shift(fill_value=-np.inf)
  return done[done.worth > best]


def _lines(table, cells: pd.DataFrame, results, runs) -> list[curves.Line]:
  """Returns the runs of a table as trained: a panel a column, a line a row.

  Of one row, as in pruning curves, the columns are lines of one panel.
  """
  keys = [*table.headings, 'column']
  wheres = dict(
    zip(
      cells[keys].itertuples(index=False, name=None),
      cells['where'],
      strict=True,
    )
  )
  found = [
    curves.Line(key[-1], ' '.join(filter(None, key[:-1])), runs[int(run)])
    for *key, run in results[[*keys, 'run']].dropna().itertuples(index=False)
    if wheres[tuple(key)].get('share') is None
  ]
  if len({line.line for line in found}) == 1:
    found = [curves.Line('', line.panel, line.run) for line in found]
  return found


def _panels(cells: pd.DataFrame, cost: str) -> dict[str, dict[str, Any]]:
  """Returns cells of known cost by panel and line; {} if no line is one."""
  known = cells[cells.status.isin(['done', 'diverged']) & cells[cost].notna()]
  by_line = known[known.status == 'done'].groupby(['panel', 'line'])
  if cells.column.nunique() > 1 and not (by_line.size() > 1).any():
    return {}
  return {
    panel: {
      line: own.sort_values(cost)
      for line, own in of_panel.groupby('line', sort=False)
    }
    for panel, of_panel in known.groupby('panel', sort=False)
  }


def _axes(cells: pd.DataFrame, panels):
  figure, axes = plt.subplots(
    1,
    len(panels),
    figsize=(1 + 4.8 * len(panels), 4.2),
    sharex=True,
    sharey=True,
    squeeze=False,
  )
  metric = cells.metric.iloc[0]
  axes[0][0].set_ylabel(render.LABELS.get(metric, metric))
  return figure, axes[0]


def _errorbar(axis, own: pd.DataFrame, x, line: str, i: int) -> None:
  axis.errorbar(
    x,
    _factor(own) * own['mean'],  # NaN where one diverged: a gap
    _factor(own) * own.deviation.fillna(0),
    color=f'C{i % 10}',
    marker=MARKERS[i % len(MARKERS)],
    ms=4.5,
    lw=1.3,
    capsize=2,
    label=line,
  )


def _factor(cells: pd.DataFrame) -> float:
  return render.FORMATS.get(cells.metric.iloc[0], render.PERCENT)[0]
