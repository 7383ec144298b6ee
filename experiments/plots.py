"""Plots of a run, from its metrics."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import numpy as np

from experiments import results

STYLE = {
  'axes.grid': True,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'figure.constrained_layout.use': True,
  'grid.alpha': 0.3,
  'savefig.dpi': 150,
}


def draw_all(
  rows: Sequence[results.Row], directory: pathlib.Path
) -> list[pathlib.Path]:
  """Draws every plot that the rows have data for; returns the PNG files."""
  return save_all(
    rows,
    directory,
    {
      'pruning.png': draw_pruning,
      'overlap.png': draw_overlap,
      'histograms.png': draw_histograms,
      'training.png': draw_training,
    },
  )


def save_all(
  rows: Sequence[results.Row],
  directory: pathlib.Path,
  drawings: Mapping[str, Callable[[Sequence[results.Row]], Any]],
) -> list[pathlib.Path]:
  """Saves figures by file name; returns the files.

  Args:
    rows: the metrics of a run.
    directory: where the files go.
    drawings: from file names to functions of the rows that return a figure, or
      None where the rows have no data for it.
  """
  directory.mkdir(exist_ok=True)
  drawn = []
  with plt.rc_context(STYLE):
    for name, draw in drawings.items():
      figure = draw(rows)
      if figure is not None:
        figure.savefig(directory / name)
        plt.close(figure)
        drawn.append(directory / name)
  return drawn


def draw_pruning(rows: Sequence[results.Row]) -> Any:
  """Draws test accuracy against weights remaining, a line an alpha."""
  return _draw_curves(
    rows, 'accuracy', 'test accuracy [%]', 'One-shot pruning, no retraining'
  )


def draw_overlap(rows: Sequence[results.Row]) -> Any:
  """Draws how much of the mask was there before training."""
  return _draw_curves(
    rows,
    'overlap',
    'masks before and after training, overlap [%]',
    'Weights kept that were among the largest at the start',
    chance=True,
  )


def draw_histograms(rows: Sequence[results.Row]) -> Any:
  """Draws the distribution of theta before and after training, by alpha."""
  found = results.select(rows, split='histogram')
  alphas = results.distinct(found, 'alpha')
  if not alphas:
    return None
  figure, axes = plt.subplots(
    1, len(alphas), figsize=(3 * len(alphas), 3), sharey=True, squeeze=False
  )
  for axis, alpha in zip(axes[0], alphas, strict=True):
    for when, color in (('before', '0.6'), ('after', 'C0')):
      chosen = results.select(found, alpha=alpha, when=when)
      counts = np.mean([row['counts'] for row in chosen], 0)
      edges = chosen[0]['edges']
      axis.stairs(counts, edges, label=when, color=color, fill=when == 'before')
    axis.set_title(f'alpha = {alpha:g}')
    axis.set_xlabel('theta')
    axis.set_yscale('log')
  axes[0][0].set_ylabel('weights a bin')
  axes[0][-1].legend(title='training')
  figure.suptitle('Weights (the outermost bins hold all beyond)')
  return figure


def draw_training(rows: Sequence[results.Row]) -> Any:
  """Draws the training loss and the validation accuracy against steps."""
  alphas = results.distinct(results.select(rows, split='train'), 'alpha')
  if not alphas:
    return None
  figure, axes = plt.subplots(1, 2, figsize=(10, 4))
  for i, alpha in enumerate(alphas):
    for axis, split, metric, scale in (
      (axes[0], 'train', 'loss', 1),
      (axes[1], 'validation', 'accuracy', 100),
    ):
      chosen = results.select(rows, split=split, alpha=alpha)
      steps = results.distinct(chosen, 'step')
      cells = [
        results.cell([r[metric] for r in results.select(chosen, step=step)])
        for step in steps
      ]
      draw_band(axis, steps, cells, f'alpha = {alpha:g}', i, scale)
  axes[0].set(xlabel='step', ylabel='training loss [nats]', yscale='log')
  axes[1].set(xlabel='step', ylabel='validation accuracy [%]')
  axes[1].legend()
  return figure


def _draw_curves(rows, metric, ylabel, title, chance=False):
  pruned = results.select(rows, split='pruned')
  alphas = results.distinct(pruned, 'alpha')
  if not alphas:
    return None
  figure, axis = plt.subplots(figsize=(7, 4.5))
  for i, alpha in enumerate(alphas):
    densities, cells = results.curve(pruned, alpha, metric)
    percent = [100 * density for density in densities]
    draw_band(axis, percent, cells, f'alpha = {alpha:g}', i, 100)
  if chance:
    axis.plot(percent, percent, color='0.5', ls=':', label='by chance')
  ticks = [p for p in (1, 2, 5, 10, 20, 50, 100) if p >= 0.9 * min(percent)]
  axis.set_xscale('log')
  axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
  axis.minorticks_off()
  axis.invert_xaxis()
  axis.set(xlabel='weights remaining [%]', ylabel=ylabel)
  seeds = len(results.distinct(pruned, 'seed'))
  band = f'; mean and deviation of {seeds} seeds' if seeds > 1 else ''
  axis.set_title(title + band, fontsize=10)
  axis.legend()
  return figure


def set_log_y(axis: Any) -> None:
  """Makes y logarithmic with plain numbers, which are drawn fast."""
  axis.set_yscale('log')
  axis.yaxis.set_major_formatter('{x:g}')
  axis.yaxis.set_minor_formatter('')


def draw_band(
  axis: Any,
  x: Sequence[float],
  cells: Sequence[results.Cell],
  label: str,
  color: int,
  scale: float,
) -> None:
  """Draws a line of means in a band of deviations, times `scale`.

  `color` is a number of matplotlib's cycle.
  """
  mean = scale * np.array([c.mean for c in cells])
  deviation = scale * np.array([c.deviation for c in cells])
  axis.plot(x, mean, color=f'C{color}', label=label, marker='.', ms=4)
  axis.fill_between(
    x, mean - deviation, mean + deviation, color=f'C{color}', alpha=0.2, lw=0
  )
