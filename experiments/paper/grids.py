"""The tables of a page: texts, and the values by which they sort."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import pandas as pd

from experiments.paper import costs
from experiments.paper import render
from experiments.paper import runs as runs_lib
from experiments.paper import sweep as sweep_lib
from experiments.paper import table as table_lib

METRICS = (
  'accuracy', 'bits_per_character', 'perplexity', 'average_accuracy',
  'forgetting',
)  # fmt: skip
_FACTS = (
  'data', 'model', 'method', 'strategy', 'density', 'backward_density',
  'distribution', 'num_tasks', 'num_steps',
)  # fmt: skip
MAX_KEYS = 6  # columns of differing config values
_STATUSES = (
  'unreadable', 'failed', 'diverged', 'interrupted', 'running', 'waiting',
  'done',
)  # fmt: skip

Cell = dict[str, Any]  # `text`, `value` (sorts; '' is last), and its form


def runs_table(sweep, groups, frame: pd.DataFrame) -> Cell:
  """Returns the table of all runs, a row for the seeds of one network."""
  columns = _varying(sweep, groups)
  known = [m for m in METRICS if m in frame and frame[m].notna().any()]
  rows = []
  for i, (name, own) in enumerate(groups.items()):
    config = next((seen.config for seen in own if seen.config), None)
    trained = frame[(frame.group == name)] if len(frame) else frame
    if 'share' in trained:
      trained = trained[trained.share.isna() & (trained.status == 'done')]
    cost = _costs(own)
    seconds = [s.run.summary.get('wall_time_s') for s in own if s.run]
    rows.append(
      [
        {**word(name), 'link': f'run-{i}'},
        status(own),
        *(word(values[i]) for values in columns.values()),
        number(config and config['powerprop']['alpha'], form='g'),
        *(_metric(trained, metric) for metric in known),
        number(len(trained), form='d'),
        number(cost.get('train_share'), form='.3f'),
        number(cost.get('inference_share'), form='.3f'),
        number(cost.get('num_bytes'), form=',.0f'),
        number(sum(filter(None, seconds)) or None, form='.0f'),
        {**word(''), 'points': _spark(own)},
      ]
    )
  words = ['run', 'status', *(k.removeprefix('method.') for k in columns)]
  numbers = [render.LABELS.get(m, m.replace('_', ' ')) for m in known]
  last = ['training / dense', 'inference / dense', 'bytes', 'seconds', 'loss']
  texts = [*words, 'alpha', *numbers, 'seeds', *last]
  return {'headings': headings(texts, len(words)), 'rows': rows}


def _varying(sweep, groups) -> dict[str, list[str]]:
  """Returns the differing facts and config values of each group, by key."""
  rows = []
  for own in groups.values():
    config = next((seen.config for seen in own if seen.config), None)
    flat = runs_lib.flatten([config]).iloc[0].to_dict() if config else {}
    facts = table_lib.facts(config) if config else {}
    rows.append({**facts, **flat})
  chosen = dict.fromkeys(
    key
    for run in (sweep.plan or {'runs': ()})['runs']
    for key in run['overrides']
  )
  # The facts say how variants differ.
  if not chosen or 'config' in chosen:
    everywhere = [
      key for key in sorted(set().union(*rows))
      if '.' in key and not key.endswith('.name')
      and all(key in row for row in rows if row)
    ]  # fmt: skip
    chosen = dict.fromkeys([*_FACTS, *chosen, *everywhere])
  columns = {
    key: ['' if row.get(key) is None else str(row[key]) for row in rows]
    for key in chosen
    if key not in (*sweep_lib.NETWORK, 'data.data_dir')
  }
  worth = [key for key, values in columns.items() if len({*values}) > 1]
  return {key: columns[key] for key in worth[:MAX_KEYS]}


def _costs(own: Sequence[sweep_lib.Seen]) -> dict[str, float]:
  run = next((seen.run for seen in own if seen.run), None)
  try:
    return costs.of_network(run.config) if run else {}
  except ValueError:
    return {}  # a note of the table says so


def _spark(own: Sequence[sweep_lib.Seen]) -> str:
  """Returns the points of a polyline: the logarithm of the training loss."""
  rows = next((seen.rows for seen in own if seen.rows), ())
  losses = [
    row.get('loss', math.nan) for row in rows if row['split'] == 'train'
  ]
  y = np.log([max(loss, 1e-9) for loss in losses if math.isfinite(loss)])
  if len(y) < 2:
    return ''
  x, y = np.linspace(0, 100, len(y)), y - y.min()
  y = 19 - 18 * y / (y.max() or 1)
  return ' '.join(f'{a:.4g},{b:.4g}' for a, b in zip(x, y, strict=True))


def status(own: Sequence[sweep_lib.Seen]) -> Cell:
  """Returns the worst status of seeds, with progress or their number."""
  worst = min((seen.status for seen in own), key=_STATUSES.index)
  number = sum(seen.status == worst for seen in own)
  progress = [s.progress for s in own if s.status == worst and s.progress]
  text = worst + (f' {100 * np.mean(progress):.0f}%' if progress else '')
  if number < len(own):
    text += f', {number} of {len(own)}'
  return {**word(text), 'status': worst}


def _metric(trained: pd.DataFrame, metric: str) -> Cell:
  values = trained[metric].dropna()
  return number(values.mean(), render.text(metric, values.mean(), values.std()))


def number(
  value: float | None, text: str | None = None, form: str = ''
) -> Cell:
  """Returns a cell that sorts by its value, with a text or in a format."""
  is_known = value is not None and not math.isnan(value)
  if text is None:
    text = f'{value:{form}}' if is_known else ''
  return {'text': text, 'value': repr(float(value)) if is_known else ''}


def word(text: str) -> Cell:
  """Returns a cell that sorts by its text."""
  return {'text': text, 'value': text, 'is_word': True}


def headings(texts: Sequence[str], num_words: int) -> list[Cell]:
  """Returns the headings of a table; the first columns are words."""
  return [
    {'text': text.replace('_', ' '), 'is_word': i < num_words}
    for i, text in enumerate(texts)
  ]
