"""Plots of a table's cells: what its networks reach at which cost.

They are drawn from what a CSV file of the table has, without the runs.
"""

from collections.abc import Sequence
import math
from typing import Any

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib import ticker

from experiments.paper import fill
from experiments.paper import render
from experiments.paper import spec

MARKERS = 'os^vDP*X'
_SHOWN = ('done', 'diverged')
# Of these less is better.
DESCENDING = ('bits_per_character', 'loss', 'perplexity')

# By panel, the lines of a plot by their label, each with its cells.
Panels = dict[str, dict[str, list[fill.Result]]]


def draw_density(filled: fill.Filled) -> Any:
  """Draws figures against density, dense on the left.

  Returns:
    A figure, or None if no line has two densities.
  """
  panels = _panels(filled, 'density')
  if not panels:
    return None
  figure, axes = _axes(filled, panels)
  for axis, (title, lines) in zip(axes, panels.items(), strict=True):
    for i, (label, own) in enumerate(lines.items()):
      if len(own) == 1 and own[0].density == 1:  # dense, beside others
        level = _scaled(own[0], own[0].mean)
        axis.axhline(level, color='0.45', ls=':', label=label)
      else:
        _draw_line(axis, own, [100 * r.density for r in own], label, i)
    _set_log_percent(axis, [100 * r.density for o in lines.values() for r in o])
    axis.set(xlabel='weights remaining [%]', title=title)
  axes[0].invert_xaxis()  # all share it
  axes[-1].legend(fontsize=7)
  return figure


def draw_flops(filled: fill.Filled) -> Any:
  """Draws figures against the FLOPs of training, and the Pareto front.

  The front has the cells that no other one beats at as few FLOPs.

  Returns:
    A figure, or None if all cells cost the same.
  """
  panels = _panels(filled, 'train_flops')
  costs = {
    r.train_flops for p in panels.values() for own in p.values() for r in own
  }
  if len(costs) < 2:
    return None
  figure, axes = _axes(filled, panels)
  for axis, (title, lines) in zip(axes, panels.items(), strict=True):
    every = [r for own in lines.values() for r in _done(own)]
    for i, (label, own) in enumerate(lines.items()):
      _draw_line(axis, own, [r.train_flops for r in own], label, i)
    front = pareto(every)
    axis.step(
      [r.train_flops for r in front],
      [_scaled(r, r.mean) for r in front],
      where='post',
      color='0.45',
      lw=4,
      alpha=0.35,
      zorder=0,
      label='Pareto front',
    )
    axis.set(xlabel='FLOPs of training', title=title, xscale='log')
    _set_log_flops(axis, costs)
  axes[-1].legend(fontsize=7)
  return figure


def pareto(found: Sequence[fill.Result]) -> list[fill.Result]:
  """Returns the cells that none beats at as few FLOPs of training, by these."""
  front: list[fill.Result] = []
  for result in sorted(found, key=lambda r: (r.train_flops, -_worth(r))):
    if not front or _worth(result) > _worth(front[-1]):
      front.append(result)
  return front


def _panels(filled: fill.Filled, cost: str) -> Panels:
  """Returns the lines of each panel, of cells whose cost is known."""
  table = filled.table
  panels: Panels = {}
  for cell, result in zip(spec.cells(table), filled.results, strict=True):
    if result.status not in _SHOWN or getattr(result, cost) is None:
      continue
    title, label = _title_and_label(table, cell)
    panels.setdefault(title, {}).setdefault(label, []).append(result)
  every = [_done(own) for p in panels.values() for own in p.values()]
  # Of one column, the rows of a method are its line.
  if len(table.columns) > 1 and not any(len(own) > 1 for own in every):
    return {}
  for lines in panels.values():
    for own in lines.values():
      own.sort(key=lambda result: getattr(result, cost))
  return panels


def _title_and_label(table: spec.Table, cell: spec.Cell) -> tuple[str, str]:
  if table.lines == 'columns':
    return '', cell.column.label
  labels = list(cell.row.labels)
  title = ''
  if len(table.columns) == 1:
    return title, labels[0]
  if table.panel is not None:
    title = f'{table.headings[table.panel]} {labels.pop(table.panel)}'
  return title, ' '.join(filter(None, labels))


def _axes(filled: fill.Filled, panels: Panels):
  figure, axes = plt.subplots(
    1,
    len(panels),
    figsize=(1 + 4.8 * len(panels), 4.2),
    sharex=True,
    sharey=True,
    squeeze=False,
  )
  name = filled.results[0].figure
  axes[0][0].set_ylabel(render.LABELS.get(name, name))
  return figure, axes[0]


def _draw_line(axis, own, x, label: str, i: int) -> None:
  axis.errorbar(
    x,
    [_scaled(r, r.mean) for r in own],  # none where one diverged: a gap
    [_scaled(r, r.deviation) for r in own],
    color=f'C{i % 10}',
    marker=MARKERS[i % len(MARKERS)],
    ms=4.5,
    lw=1.3,
    capsize=2,
    label=label,
  )


def _set_log_percent(axis, values: Sequence[float]) -> None:
  least = min(values)
  ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if t >= 0.8 * least]
  axis.set_xscale('log')
  axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
  axis.minorticks_off()


def _set_log_flops(axis, costs: set[float]) -> None:
  is_long = max(costs) > 100 * min(costs)
  locator = ticker.LogLocator(subs=(1,) if is_long else (1, 2, 5))
  axis.xaxis.set_major_locator(locator)
  axis.xaxis.set_major_formatter(ticker.FuncFormatter(_in_powers))
  axis.minorticks_off()


def _in_powers(value: float, _: int) -> str:
  factor, power = f'{value:.0e}'.split('e')
  shown = '' if factor == '1' else rf'{factor} \cdot '
  return f'${shown}10^{{{int(power)}}}$'


def _done(own: Sequence[fill.Result]) -> list[fill.Result]:
  return [result for result in own if result.status == 'done']


def _scaled(result: fill.Result, value: float | None) -> float:
  return math.nan if value is None else render.scale(result.figure) * value


def _worth(result: fill.Result) -> float:
  return -result.mean if result.figure in DESCENDING else result.mean
