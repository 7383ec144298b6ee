"""Lines of runs and of tables: frames, and the figures that show them.

Figures show frames with `panel`, `line`, `mean`, `deviation` and a column for
x: metrics rows by `means`, or the cells of a table.
"""

import base64
from collections.abc import Callable
from collections.abc import Iterable
import io
from typing import Any
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import pandas as pd

from experiments.paper import runs as runs_lib

STYLE = {
  'axes.grid': True, 'axes.spines.right': False, 'axes.spines.top': False,
  'figure.constrained_layout.use': True, 'grid.alpha': 0.3, 'savefig.dpi': 150,
}  # fmt: skip
_SVG = {
  'axes.facecolor': 'none', 'figure.facecolor': 'none', 'font.size': 9,
  'legend.facecolor': 'none', 'savefig.facecolor': 'none',
  'svg.fonttype': 'none',
}  # fmt: skip
MARKERS, DASHES = 'os^vDP*X', ('-', '--', ':', '-.')
MAX_BARS = 30  # points of a line with a marker and an error bar


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
  """Returns the 'pruned' rows of lines, those of equal density once."""
  rows = rows_of(lines, 'pruned')
  keys = ['panel', 'line', 'seed', 'density']
  return rows if rows.empty else rows.drop_duplicates(keys)


def of_levels(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
  """Returns a metric of 'pruned' rows against density, in percent."""
  if rows.empty:
    return rows
  return means(rows.assign(density=100 * rows.density), 'density', metric, 100)


def means(rows: pd.DataFrame, x: str, y: str, scale: float = 1) -> pd.DataFrame:
  """Returns mean and deviation over seeds of `scale * y`, for `draw`."""
  values = rows.assign(value=scale * rows[y].astype(float))
  groups = values.groupby(['panel', 'line', x], sort=False).value
  return groups.agg(mean='mean', deviation='std').reset_index()


def draw(
  frame: pd.DataFrame, x: str, label: str = '', num_columns: int = 3,
  num_log: int | None = 0, **options: Any,
) -> Any:  # fmt: skip
  """Returns a figure of means and deviations, or None without rows.

  Each panel has an axis, and each line a color. The first `num_log` axes (None:
  all) have a logarithmic y; `options` are those of `plt.subplots`.
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
      every = -(-len(own) // MAX_BARS)
      axis.errorbar(
        own[x], own['mean'], own.deviation.fillna(0), color=f'C{i % 10}',
        ls=DASHES[i // 10 % 4], lw=1.3, marker=MARKERS[i % 8], ms=4,
        markevery=every, errorevery=every, elinewidth=1, label=line,
      )  # fmt: skip
    axis.set(title=panel, xlabel=x)
  axes[0].set_ylabel(label)
  log_y(axes[:num_log])
  add_legend(figure)
  return figure


def to_uri(draw: Callable[[], Any]) -> str:
  """Returns a figure as the URI of an SVG image; '' if `draw` returns None."""
  with plt.rc_context({**STYLE, **_SVG}):
    figure = draw()
    if figure is None:
      return ''
    file = io.BytesIO()
    figure.savefig(file, format='svg', metadata={'Date': None})
    plt.close(figure)
  data = base64.b64encode(file.getvalue()).decode()
  return f'data:image/svg+xml;base64,{data}'


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
