"""The summary at the end of a launch: a table, plots, and plain values."""

from collections.abc import Iterable
from collections.abc import Sequence
import os
import pathlib
import re
from typing import Any

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

  Runs that differ in their seed only are one line, with mean and deviation.

  Folders without a finished run are named and left out; plots are written into
  `out/plots`.

  Returns:
    `test`, and for image classification `pruned`: for each line (and level) its
    name, alpha, seeds, and each metric as mean, deviation and num.
  """
  runs = []
  for folder in map(pathlib.Path, folders):
    try:
      run = runs_lib.read_run(folder)
      status, message = run.state.status, run.state.message
      if status == 'done':
        runs.append(run)
      else:
        console.print(f'{folder}: {status}: {message}', markup=False)
    except (ValueError, OSError) as error:
      console.print(f'{folder}: {error}', markup=False)
  if not runs:
    return {'test': []}
  has_points = len({point_of(run.path.name) for run in runs}) > 1
  lines = [_line(run, has_points) for run in runs]
  frame = runs_lib.to_frame(runs)
  frame['line'] = [lines[i].line for i in frame.run]
  trained, pruned = frame[frame.share.isna()], lines_lib.levels_of(lines)
  console.print(_table(trained, pruned))
  paths = plots.save(_plots(lines, pruned), pathlib.Path(out) / 'plots')
  if paths:
    console.print('Plots:', *map(str, paths), sep='\n  ', markup=False)
  found: dict[str, Any] = {'test': _means(trained, ['line'])}
  if not pruned.empty:
    alphas = trained.set_index('line').alpha.to_dict()
    pruned = pruned.assign(alpha=pruned.line.map(alphas))
    found['pruned'] = _means(pruned, ['line', 'density'])
  return found


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


def _table(trained: pd.DataFrame, pruned: pd.DataFrame) -> rich.table.Table:
  """Returns lines against metrics, or pruning levels against lines."""
  num_seeds = trained.groupby('line').seed.nunique().max()
  title = f'Mean ± deviation of {num_seeds} seed(s)'
  if pruned.empty:
    found = _texts(trained, ['line'], render.LABELS)
    found = found.rename(columns=render.LABELS).rename_axis(' ')
  else:
    title = f'Test accuracy [%], {title.lower()}'
    first = _texts(trained, ['line'], ['accuracy']).T
    first.index = ['as trained']
    levels = _texts(pruned, ['density', 'line'], ['accuracy']).accuracy
    levels = levels.unstack('line')[first.columns].sort_index(ascending=False)
    levels.index = [f'{100 * density:.2f}' for density in levels.index]
    found = pd.concat([first, levels.fillna('')])
    found = found.rename_axis('weights kept [%]')
  table = rich.table.Table(found.index.name, title=title)
  for heading in found:
    table.add_column(heading, justify='right')
  for row in found.itertuples(name=None):
    table.add_row(*row)
  return table


def _texts(
  frame: pd.DataFrame, by: list[str], metrics: Iterable[str]
) -> pd.DataFrame:
  """Returns mean and deviation of metrics as texts, by group."""
  known = [m for m in metrics if m in frame and frame[m].notna().any()]
  found = frame.groupby(by, sort=False)[known].agg(['mean', 'std'])
  columns = {
    m: [render.text(m, *values) for values in found[m].to_numpy()]
    for m in known
  }
  return pd.DataFrame(columns, found.index)


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
    'pruning': lambda: plots.draw_levels(pruned, 'accuracy'),
    'overlap': lambda: plots.draw_levels(pruned, 'overlap'),
    'histograms': lambda: plots.draw_histograms(lines),
    'training': lambda: plots.draw_progress(lines),
  }
