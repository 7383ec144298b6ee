"""Checks of claims against the cells of a table.

A check takes the cells (`fill.summarize`) and returns a finding: a verdict and
the figures behind it. Cells are chosen by their labels as printed; of several,
the best mean counts. LookupError: a cell has no result yet.
"""

from collections.abc import Callable
from collections.abc import Sequence
import itertools
from typing import Any

import numpy as np
import pandas as pd

from experiments.paper import fronts
from experiments.paper import render

YES, PARTLY, NO = 'reproduced', 'in part', 'not reproduced'
OPEN = 'undecided'  # within the standard error, or of one seed

Finding = tuple[str, str]
Check = Callable[[pd.DataFrame], Finding]
Labels = dict[str, Any]  # heading (or 'column') to a label or several

CHANCE = 0.2  # accuracy that counts as chance, of ten classes
STEADY = 0.01  # deviation that counts as small


def choose(cells: pd.DataFrame, labels: Labels) -> pd.DataFrame:
  """Returns the cells with some labels."""
  for heading, wanted in labels.items():
    wanted = [wanted] if isinstance(wanted, str) else wanted
    cells = cells[cells[heading].isin(wanted)]
  return cells


def best(cells: pd.DataFrame, labels: Labels) -> pd.Series:
  """Returns the best of the cells with some labels."""
  found = choose(cells, labels)
  found = found[found.status == 'done']
  if found.empty:
    raise LookupError(labels)
  return found.loc[(_sign(found.iloc[0]) * found['mean']).idxmax()]


def ahead(of: Labels, than: Labels, by: float = 0.0, **where: Any) -> Check:
  """Returns the check that one cell is ahead of another by at least `by`.

  With `by=0` a difference within its standard error decides nothing, nor does
  one seed of either.
  """
  where = where.pop('where', {}) | where

  def check(cells):
    a, b = (best(cells, {**where, **labels}) for labels in (of, than))
    gain = _gain(a, b)
    figures = _against(a, b, (*where, *of, *than))
    error = np.sqrt(sum(x.deviation**2 / x.num for x in (a, b)))
    if not by and not abs(gain) > error:  # NaN with one seed
      return OPEN, figures
    return YES if round(gain - by, 6) >= 0 else NO, figures

  return check


def no_worse(of: Labels, than: Labels, **where: Any) -> Check:
  """Returns the check that a cell trails by no more than a deviation."""
  where = where.pop('where', {}) | where

  def check(cells):
    a, b = (best(cells, {**where, **labels}) for labels in (of, than))
    holds = _gain(a, b) >= -_slack(a, b)
    return YES if holds else NO, _against(a, b, (*where, *of, *than))

  return check


def in_order(heading: str, labels: Sequence[str], where: Labels) -> Check:
  """Returns the check that rows are in order, best first.

  Neighbors may be exchanged within the larger of their deviations, 1 point at
  most.
  """

  def check(cells):
    found = [best(cells, {**where, heading: label}) for label in labels]
    wrong = [
      b[heading]
      for a, b in itertools.pairwise(found)
      if _gain(a, b) < -_slack(a, b)
    ]
    verdict = YES if not wrong else PARTLY if len(wrong) == 1 else NO
    return verdict, ', '.join(f'{a[heading]} {_text(a)}' for a in found)

  return check


def steady(columns: Sequence[str]) -> Check:
  """Returns the check that no cell fails, and deviations are small there."""

  def check(cells):
    found = cells[cells.status != 'empty']
    if found.empty:
      raise LookupError(columns)
    at_chance = (found.status == 'diverged') | (found['mean'] < CHANCE)
    is_wide = found.column.isin(columns) & (found.deviation >= STEADY)
    worst = found[at_chance | is_wide]
    names = [f'{_name(cell)} {_text(cell)}' for _, cell in worst.iterrows()]
    figures = f'{len(found) - len(worst)} of {len(found)} cells'
    if names:
      figures += f'; not {"; ".join(names[:4])}'
      figures += f' and {len(names) - 4} more' if len(names) > 4 else ''
    share = len(worst) / len(found)
    return YES if not share else PARTLY if share <= 0.1 else NO, figures

  return check


def at_least(labels: Labels, value: float) -> Check:
  """Returns the check that the best of some cells reaches a value."""

  def check(cells):
    cell = best(cells, labels)
    reached = _sign(cell) * (cell['mean'] - value) >= 0
    return YES if reached else NO, f'{_name(cell)} {_text(cell)}'

  return check


def none_below(labels: Labels, value: float) -> Check:
  """Returns the check that all of some cells are at a value or above."""

  def check(cells):
    found = choose(cells, labels)
    found = found[found.status.isin(['done', 'diverged'])]
    if found.empty:
      raise LookupError(labels)
    low = found.loc[found['mean'].fillna(-np.inf).idxmin()]
    holds = found['mean'].fillna(-np.inf).min() >= value
    return YES if holds else NO, f'lowest: {_name(low)} {_text(low)}'

  return check


def settles(labels: Labels, first: str, last: str) -> Check:
  """Returns the check that one column is less than half of another."""

  def check(cells):
    a, b = (best(cells, {**labels, 'column': x}) for x in (first, last))
    figures = f'{_text(a)}, then {_text(b)}'
    return YES if 2 * b['mean'] < a['mean'] else NO, figures

  return check


def owns_less(masks: str, share: float) -> Check:
  """Returns the check of weights owned at equal accuracy."""

  def check(cells):
    found = fronts.at_equal_accuracy(cells)
    return _at_most(found[found.masks == masks], share)

  return check


def costs_less(cost: str, heading: str, reference: str) -> Check:
  """Returns the check of a cost at equal accuracy, against a reference."""

  def check(cells):
    if cost not in cells:
      raise LookupError(cost)
    known = cells[(cells.status == 'done') & cells[cost].notna()]
    if known.empty:
      raise LookupError(cost)
    factor, _ = render.FORMATS.get(known.metric.iloc[0], render.PERCENT)
    worth = _sign(known.iloc[0]) * factor * known['mean']
    curves = known.assign(line=known[heading], mean=worth)
    tolerance = fronts.TOLERANCE * (factor / 100)
    return _at_most(fronts.cheapest(curves, cost, reference, tolerance), 1.0)

  return check


def _at_most(found: pd.DataFrame, share: float) -> Finding:
  """Returns the finding that shares of `fronts.cheapest` are at most one."""
  if found.empty:
    raise LookupError
  holds = found.share <= share
  texts = (
    f'{100 * one.share:.0f}% at {abs(one.accuracy):.2f} ({one.line})'
    for one in found.itertuples()
  )
  verdict = YES if holds.all() else PARTLY if holds.any() else NO
  return verdict, ', '.join(texts)


def each(*checks: Check) -> Check:
  """Returns the check that all hold; some: in part. Missing ones are left."""

  def check(cells):
    found = []
    for one in checks:
      try:
        found.append(one(cells))
      except LookupError:
        continue
    if not found:
      raise LookupError
    verdicts = {verdict for verdict, _ in found}
    verdict = verdicts.pop() if len(verdicts) == 1 else PARTLY
    return verdict, '; '.join(figures for _, figures in found)

  return check


def _sign(cell: pd.Series) -> int:
  return -1 if cell.metric in render.DESCENDING else 1


def _gain(a: pd.Series, b: pd.Series) -> float:
  """Returns how far one cell is ahead, rounded: 0.02 is not 0.0199999."""
  return round(_sign(a) * (a['mean'] - b['mean']), 6)


def _slack(a: pd.Series, b: pd.Series) -> float:
  return min(STEADY, np.nan_to_num([a.deviation, b.deviation]).max())


def _text(cell: pd.Series) -> str:
  if cell.status == 'diverged':
    return 'diverged'
  return render.text(cell.metric, cell['mean'], cell.deviation)


def _name(cell: pd.Series) -> str:
  """Returns the labels of a cell; its headings come first."""
  labels = cell.loc[:'column'].tolist()
  return ' '.join(filter(None, labels))


def _against(a: pd.Series, b: pd.Series, headings: Sequence[str]) -> str:
  names = [h for h in dict.fromkeys(headings) if a[h] != b[h]]
  shared = [a[h] for h in dict.fromkeys(headings) if a[h] == b[h]]
  place = ', '.join(x for x in shared if x != a.column)
  first, second = (
    ' '.join([*filter(None, cell[names]), _text(cell)]) for cell in (a, b)
  )
  return f'{place}: {first} against {second}'.removeprefix(': ')
