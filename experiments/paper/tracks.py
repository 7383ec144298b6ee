"""Plots of a table's networks: training, weights, and how masks change."""

from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import numpy as np

from experiments import plots
from experiments import results
from experiments.paper import collect
from experiments.paper import continual
from experiments.paper import fill

MAX_HISTOGRAMS = 24

# By panel, the lines of a plot by their label, each with its networks.
Panels = dict[str, dict[str, list[collect.Network]]]


def draw_tasks(
  filled: fill.Filled, chosen: Sequence[Sequence[collect.Network]]
) -> Any:
  """Draws accuracy and capacity against tasks; see `continual.draw`."""
  del filled
  networks = {
    (n.record.path, n.alpha, n.seed): n
    for own in chosen
    for n in own
    if 'strategy' in n.facts
  }
  return continual.draw(list(networks.values()))


def draw_training(
  filled: fill.Filled, chosen: Sequence[Sequence[collect.Network]]
) -> Any:
  """Draws the training loss against steps, means over seeds."""
  return _draw(panels_of(filled, chosen), 'loss', 'training loss [nats]', 1)


def draw_mask_change(
  filled: fill.Filled, chosen: Sequence[Sequence[collect.Network]]
) -> Any:
  """Draws which share of the weights seen leaves that set, against steps.

  Top-KAST's figure of how its masks settle: the share of the forward set that
  leaves it between two rows of metrics, means over seeds.
  """
  panels = {
    title: {
      label: own
      for label, own in lines.items()
      if any(value for n in own for _, value in _track(n, 'mask_change'))
    }
    for title, lines in panels_of(filled, chosen).items()
  }
  panels = {title: lines for title, lines in panels.items() if lines}
  return _draw(
    panels, 'mask_change', 'left the forward set [%]', 100, lowest=0.01
  )


def draw_histograms(
  filled: fill.Filled, chosen: Sequence[Sequence[collect.Network]]
) -> Any:
  """Draws how weights are distributed after training, a panel a cell.

  With more cells than can be seen, those of the fullest column.
  """
  by_panel = panels_of(filled, chosen)
  if sum(map(len, by_panel.values())) > MAX_HISTOGRAMS:
    fullest = max(by_panel, key=lambda title: len(by_panel[title]))
    by_panel = {fullest: by_panel[fullest]}
  cells = {
    ', '.join(filter(None, (label, title))): own
    for title, lines in by_panel.items()
    for label, own in lines.items()
    if any(_histograms(n) for n in own)
  }
  if not cells:
    return None
  columns = min(5, len(cells))
  rows = -(-len(cells) // columns)
  figure, axes = plt.subplots(
    rows,
    columns,
    figsize=(2.4 * columns, 1.9 * rows + 0.4),
    sharex=True,
    squeeze=False,
  )
  for axis in axes.flat[len(cells) :]:
    axis.set_visible(False)
  for axis, (title, own) in zip(axes.flat, cells.items(), strict=False):
    found = [row for n in own for row in _histograms(n)]
    counts = np.mean([row['counts'] for row in found], 0)
    axis.stairs(counts, found[0]['edges'], color='C0')
    plots.set_log_y(axis)
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=7)
  figure.supxlabel('theta (the outermost bins hold all beyond)', fontsize=8)
  figure.supylabel('weights a bin', fontsize=8)
  return figure


def draw_overlap(
  filled: fill.Filled, chosen: Sequence[Sequence[collect.Network]]
) -> Any:
  """Draws how much of the masks after training was there before it."""
  if filled.table.lines != 'columns':
    return None
  rows = [
    row
    for own in panels_of(filled, chosen).get('', {}).values()
    for n in own
    for row in _rows(n)
  ]
  return plots.draw_overlap(rows)


def panels_of(
  filled: fill.Filled, chosen: Sequence[Sequence[collect.Network]]
) -> Panels:
  """Returns the trained networks by column and row.

  Where they are of one row only, as in a curve of pruning, its columns are the
  lines of one panel.
  """
  cells = [
    (result.column, ' '.join(filter(None, result.labels)), own)
    for result, own in zip(filled.results, chosen, strict=True)
    if own and own[0].facts.get('share') is None and own[0].record.rows
  ]
  is_one_row = len({row for _, row, _ in cells}) == 1
  panels: Panels = {}
  for column, row, own in cells:
    title, label = ('', column) if is_one_row else (column, row)
    panels.setdefault(title, {})[label] = list(own)
  return panels


def _draw(
  panels: Panels, metric: str, ylabel: str, scale: float, lowest: float = 0
) -> Any:
  every = [n for p in panels.values() for found in p.values() for n in found]
  if not any(_track(n, metric) for n in every):
    return None
  columns = min(3, len(panels))
  rows = -(-len(panels) // columns)
  figure, axes = plt.subplots(
    rows,
    columns,
    figsize=(1 + 3.9 * columns, 3.4 * rows + 0.4),
    sharey=True,
    squeeze=False,
  )
  for axis in axes.flat[len(panels) :]:
    axis.set_visible(False)
  labels = list(dict.fromkeys(l for lines in panels.values() for l in lines))
  for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
    for label, own in lines.items():
      steps, values = _mean_track(own, metric)
      i = labels.index(label)
      values = np.maximum(scale * values, lowest)
      axis.plot(steps, values, label=label, color=f'C{i % 10}', ls=_style(i))
    axis.set(title=title, xlabel='step')
    plots.set_log_y(axis)
  for row in axes:
    row[0].set_ylabel(ylabel)
  lines = {
    line.get_label(): line for axis in axes.flat for line in axis.get_lines()
  }
  figure.legend(
    [lines[label] for label in labels],
    labels,
    loc='outside right upper',
    fontsize=7,
  )
  return figure


def _style(i: int) -> str:
  return ('-', '--', ':', '-.')[i // 10 % 4]


def _mean_track(own: Sequence[collect.Network], metric: str):
  """Returns steps, and the mean over the networks that got there."""
  at: dict[int, list[float]] = {}
  for network in own:
    for step, value in _track(network, metric):
      at.setdefault(step, []).append(value)
  steps = sorted(at)
  return np.array(steps), np.array([np.mean(at[step]) for step in steps])


def _track(network: collect.Network, metric: str) -> list[tuple[int, float]]:
  return [
    (row['step'], row[metric])
    for row in results.select(_rows(network), split='train')
    if metric in row
  ]


def _histograms(network: collect.Network) -> list[results.Row]:
  return results.select(_rows(network), split='histogram', when='after')


def _rows(network: collect.Network) -> list[results.Row]:
  return results.select(
    network.record.rows, alpha=network.alpha, seed=network.seed
  )
