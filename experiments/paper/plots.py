"""Plots of runs, and of tables; None without data."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import pathlib
from typing import Any

from matplotlib import pyplot as plt
import numpy as np
import pandas as pd

from experiments.paper import fronts
from experiments.paper import lines as lines_lib
from experiments.paper import render
from experiments.paper import runs as runs_lib
from experiments.paper import table as table_lib

MAX_HISTOGRAMS = 24

# By kind.
Plots = Mapping[str, Callable[[], Any]]


def of_table(
  table: table_lib.Table, cells: pd.DataFrame, results: pd.DataFrame,
  runs: Sequence[runs_lib.Run],
) -> Plots:  # fmt: skip
  """Returns the plots of a table by kind; most need more than stored results.

  `cells` are `fill.summarize` of the results and runs of `fill.fill`, with
  `fronts.add_times`.
  """
  if not table.plots:
    return {}
  if table.plots == 'owned':
    return {'owned': lambda: fronts.draw_owned(cells)}
  if table.plots == 'cost':
    return {'cost': lambda: fronts.draw_times(cells)}
  lines = _lines(table, cells, results, runs)
  if table.plots == 'tasks':
    return {'tasks': lambda: draw_tasks(lines)}
  train = lines_lib.rows_of(lines, 'train')
  plots = {
    'training': lambda: draw_steps(train, 'loss', 'training loss [nats]'),
    'masks': lambda: draw_steps(
      train, 'mask_change', 'left the forward set [%]', 100
    ),
  }
  if table.plots == 'choices':
    return plots | {'choices': lambda: fronts.draw_choices(table, cells)}
  if table.lines == 'columns':
    pruned = lines_lib.levels_of(lines)
    plots['overlap'] = lambda: draw_overlap(pruned)
  plots |= {
    'flops': lambda: draw_cost(cells, 'train_flops', 'FLOPs of training'),
    'histograms': lambda: draw_histograms(lines),
  }
  if 'num_bytes' in table.extra:
    # All weights of smaller dense models remain; bytes tell them apart.
    return plots | {
      'bytes': lambda: draw_cost(cells, 'num_bytes', 'bytes of weights')
    }
  is_level = np.array([x.get('share') is not None for x in cells['where']])
  levels = cells[is_level] if is_level.any() else cells
  return plots | {
    'density': lambda: draw_density(
      _known(levels, 'density'), _label(cells), cells.metric.iloc[0]
    ),
  }


def save(
  plots: Plots, directory: pathlib.Path, prefix: str = ''
) -> list[pathlib.Path]:
  """Writes the plots that have data as PNG; returns the files."""
  paths = []
  with plt.rc_context(lines_lib.STYLE):
    for kind, draw in sorted(plots.items()):
      figure = draw()
      if figure is not None:
        directory.mkdir(parents=True, exist_ok=True)
        paths.append(directory / f'{prefix}{kind}.png')
        figure.savefig(paths[-1])
        plt.close(figure)
  return paths


def draw_steps(
  rows: pd.DataFrame, metric: str, label: str, scale: float = 1
) -> Any:
  """Draws a metric of training rows against steps, for lines where it is."""
  if metric not in rows:
    return None
  is_there = rows.groupby(['panel', 'line'])[metric].transform('max') > 0
  rows = rows[is_there].assign(**{metric: rows[metric].clip(1e-4)})
  found = lines_lib.means(rows, 'step', metric, scale)
  return lines_lib.draw(found, 'step', label, num_log=None)


def draw_progress(lines: Sequence[lines_lib.Line]) -> Any:
  """Draws the training loss and a metric in validation against steps."""
  parts = []
  for split, metric, scale in (
    ('train', 'loss', 1), ('validation', 'accuracy', 100),
    ('validation', 'bits_per_character', 1), ('validation', 'perplexity', 1),
  ):  # fmt: skip
    rows = lines_lib.rows_of(lines, split)
    if metric in rows:
      rows = rows[np.isfinite(rows[metric].astype(float))]
      found = lines_lib.means(rows, 'step', metric, scale)
      title = f'{split} {metric.replace("_", " ")}'
      parts.append(found.assign(panel=title))
  if not parts:
    return None
  frame = pd.concat(parts)
  figure = lines_lib.draw(frame, 'step', num_log=1, sharey=False)
  _focus_on_accuracy(figure, frame)
  return figure


def draw_density(frame: pd.DataFrame, label: str, metric: str = '') -> Any:
  """Draws means and deviations against density; dense networks are levels.

  `metric` limits y to its useful values; without, the density is drawn too.
  """
  if frame.empty:
    return None
  single = frame.groupby(['panel', 'line']).density.transform('size') == 1
  across = frame[single & (frame.density == 100)]
  curves, panels = frame.drop(across.index), list(frame.panel.unique())
  curves = curves.sort_values(
    'panel', kind='stable', key=lambda x: x.map(panels.index)
  )
  dodge = 1.02 if curves.density.nunique() < lines_lib.MAX_BARS else 1.0
  figure = lines_lib.draw(
    curves, 'density', label, dodge=dodge, order=frame.line
  )
  if figure is None:
    return None
  for axis in figure.axes:
    here = across[across.panel == axis.get_title()]
    for line, level, style in zip(
      here.line, here['mean'], itertools.cycle((':', '-.', '--')), strict=False
    ):
      axis.axhline(level, color='0.45', ls=style, label=line)
    if not metric:
      x = np.sort(frame.density.unique())
      axis.plot(x, x, color='0.5', ls=':', label='by chance')
  if metric:
    lines_lib.focus(figure.axes, frame, metric)
  return lines_lib.log_percent(figure, curves.density)


def draw_overlap(pruned: pd.DataFrame) -> Any:
  """Draws the overlap of masks before and after training."""
  label = 'masks before and after training, overlap [%]'
  return draw_density(lines_lib.of_levels(pruned, 'overlap'), label)


def draw_cost(cells: pd.DataFrame, cost: str, label: str) -> Any:
  """Draws the metric against a cost; None if all cost the same."""
  known = _known(cells, cost)
  if known[cost].nunique() < 2:
    return None
  figure = fronts.draw_front(known, cost, _label(cells), sharex=True)
  for axis in figure.axes:
    axis.set_xlabel(label)
  return figure


def draw_tasks(lines: Sequence[lines_lib.Line]) -> Any:
  """Draws accuracy and the use of weights against tasks."""
  parts = []
  done = [line for line in lines if line.run.state.status == 'done']
  # A run is in several cells.
  for name, run in {
    (line.line, line.run.path): line[1:] for line in done
  }.values():
    matrix, usage = (
      runs_lib.accuracy_matrix(run),
      runs_lib.of_split(run, 'usage'),
    )
    panels = {
      'mean accuracy on the tasks so far [%]': {
        name: [row[: t + 1].mean() for t, row in enumerate(matrix)]
      },
      'accuracy when learned [%]': {name: matrix.diagonal()},
    }
    if usage := [row for row in usage if row['layer'] == 'all']:
      panels[f'weights of {name} [%]'] = {
        kind: [row[kind] for row in usage]
        for kind in ('owned', 'free', 'new', 'reused')
      }
    for panel, values in panels.items():
      rows = pd.DataFrame(values).rename_axis('task').reset_index()
      rows = rows.melt('task', var_name='line').assign(panel=panel)
      parts.append(rows.assign(task=rows.task + 1))
  if not parts:
    return None
  found = lines_lib.means(pd.concat(parts).dropna(), 'task', 'value', 100)
  figure = lines_lib.draw(found, 'task', num_columns=3, sharey=False)
  _focus_on_accuracy(figure, found)
  return figure


def draw_histograms(lines: Sequence[lines_lib.Line]) -> Any:
  """Draws the distribution of theta, in grey before training.

  Of too many lines, those of the fullest panel.
  """
  rows = lines_lib.rows_of(lines, 'histogram')
  if rows.empty:
    return None
  if rows.groupby(['panel', 'line']).ngroups > MAX_HISTOGRAMS:
    fullest = rows.groupby('panel', sort=False).line.nunique().idxmax()
    rows = rows[rows.panel == fullest]
  places = list(rows.groupby(['line', 'panel'], sort=False))
  figure, axes = lines_lib.grid(len(places), 5, (2.4, 1.9), sharex=True)
  for axis, (titles, own) in zip(axes, places, strict=True):
    for when, chosen in own.groupby('when', sort=False):
      counts, is_before = np.mean(list(chosen.counts), 0), when == 'before'
      color = '0.7' if is_before else 'C0'
      axis.stairs(counts, chosen.edges.iloc[0], color=color, fill=is_before)
    axis.set_title(', '.join(filter(None, titles)), fontsize=8)
    axis.tick_params(labelsize=7)
  figure.supxlabel('theta (the outermost bins hold all beyond)', fontsize=8)
  figure.supylabel('weights in a bin', fontsize=8)
  lines_lib.log_y(axes)
  return figure


def _lines(table, cells: pd.DataFrame, results, runs) -> list[lines_lib.Line]:
  """Returns the runs of a table as trained: a panel a column, a line a row.

  In a table with panels, the rows of the first; of one column, a panel for each
  forward density. Of one row, as in pruning curves, the columns are lines of
  one panel.
  """
  keys = [*table.headings, 'column']
  if table.panel is not None:
    cells = cells[cells.panel == cells.panel.iloc[0]]
  # Columns of several metrics show the same runs.
  columns = {str(c.where): c.label for c in reversed(table.columns)}.values()
  is_single = len(columns) == 1
  trained = [where.get('share') is None for where in cells['where']]
  trained = cells.column.isin(columns) & np.array(trained)
  found = results.dropna(subset='run').merge(cells.loc[trained, keys], on=keys)
  panel = None
  if is_single and table.panel is not None:
    panel = table.headings[table.panel]
  lines = []
  for row in found.to_dict('records'):
    labels = [row[h] for h in table.headings if row[h] and h != panel]
    title = row[panel].partition(' / ')[0] if panel else row['column']
    lines.append(lines_lib.Line(title, ' '.join(labels), runs[int(row['run'])]))
  if len({line.line for line in lines}) == 1:
    lines = [lines_lib.Line('', line.panel, line.run) for line in lines]
  elif is_single and not panel:
    lines = [line._replace(panel='') for line in lines]
  return lines


def _known(cells: pd.DataFrame, cost: str) -> pd.DataFrame:
  """Returns cells of known cost, as printed; none if no line has two."""
  factor = render.FORMATS.get(cells.metric.iloc[0], render.PERCENT)[0]
  known = cells[cells.status.isin(['done', 'diverged']) & cells[cost].notna()]
  scales = {'density': 100, 'mean': factor, 'deviation': factor}
  known = known.assign(**{k: known[k] * scale for k, scale in scales.items()})
  sizes = known[known.status == 'done'].groupby(['panel', 'line']).size()
  is_single = cells.column.nunique() > 1 and not (sizes > 1).any()
  return known.iloc[:0] if is_single else known


def _focus_on_accuracy(figure, frame: pd.DataFrame) -> None:
  for axis in figure.axes:
    title = axis.get_title()
    if 'accuracy' in title:
      lines_lib.focus([axis], frame[frame.panel == title], 'accuracy')


def _label(cells: pd.DataFrame) -> str:
  return render.LABELS.get(cells.metric.iloc[0], cells.metric.iloc[0])
