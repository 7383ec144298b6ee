"""Plots of a run of many tasks, from its metrics."""

from collections.abc import Sequence
import pathlib
from typing import Any

from matplotlib import pyplot as plt
import numpy as np

from experiments import plots
from experiments import results
from experiments.continual import measures

USES = ('owned', 'free', 'new', 'reused')


def draw_all(
  rows: Sequence[results.Row], directory: pathlib.Path
) -> list[pathlib.Path]:
  """Draws every plot that the rows have data for; returns the PNG files."""
  return plots.save_all(
    rows,
    directory,
    {
      'accuracy.png': draw_accuracy,
      'capacity.png': draw_capacity,
      'matrix.png': draw_matrix,
    },
  )


def draw_accuracy(rows: Sequence[results.Row]) -> Any:
  """Draws accuracies against the tasks so far, a line an alpha.

  On the left the mean over all tasks learned, on the right that of each task
  when it was learned.
  """
  tests = results.select(rows, split='test')
  if not tests:
    return None
  figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
  size = max(results.distinct(tests, 'tested'))
  for i, alpha in enumerate(results.distinct(tests, 'alpha')):
    matrices = _matrices(results.select(tests, alpha=alpha), size)
    so_far = np.array(
      [[np.mean(m[t, : t + 1]) for t in range(size)] for m in matrices]
    )
    new = np.diagonal(matrices, axis1=1, axis2=2)
    for axis, values in zip(axes, (so_far, new), strict=True):
      [tasks] = np.nonzero(np.isfinite(values).all(0))  # where all are tested
      cells = [results.cell(values[:, t].tolist()) for t in tasks]
      plots.draw_band(axis, tasks + 1, cells, f'alpha = {alpha:g}', i, 100)
  axes[0].set(xlabel='tasks so far', ylabel='test accuracy [%]')
  axes[0].set_title('Mean over the tasks so far', fontsize=10)
  axes[1].set(xlabel='task')
  for axis in axes:
    axis.xaxis.get_major_locator().set_params(integer=True)
  axes[1].set_title('Of each task when it was learned', fontsize=10)
  axes[0].legend()
  return figure


def draw_capacity(rows: Sequence[results.Row]) -> Any:
  """Draws the shares of weights that are owned, free, new and reused."""
  usage = results.select(rows, split='usage', layer='all')
  alphas = results.distinct(usage, 'alpha')
  if not alphas:
    return None
  figure, axes = plt.subplots(
    1, len(alphas), figsize=(4 * len(alphas), 4), sharey=True, squeeze=False
  )
  for axis, alpha in zip(axes[0], alphas, strict=True):
    own = results.select(usage, alpha=alpha)
    tasks = results.distinct(own, 'task')
    for i, name in enumerate(USES):
      cells = [
        results.cell([row[name] for row in results.select(own, task=task)])
        for task in tasks
      ]
      plots.draw_band(axis, tasks, cells, name, i, 100)
    axis.set_title(f'alpha = {alpha:g}', fontsize=10)
    axis.set_xlabel('task')
    axis.xaxis.get_major_locator().set_params(integer=True)
  axes[0][0].set_ylabel('share of weights [%]')
  axes[0][0].legend()
  return figure


def draw_matrix(rows: Sequence[results.Row]) -> Any:
  """Draws the accuracy on each task after each task, means over seeds."""
  tests = results.select(rows, split='test')
  alphas = results.distinct(tests, 'alpha')
  if not alphas:
    return None
  size = max(results.distinct(tests, 'tested'))
  figure, axes = plt.subplots(
    1, len(alphas), figsize=(4 * len(alphas), 3.6), squeeze=False
  )
  for axis, alpha in zip(axes[0], alphas, strict=True):
    mean = 100 * np.mean(_matrices(results.select(tests, alpha=alpha), size), 0)
    edges = (0.5, size + 0.5)
    image = axis.imshow(
      mean, vmin=0, vmax=100, extent=(*edges, *edges[::-1]), cmap='viridis'
    )
    axis.grid(False)
    axis.set(xlabel='task tested', ylabel='tasks trained')
    axis.set_title(f'alpha = {alpha:g}', fontsize=10)
  figure.colorbar(image, ax=axes, label='test accuracy [%]')
  return figure


def _matrices(tests: Sequence[results.Row], size: int) -> np.ndarray:
  """Returns the accuracy matrix of each seed."""
  return np.array(
    [
      measures.matrix_of(results.select(tests, seed=seed), size)
      for seed in results.distinct(tests, 'seed')
    ]
  )
