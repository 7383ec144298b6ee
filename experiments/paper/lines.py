"""Lines of runs and of tables: frames, and the figures that show them.

Figures show frames with `panel`, `line`, `mean`, `deviation` and a column for
x: metrics rows by `means`, or the cells of a table.
"""

from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import pandas as pd

from experiments.paper import runs as runs_lib

MARKERS, DASHES, MAX_MARKERS = 'os^vDP*X', ('-', '--', ':', '-.'), 30


class Line(NamedTuple):
  """A run, and where plots show it; runs of one line are its seeds."""

  panel: str
  line: str
  run: runs_lib.Run


def rows_of(lines: Iterable[Line], split: str) -> pd.DataFrame:
  """Returns the metrics rows of a split, with `panel`, `line` and `seed`."""
  return pd.DataFrame(
    [
      {**row, 'panel': panel, 'line': line, 'seed': run.config['seed']}
      for panel, line, run in lines
      for row in runs_lib.of_split(run, split)
    ]
  )


def levels_of(lines: Iterable[Line]) -> pd.DataFrame:
  """Returns the 'pruned' rows of lines, those of equal density once.

  A sparse network is the same at all levels above its own density.
  """
  rows = rows_of(lines, 'pruned')
  keys = ['panel', 'line', 'seed', 'density']
  return rows if rows.empty else rows.drop_duplicates(keys)


def means(rows: pd.DataFrame, x: str, y: str, scale: float = 1) -> pd.DataFrame:
  """Returns mean and deviation over seeds of `scale * y`, for `draw`."""
  values = rows.assign(value=scale * rows[y].astype(float))
  groups = values.groupby(['panel', 'line', x], sort=False).value
  return groups.agg(mean='mean', deviation='std').reset_index()


def draw(
  frame: pd.DataFrame, x: str, label: str = '', num_columns: int = 3,
  num_log: int | None = 0, **options: Any,
) -> Any:  # fmt: skip
  """Returns a figure of means in bands of deviations, or None without rows.

  Each panel has an axis, with its name as the title, and each line a color.

  Args:
    frame: see the module.
    x: its column.
    label: of y.
    num_columns: of panels, at most.
    num_log: how many of the axes have a logarithmic y; None for all.
    **options: of `plt.subplots`.
  """
  if frame.empty:
    return None
  panels = list(frame.groupby('panel', sort=False))
  options = {'sharey': len(panels) > 1, **options}
  figure, axes = grid(len(panels), num_columns, (4.2, 3.6), **options)
  index = {line: i for i, line in enumerate(frame.line.unique())}
  for axis, (panel, of_panel) in zip(axes, panels, strict=True):
    for line, own in of_panel.groupby('line', sort=False):
      i, own = index[line], own.sort_values(x)
      color, low = f'C{i % 10}', own['mean'] - own.deviation.fillna(0)
      marker = MARKERS[i % 8] if len(own) <= MAX_MARKERS else ''
      axis.plot(
        own[x], own['mean'], color=color, ls=DASHES[i // 10 % 4],
        marker=marker, ms=4, lw=1.3, label=line,
      )  # fmt: skip
      high = 2 * own['mean'] - low
      axis.fill_between(own[x], low, high, color=color, alpha=0.2, lw=0)
    axis.set(title=panel, xlabel=x)
  axes[0].set_ylabel(label)
  log_y(axes[:num_log])
  add_legend(figure)
  return figure


def grid(number: int, num_columns: int, size: tuple[float, float], **options):
  """Returns a figure and a number of its axes."""
  columns = min(number, num_columns)
  rows = -(-number // columns)
  size = (1.6 + size[0] * columns, size[1] * rows + 0.4)
  options = {'squeeze': False, 'figsize': size, **options}
  figure, axes = plt.subplots(rows, columns, **options)
  for axis in axes.flat[number:]:
    axis.remove()
  return figure, axes.flat[:number]


def add_legend(figure) -> None:
  """Writes one legend for all axes, beside them."""
  for legend in figure.legends:
    legend.remove()
  handles = {}
  for axis in figure.axes:
    found, labels = axis.get_legend_handles_labels()
    handles = dict(zip(labels, found, strict=True)) | handles
  where = 'outside right upper'
  figure.legend(handles.values(), handles, loc=where, fontsize=7)


def log_percent(figure, lowest: float) -> Any:
  """Returns a figure with logarithmic x, ticks in percent, densest first."""
  ticks = [k for k in (1, 2, 5, 10, 20, 50, 100) if k >= 0.8 * lowest]
  for axis in figure.axes:
    axis.set(xscale='log', xlabel='weights remaining [%]')
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(*sorted(axis.get_xlim(), reverse=True))
  add_legend(figure)
  return figure


def log_y(axes: Iterable[Any]) -> None:
  """Makes y logarithmic with plain numbers."""
  for axis in axes:
    axis.set_yscale('log')
    axis.yaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_minor_formatter('')
