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
from matplotlib import ticker
import numpy as np
import pandas as pd

from experiments.paper import render
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
MAX_BARS = 12  # points of a line with an error bar each


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
  num_log: int | None = 0, dodge: float = 1.0,
  order: Iterable[str] = (), **options: Any,
) -> Any:  # fmt: skip
  """Returns a figure of means and deviations, or None without rows.

  Each panel has an axis, and each line a color; long lines have a band, others
  bars. The first `num_log` axes (None: all) have a logarithmic y; `dodge` is
  the factor between the x of neighboring lines; `order` has the lines whose
  colors come first; `options` are those of `plt.subplots`. Optional columns:
  `point`, a text at each point, and `x_deviation`.
  """
  if frame.empty:
    return None
  panels = list(frame.groupby('panel', sort=False))
  options = {'sharey': len(panels) > 1, **options}
  figure, axes = grid(len(panels), num_columns, (4.2, 3.6), **options)
  names = dict.fromkeys([*order, *frame.line])
  index = {line: i for i, line in enumerate(names)}
  for axis, (panel, of_panel) in zip(axes, panels, strict=True):
    lines = list(of_panel.groupby('line', sort=False))
    for i, (line, own) in enumerate(lines):
      place = dodge ** (i - (len(lines) - 1) / 2)
      own = own.sort_values(x).assign(**{x: place * own[x]})
      _draw_line(axis, own, x, line, index[line])
    axis.set(title=panel, xlabel=x)
  axes[0].set_ylabel(label)
  log_y(axes[:num_log])
  add_legend(figure)
  return figure


def _draw_line(axis, own: pd.DataFrame, x: str, line: str, i: int) -> None:
  """Draws one line in the `i`th color."""
  deviation, color = own.deviation.fillna(0), f'C{i % 10}'
  style = {
    'color': color, 'ls': DASHES[i // 10 % 4], 'marker': MARKERS[i % 8],
    'lw': 1.3, 'ms': 4, 'label': line,
  }  # fmt: skip
  if len(own) > MAX_BARS:
    axis.plot(own[x], own['mean'], markevery=-(-len(own) // 30), **style)
    low, high = own['mean'] - deviation, own['mean'] + deviation
    axis.fill_between(own[x], low, high, color=color, alpha=0.15, lw=0)
    return
  xerr = own['x_deviation'].fillna(0) if 'x_deviation' in own else None
  axis.errorbar(own[x], own['mean'], deviation, xerr, elinewidth=1, **style)
  for place in own.itertuples() if 'point' in own else ():
    axis.annotate(
      place.point, (getattr(place, x), place.mean), (3, -8), fontsize=6,
      color=color, textcoords='offset points', annotation_clip=True,
    )  # fmt: skip


def focus(axes: Iterable[Any], frame: pd.DataFrame, metric: str) -> None:
  """Limits y to the useful means of a frame.

  The rest, such as networks at chance, is off the scale. Accuracies (in
  percent) that cover more than a factor 4 of errors are on a logarithmic scale
  of the error.
  """
  means = useful(frame['mean'], metric)
  if means.empty:
    return
  low, high = means.min(), means.max()
  margin = max(0.08 * (high - low), 1e-3 * abs(high), 1e-6)
  is_log = metric.endswith('accuracy') and 100 - low > 4 * (100 - high) > 0
  for axis in axes:
    if is_log:
      axis.set_yscale('function', functions=(_to_scale, _from_scale))
      low_limit, high_limit = 100 - 1.15 * (100 - low), 100 - (100 - high) / 1.2
      axis.set_ylim(low_limit, high_limit)
      axis.set_yticks(_ticks(low_limit, high_limit))
      axis.yaxis.set_major_formatter('{x:g}')
    else:
      axis.set_ylim(low - margin, high + margin)


def useful(means: pd.Series, metric: str) -> pd.Series:
  """Returns the means within a factor 2 of the best."""
  if metric in render.DESCENDING:
    return means[means <= 2 * means.min()]
  return means[means >= means.max() / 2]


def _to_scale(accuracy):
  return -np.log10(np.maximum(100 - np.asarray(accuracy, float), 1e-2))


def _from_scale(value):
  return 100 - 10 ** -np.asarray(value, float)


def _ticks(low: float, high: float) -> list[float]:
  """Returns round accuracies, about evenly spaced on the scale of errors."""
  errors = np.outer([1, 2, 5], 10.0 ** np.arange(-2, 2)).ravel()
  errors = np.append(errors, [3, 4, 6, 8, 15, 30, 40, 60, 70, 80])
  least = (_to_scale(high) - _to_scale(low)) / 9
  found: list[float] = []
  for accuracy in sorted(100 - errors, reverse=True):
    scale = _to_scale(accuracy)
    apart = not found or _to_scale(found[-1]) - scale >= least
    if low <= accuracy <= high and apart:
      found.append(accuracy)
  return found


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
  handles: dict[str, Any] = {}
  for axis in figure.axes:
    found, labels = axis.get_legend_handles_labels()
    handles |= {
      label: handle
      for label, handle in zip(labels, found, strict=True)
      if label not in handles
    }
  where = 'outside right upper'
  figure.legend(handles.values(), handles, loc=where, fontsize=7)


def log_percent(figure, shown: pd.Series) -> Any:
  """Returns a figure with logarithmic x, ticks in percent, densest first."""
  low, high = shown.min() / 1.2, shown.max() * 1.2
  ticks = [k for k in (1, 2, 5, 10, 20, 50, 100) if low <= k <= high]
  for axis in figure.axes:
    axis.set(xscale='log', xlabel='weights remaining [%]', xlim=(high, low))
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
  add_legend(figure)
  return figure


def log_x(axis, label: str) -> None:
  """Makes x logarithmic with ticks at 1, 2 and 5."""
  axis.set(xscale='log', xlabel=label)
  axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axis.xaxis.set_major_formatter(ticker.EngFormatter())
  axis.minorticks_off()


def log_y(axes: Iterable[Any]) -> None:
  """Makes y logarithmic with plain numbers, more of them on a short axis."""
  for axis in axes:
    axis.set_yscale('log')
    low, high = axis.get_ylim()
    decades = np.log10(high / low)
    subs = range(1, 10) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.yaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_minor_formatter('')
