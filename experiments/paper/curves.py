"""Plots of metrics rows: training, masks, weights, pruning, tasks.

A `Line` is a run with its panel and its line in plots; `rows_of` has metrics
rows of lines as a frame with the columns `panel`, `line` and `seed`.
"""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import numpy as np
import pandas as pd

from experiments.paper import measures
from experiments.paper import runs as runs_lib

MAX_HISTOGRAMS = 24


class Line(NamedTuple):
  """A run, and where plots show it; runs of one line are its seeds."""

  panel: str
  line: str
  run: runs_lib.Run


def rows_of(lines: Iterable[Line], split: str, **fields: Any) -> pd.DataFrame:
  """Returns the metrics rows of a split of lines, with `panel` and `line`."""
  return pd.DataFrame(
    [
      {**row, 'panel': panel, 'line': line, 'seed': run.config['seed']}
      for panel, line, run in lines
      for row in runs_lib.of_split(run, split, **fields)
    ]
  )


def levels_of(lines: Iterable[Line]) -> pd.DataFrame:
  """Returns the 'pruned' rows of lines, those of equal density once.

  A sparse network is the same at all levels above its own density.
  """
  rows = rows_of(lines, 'pruned')
  keys = ['panel', 'line', 'seed', 'density']
  return rows if rows.empty else rows.drop_duplicates(keys)


def draw_training(rows: pd.DataFrame) -> Any:
  """Draws the training loss against steps, means over seeds."""
  return _draw_tracks(rows, 'loss', 'training loss [nats]', 1)


def draw_mask_change(rows: pd.DataFrame) -> Any:
  """Draws the share of the forward set that left it since the row before."""
  if 'mask_change' not in rows:
    return None
  moves = rows.groupby(['panel', 'line']).mask_change.transform('max') > 0
  rows = rows[moves]
  rows = rows.assign(mask_change=rows.mask_change.clip(1e-4))
  return _draw_tracks(rows, 'mask_change', 'left the forward set [%]', 100)


def draw_histograms(rows: pd.DataFrame) -> Any:
  """Draws the distribution of theta, in grey before training.

  With more lines than can be seen, those of the fullest panel.
  """
  if rows.empty:
    return None
  lines = rows.groupby(['panel', 'line'], sort=False).ngroups
  if lines > MAX_HISTOGRAMS:
    fullest = rows.groupby('panel', sort=False).line.nunique().idxmax()
    rows = rows[rows.panel == fullest]
  places = list(rows.groupby(['line', 'panel'], sort=False))
  figure, axes = _grid(
    len(places), min(5, len(places)), (2.4, 1.9), sharex=True
  )
  for axis, (titles, own) in zip(axes, places, strict=True):
    for when, color in (('before', '0.7'), ('after', 'C0')):
      chosen = own[own.when == when]
      if len(chosen):
        counts = np.mean(list(chosen.counts), 0)
        fill = when == 'before'
        axis.stairs(counts, chosen.edges.iloc[0], color=color, fill=fill)
    _log_y(axis)
    axis.set_title(', '.join(filter(None, titles)), fontsize=8)
    axis.tick_params(labelsize=7)
  figure.supxlabel('theta (the outermost bins hold all beyond)', fontsize=8)
  figure.supylabel('weights in a bin', fontsize=8)
  return figure


def draw_levels(rows: pd.DataFrame, metric: str) -> Any:
  """Draws accuracy or overlap of masks against the weights remaining."""
  if rows.empty:
    return None
  figure, axis = plt.subplots(figsize=(7, 4.5))
  for i, (line, own) in enumerate(rows.groupby('line', sort=False)):
    own = own.assign(density=100 * own.density)
    draw_band(axis, own, 'density', metric, line, i, 100)
  label = 'test accuracy [%]'
  if metric == 'overlap':
    density = 100 * np.sort(rows.density.unique())
    axis.plot(density, density, color='0.5', ls=':', label='by chance')
    label = 'masks before and after training, overlap [%]'
  log_percent(axis, 100 * rows.density.min())
  axis.invert_xaxis()
  axis.set(xlabel='weights remaining [%]', ylabel=label)
  axis.legend()
  return figure


def draw_tasks(lines: Sequence[Line]) -> Any:
  """Draws accuracy and the use of weights against tasks."""
  by_line: dict[str, dict[int, runs_lib.Run]] = {}
  for line in lines:
    if line.run.status == 'done':
      by_line.setdefault(line.line, {})[line.run.config['seed']] = line.run
  if not by_line:
    return None
  unique = [
    Line('', k, run) for k, own in by_line.items() for run in own.values()
  ]
  usage = rows_of(unique, 'usage', layer='all')
  usages = [] if usage.empty else list(usage.groupby('line', sort=False))
  size = (10 + 3.4 * len(usages), 4)
  figure, axes = plt.subplots(1, 2 + len(usages), figsize=size)
  for i, (name, runs) in enumerate(by_line.items()):
    found = np.array([matrix_of(run) for run in runs.values()])
    so_far = [found[:, t, : t + 1].mean(1) for t in range(found.shape[1])]
    new = np.diagonal(found, axis1=1, axis2=2)
    for axis, values in zip(axes, (np.transpose(so_far), new), strict=False):
      rows = pd.DataFrame(values).melt(var_name='task', value_name='y').dropna()
      rows = rows.assign(task=rows.task + 1)
      draw_band(axis, rows, 'task', 'y', name, i, 100)
  axes[0].set(xlabel='tasks so far', ylabel='mean test accuracy [%]')
  axes[1].set(xlabel='task', ylabel='accuracy when learned [%]')
  axes[0].legend(fontsize=7)
  for axis, (name, own) in zip(axes[2:], usages, strict=True):
    for i, kind in enumerate(('owned', 'free', 'new', 'reused')):
      draw_band(axis, own, 'task', kind, kind, i, 100)
    axis.set(xlabel='task', ylim=(-2, 102), ylabel='weights [%]')
    axis.set_title(name, fontsize=9)
    axis.legend(fontsize=7)
  return figure


def draw_matrices(lines: Sequence[Line]) -> Any:
  """Draws the accuracy on each task after each task, means over seeds."""
  by_line: dict[str, list[np.ndarray]] = {}
  for line in lines:
    by_line.setdefault(line.line, []).append(matrix_of(line.run))
  figure, axes = _grid(len(by_line), min(4, len(by_line)), (4, 3.6))
  for axis, (name, found) in zip(axes, by_line.items(), strict=True):
    edges = (0.5, found[0].shape[0] + 0.5)
    image = axis.imshow(
      100 * np.mean(found, 0), vmin=0, vmax=100, extent=(*edges, *edges[::-1])
    )
    axis.grid(False)
    axis.set(xlabel='task tested', ylabel='tasks trained', title=name)
  figure.colorbar(image, ax=list(axes), label='test accuracy [%]')
  return figure


def draw_progress(lines: Sequence[Line]) -> Any:
  """Draws the training loss and a metric in validation against steps."""
  train, validation = (rows_of(lines, s) for s in ('train', 'validation'))
  if train.empty:
    return None
  shown = [('training loss', train, 'loss', 1)]
  for metric in ('accuracy', 'bits_per_character', 'perplexity'):
    if metric in validation:
      scale, name = 100 if metric == 'accuracy' else 1, metric.replace('_', ' ')
      shown.append((f'validation {name}', validation, metric, scale))
  figure, axes = plt.subplots(
    1, len(shown), figsize=(4.6 * len(shown), 3.4), squeeze=False
  )
  for axis, (title, rows, metric, scale) in zip(axes[0], shown, strict=True):
    for i, (line, own) in enumerate(rows.groupby('line', sort=False)):
      finite = own[np.isfinite(own[metric].astype(float))]
      draw_band(axis, finite, 'step', metric, line, i, scale)
    axis.set(xlabel='step')
    axis.set_title(title, fontsize=9)
  _log_y(axes[0][0])
  axes[0][0].legend(fontsize=6)
  return figure


def matrix_of(run: runs_lib.Run) -> np.ndarray:
  """Returns the accuracy matrix [T, T] of a run."""
  num_tasks = run.config['tasks']['num_tasks']
  return measures.accuracy_matrix(run.rows, num_tasks)


def draw_band(
  axis: Any,
  rows: pd.DataFrame,
  x: str,
  y: str,
  label: str,
  i: int,
  scale: float = 1,
) -> None:
  """Draws means over seeds in a band of their deviations, times `scale`."""
  found = scale * rows.groupby(x)[y].agg(['mean', 'std']).fillna({'std': 0})
  low, high = found['mean'] - found['std'], found['mean'] + found['std']
  style = {'color': f'C{i % 10}', 'ls': ('-', '--', ':', '-.')[i // 10 % 4]}
  axis.plot(found.index, found['mean'], label=label, marker='.', ms=4, **style)
  axis.fill_between(
    found.index, low, high, color=style['color'], alpha=0.2, lw=0
  )


def log_percent(axis, lowest: float) -> None:
  """Makes x logarithmic with ticks in percent."""
  ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick >= 0.8 * lowest]
  axis.set_xscale('log')
  axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
  axis.minorticks_off()


def _draw_tracks(rows: pd.DataFrame, metric: str, label: str, scale: float):
  """Draws means over seeds against steps, a panel a column."""
  if rows.empty:
    return None
  panels = list(rows.groupby('panel', sort=False))
  figure, axes = _grid(
    len(panels), min(3, len(panels)), (3.9, 3.4), sharey=True
  )
  colors = {line: i for i, line in enumerate(rows.line.unique())}
  for axis, (title, of_panel) in zip(axes, panels, strict=True):
    for line, own in of_panel.groupby('line', sort=False):
      draw_band(axis, own, 'step', metric, line, colors[line], scale)
    axis.set(title=title, xlabel='step')
    _log_y(axis)
  axes[0].set_ylabel(label)
  handles = {
    line.get_label(): line for axis in axes for line in axis.get_lines()
  }
  where = 'outside right upper'
  figure.legend(handles.values(), handles, loc=where, fontsize=7)
  return figure


def _grid(number: int, columns: int, size: tuple[float, float], **options):
  """Returns a figure with a number of axes."""
  rows = -(-number // columns)
  figure, axes = plt.subplots(
    rows,
    columns,
    figsize=(1 + size[0] * columns, size[1] * rows + 0.4),
    squeeze=False,
    **options,
  )
  for axis in axes.flat[number:]:
    axis.set_visible(False)
  return figure, axes.flat[:number]


def _log_y(axis) -> None:
  """Makes y logarithmic with plain numbers."""
  axis.set_yscale('log')
  axis.yaxis.set_major_formatter('{x:g}')
  axis.yaxis.set_minor_formatter('')
