"""Accuracy against its cost: weights owned, time, bytes, FLOPs; and choices."""

import pathlib
from typing import Any

import numpy as np
import pandas as pd

from experiments.paper import lines as lines_lib
from experiments.paper import render
from experiments.paper import table as table_lib
from experiments.paper import tasks

TIMES = 'speed/cost.csv'  # of `benchmarks.cost`, beside the tables
TOLERANCE = 0.1  # points of accuracy that count as equal
_PANELS = {
  'step_seconds': 'seconds of training',
  'step_bytes': 'bytes of parameters, state and sets',
}


def add_times(
  table: table_lib.Table, cells: pd.DataFrame, directory: pathlib.Path
) -> pd.DataFrame:
  """Returns the cells with the measured time and bytes of a training.

  Adds step_ms, step_seconds (all steps) and step_bytes (on device and host) to
  a table of cost, if the record of the benchmark lies in the directory.
  """
  path = directory / TIMES
  if table.plots != 'cost' or not path.exists():
    return cells
  record = pd.read_csv(path).pivot(
    index='case', columns='figure', values='value'
  )
  record = record.reindex(columns=['time', 'bytes', 'host'])
  cases = cells[[*table.headings]].agg(
    lambda labels: ', '.join(filter(None, labels)), axis=1
  )
  milliseconds = cases.map(record.time)
  return cells.assign(
    step_ms=milliseconds,
    step_seconds=milliseconds / 1e3 * table.where['num_steps'],
    step_bytes=cases.map(record.bytes + record.host.fillna(0)),
  )


def pareto(cells: pd.DataFrame, x: str) -> pd.DataFrame:
  """Returns the cells that no other beats at as small a cost `x`."""
  done = cells[cells.status == 'done']
  sign = -1 if done.metric.isin(render.DESCENDING).any() else 1
  done = done.assign(worth=sign * done['mean'])
  done = done.sort_values([x, 'worth'], ascending=[True, False])
  best = done.worth.cummax().shift(fill_value=-np.inf)
  return done[done.worth > best]


def draw_front(frame: pd.DataFrame, x: str, label: str, **options: Any) -> Any:
  """Draws means against a cost, and the Pareto front of each panel."""
  figure = lines_lib.draw(frame, x, label, **options)
  for axis in figure.axes:
    own = frame[frame.panel == axis.get_title()]
    front = pareto(own, x)
    axis.step(
      front[x], front['mean'], where='post', color='0.45', lw=4, alpha=0.35,
      zorder=0, label='Pareto front',
    )  # fmt: skip
    lines_lib.log_x(axis, x)
  lines_lib.focus(figure.axes, frame, frame.metric.iloc[0])
  lines_lib.add_legend(figure)
  return figure


def draw_times(cells: pd.DataFrame) -> Any:
  """Draws the metric against seconds and bytes of training, by width."""
  if 'step_ms' not in cells:
    return None
  done = cells[(cells.status == 'done') & cells.step_ms.notna()]
  if done.empty:
    return None
  factor, _ = render.FORMATS.get(done.metric.iloc[0], render.PERCENT)
  width = done.iloc[:, [2]].squeeze(axis=1)  # the last heading
  done = done.assign(
    line=(done.iloc[:, 0] + ' ' + done.iloc[:, 1]).str.strip(),
    point=width.str.partition('-')[0],
    mean=factor * done['mean'],
    deviation=factor * done.deviation,
  )
  parts = [done.assign(panel=p, x=done[name]) for name, p in _PANELS.items()]
  label = render.LABELS[done.metric.iloc[0]]
  figure = draw_front(pd.concat(parts), 'x', label, sharey=True)
  for axis in figure.axes:
    axis.set(xlabel=axis.get_title(), title='')
  return figure


def packed(cells: pd.DataFrame) -> pd.DataFrame:
  """Returns a row for each network of a table of packing, in percent.

  Columns: panel (the masks), line (alpha), point (gamma), mean and deviation of
  the accuracy, owned, x_deviation.
  """
  keys, done = ['masks', 'alpha', 'gamma'], cells[cells.status == 'done']
  columns = [*keys, 'mean', 'deviation']
  accuracy, owned = (
    done[done.column == name][columns] for name in (tasks.ACCURACY, tasks.OWNED)
  )
  both = accuracy.merge(owned, on=keys, suffixes=('', '_owned'))
  return pd.DataFrame(
    {
      'panel': both.masks,
      'line': both.alpha,
      'point': both.gamma,
      'mean': 100 * both['mean'],
      'deviation': 100 * both.deviation,
      'owned': 100 * both.mean_owned,
      'x_deviation': 100 * both.deviation_owned,
    }
  )


def draw_owned(cells: pd.DataFrame) -> Any:
  """Draws accuracy against weights owned: a line an alpha, a point a gamma."""
  frame = packed(cells)
  if frame.empty:
    return None
  label = f'{render.LABELS["average_accuracy"]}, points: gamma'
  figure = lines_lib.draw(frame, 'owned', label)
  for axis in figure.axes:
    axis.set_xlabel(render.LABELS['owned'])
  lines_lib.focus(figure.axes, frame, 'accuracy')
  return figure


def at_equal_accuracy(cells: pd.DataFrame) -> pd.DataFrame:
  """Returns the weights owned by the best alpha at the accuracies of alpha 1.

  Columns: masks, and those of `cheapest`; all in percent but for `share`.
  """
  parts = [
    cheapest(own, 'owned', 'alpha 1').assign(masks=masks)
    for masks, own in packed(cells).groupby('panel', sort=False)
  ]
  empty = cheapest(packed(cells.iloc[:0]), 'owned', '').assign(masks='')
  return pd.concat([*parts, empty]) if parts else empty


def cheapest(
  curves: pd.DataFrame, x: str, reference: str, tolerance: float = TOLERANCE
) -> pd.DataFrame:
  """Returns the least cost of other lines at the accuracies of a reference.

  Curves are interpolated between their points; accuracies that no other line
  reaches, within the tolerance, are left out. Columns: accuracy, base (cost of
  the reference), line (the cheapest other), cost, share (of base).
  """
  lines = {str(line): own for line, own in curves.groupby('line')}
  base, rows = lines.pop(reference, curves.iloc[:0]), []
  for accuracy in sorted(base['mean']):
    costs = {
      line: _cost_at(own, x, accuracy, tolerance) for line, own in lines.items()
    }
    known = {line: cost for line, cost in costs.items() if np.isfinite(cost)}
    if known:
      least, line = (
        _cost_at(base, x, accuracy, tolerance),
        min(known, key=known.get),
      )
      cost = known[line]
      rows.append((accuracy, least, line, cost, cost / least))
  names = ['accuracy', 'base', 'line', 'cost', 'share']
  return pd.DataFrame(rows, columns=names)


def _cost_at(
  curve: pd.DataFrame, x: str, accuracy: float, tolerance: float
) -> float:
  """Returns the least cost of an accuracy; NaN off the curve."""
  curve = curve.sort_values('mean')
  accuracies = curve['mean'].to_numpy()
  least = np.minimum.accumulate(curve[x].to_numpy()[::-1])[::-1]
  low, high = accuracies[0] - tolerance, accuracies[-1] + tolerance
  if not low <= accuracy <= high:
    return np.nan
  return float(np.interp(accuracy, accuracies, least))


def draw_choices(table: table_lib.Table, cells: pd.DataFrame) -> Any:
  """Draws a dot with its deviation for each row, a panel for each column.

  Columns are those with the metric of the first. The cells that others are
  tested against are bands, each down to the next.
  """
  metric = table.columns[0].metric
  factor, _ = render.FORMATS.get(metric, render.PERCENT)
  own = cells[cells.metric == metric]
  own = own.assign(
    mean=factor * own['mean'], deviation=factor * own.deviation.fillna(0)
  )
  known = own[own.status == 'done']
  if known.empty:
    return None
  names = own[[*table.headings]].agg(': '.join, axis=1)
  places = {name: -i for i, name in enumerate(names.unique())}
  own = own.assign(place=names.map(places))
  panels = [x for x in own.groupby('column', sort=False) if x[1]['mean'].any()]
  figure, axes = lines_lib.grid(
    len(panels), 2, (4.0, 0.8 + 0.26 * len(places)), sharex=True, sharey=True
  )
  for axis, (panel, cells_of) in zip(axes, panels, strict=True):
    _draw_bands(axis, table, cells_of)
    kinds = cells_of[table.headings[0]]
    for i, kind in enumerate(kinds.unique()):
      points = cells_of[(kinds == kind) & (cells_of.status == 'done')]
      axis.errorbar(
        points['mean'], points.place, xerr=points.deviation, color=f'C{i}',
        ls='', marker='o', elinewidth=1.2,
      )  # fmt: skip
    axis.set(title=panel, xlabel=render.LABELS[metric])
  means = lines_lib.useful(known['mean'], metric)
  if metric.endswith('accuracy'):  # by errors, which differ more
    means = 100 - lines_lib.useful(100 - means, 'loss')
  spread = known.deviation[means.index].median()
  margin = 0.1 * (means.max() - means.min()) + 1.5 * spread
  margin = max(margin, 1e-3 * means.max())
  axes[0].set_xlim(means.min() - margin, means.max() + margin)
  axes[0].set_ylim(-len(places) + 0.5, 0.5)
  axes[0].set_yticks([*places.values()], [*places])
  return figure


def _draw_bands(axis, table: table_lib.Table, cells: pd.DataFrame) -> None:
  """Draws the references of a column, each over the rows down to the next."""
  [against] = table.against
  is_base = [
    all(where.get(key) == value for key, value in against.items())
    for where in cells['where']
  ]
  starts = [*cells.place[is_base] + 0.5, cells.place.min() - 0.5]
  for (_, base), high, low in zip(
    cells[is_base].iterrows(), starts[:-1], starts[1:], strict=True
  ):
    ends = base['mean'] - base.deviation, base['mean'] + base.deviation
    axis.fill_betweenx([low, high], *ends, color='0.85', zorder=0)
