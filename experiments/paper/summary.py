"""The summary at the end of a launch: a table, plots, and plain values."""

from collections.abc import Sequence
import os
import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import rich.console
import rich.table

from experiments.paper import lines as lines_lib
from experiments.paper import plots
from experiments.paper import render
from experiments.paper import runs as runs_lib


def summarize(
  folders: Sequence[str | os.PathLike[str]],
  out: str | os.PathLike[str],
  console: rich.console.Console,
) -> dict[str, Any]:
  """Prints and plots the runs of a launch, and returns their values.

  Runs that differ in their seed only are one line. Folders without a finished
  run are named and left out; plots are written into `out/plots`. The values
  are `test`, and for image classification `pruned`: for each line (and level)
  its name, alpha, seeds, and each metric as mean, deviation and num.
  """
  found = [runs_lib.read_run(pathlib.Path(folder)) for folder in folders]
  runs = [run for run in found if run.state.status == 'done']
  for run in found:
    if run.state.status != 'done':
      console.print(f'{run.path}: {runs_lib.describe(run)}', markup=False)
  if not runs:
    return {'test': []}
  has_points = len({point_of(run.path.name) for run in runs}) > 1
  lines = [_line(run, has_points) for run in runs]
  frame = runs_lib.to_frame(runs)
  frame['line'] = [lines[i].line for i in frame.run]
  trained, pruned = frame[frame.share.isna()], lines_lib.levels_of(lines)
  values: dict[str, Any] = {'test': _means(trained, ['line'])}
  if not pruned.empty:
    alphas = trained.set_index('line').alpha.to_dict()
    pruned = pruned.assign(alpha=pruned.line.map(alphas))
    values['pruned'] = _means(pruned, ['line', 'density'])
  console.print(_table(values))
  paths = plots.save(_plots(lines, pruned), pathlib.Path(out) / 'plots')
  if paths:
    console.print('Plots:', *map(str, paths), sep='\n  ', markup=False)
  return values


def point_of(name: str) -> str:
  """Returns the point of a sweep that a run folder belongs to.

  Example:
    >>> point_of('rigl,density=0.1,alpha=2,seed=0'), point_of('alpha=2,seed=0')
    ('rigl,density=0.1', '')
  """
  return re.sub(r'(^|,)alpha=[^,]+,seed=\d+$', '', name)


def _line(run: runs_lib.Run, has_points: bool) -> lines_lib.Line:
  alpha = f'alpha {run.config["powerprop"]["alpha"]:g}'
  point = point_of(run.path.name) if has_points else ''
  return lines_lib.Line('', ', '.join(filter(None, (point, alpha))), run)


def _table(values: dict[str, Any]) -> rich.table.Table:
  """Returns lines against metrics, or pruning levels against lines."""
  num_seeds = max(len(one['seeds']) for one in values['test'])
  title, heading = f'Mean ± deviation of {num_seeds} seed(s)', ' '
  known = [m for m in render.LABELS if any(m in one for one in values['test'])]
  rows = {
    one['name']: {render.LABELS[m]: _text(one, m) for m in known}
    for one in values['test']
  }
  if 'pruned' in values:
    title = f'Test accuracy [%], {title.lower()}'
    heading = 'weights kept [%]'
    levels: dict[float, dict[str, str]] = {}
    for one in values['test'] + values['pruned']:
      row = levels.setdefault(one.get('density', np.inf), {})
      row[one['name']] = _text(one, 'accuracy')
    rows = {
      f'{100 * level:.2f}'.replace('inf', 'as trained'): levels[level]
      for level in sorted(levels, reverse=True)
    }
  table = rich.table.Table(heading, title=title)
  columns = list(next(iter(rows.values())))
  for column in columns:
    table.add_column(column, justify='right')
  for label, row in rows.items():
    table.add_row(label, *(row.get(column, '') for column in columns))
  return table


def _text(one: dict[str, Any], metric: str) -> str:
  """Returns mean and deviation of a metric; '' if it is not there."""
  if metric not in one:
    return ''
  mean, deviation, num = one[metric].values()
  return render.text(metric, mean, deviation if num > 1 else np.nan)


def _means(frame: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
  metrics = {*render.LABELS, 'overlap', 'validation_loss'}
  found = []
  for (line, *density), own in frame.groupby(by, sort=False):
    own = own.sort_values('seed').dropna(axis=1, how='all')
    values = {'name': line, 'alpha': own.alpha.iloc[0], 'seeds': list(own.seed)}
    values |= {'density': density[0]} if density else {}
    for name in sorted(metrics & {*own}):
      known = own[name].agg(['mean', 'std', 'count']).fillna(0)
      values[name] = {
        'mean': known['mean'], 'deviation': known['std'],
        'num': int(known['count']),
      }  # fmt: skip
    found.append(values)
  return found


def _plots(
  lines: Sequence[lines_lib.Line], pruned: pd.DataFrame
) -> plots.Plots:
  if 'strategy' in lines[0].run.config:
    return {'tasks': lambda: plots.draw_tasks(lines)}
  return {
    'pruning': lambda: plots.draw_density(
      lines_lib.of_levels(pruned, 'accuracy'), render.LABELS['accuracy']
    ),
    'overlap': lambda: plots.draw_overlap(pruned),
    'histograms': lambda: plots.draw_histograms(lines),
    'training': lambda: plots.draw_progress(lines),
  }
