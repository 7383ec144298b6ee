"""Results as texts and Markdown tables."""

import numpy as np
import pandas as pd

from experiments import flops
from experiments.paper import fill
from experiments.paper import table as table_lib

# (factor, digits) by metric; accuracies and shares are printed in percent.
FORMATS = {
  'bits_per_character': (1, 3),
  'first_loss': (1, 2),
  'kept': (1, 1),
  'last_loss': (1, 2),
  'loss': (1, 2),
  'perplexity': (1, 2),
  'validation_bits_per_character': (1, 3),
  'validation_loss': (1, 2),
  'validation_perplexity': (1, 2),
}
PERCENT = (100, 2)
DESCENDING = ('bits_per_character', 'loss', 'perplexity')  # lower is better
LABELS = {
  'active': 'density [%]',
  'accuracy': 'test accuracy [%]',
  'validation_bits_per_character': 'validation, bits per character',
  'bits_per_character': 'bits per character',
  'validation_perplexity': 'validation perplexity',
  'perplexity': 'perplexity',
  'loss': 'test loss',
  'average_accuracy': 'average accuracy [%]',
  'lowest_accuracy': 'lowest task [%]',
  'learning_accuracy': 'when learned [%]',
  'forgetting': 'forgetting [%]',
  'forward_transfer': 'forward transfer [%]',
  'owned': 'weights owned [%]',
  'reused': 'reused by the last [%]',
}
# Heading and format.
COSTS = {
  'density': ('density', '{:.4f}'),
  'inference_flops': ('inference FLOPs', '{:.3g}'),
  'inference_share': ('inference / dense', '{:.3f}'),
  'train_flops': ('training FLOPs', '{:.3g}'),
  'train_share': ('training / dense', '{:.3f}'),
  'num_bytes': ('bytes', '{:,.0f}'),
  'step_ms': ('ms / step', '{:.3g}'),
  'step_seconds': ('seconds', '{:.3g}'),
  'step_bytes': ('bytes in training', '{:,.0f}'),
  'minutes': ('minutes', '{:.0f}'),
  'num': ('seeds', '{:d}'),
}


def number(metric: str, value: float, factor: float | None = None) -> str:
  """Returns a value as it is printed; '' for NaN."""
  scale, digits = FORMATS.get(metric, PERCENT)
  scale = factor or scale
  return '' if np.isnan(value) else f'{scale * value:.{digits}f}'


def text(metric: str, mean: float, deviation: float = np.nan) -> str:
  """Returns a mean and its deviation as they are printed."""
  shown = number(metric, mean)
  more = number(metric, deviation)
  return f'{shown} ± {more}' if more else shown


def wide(table: table_lib.Table, cells: pd.DataFrame) -> pd.DataFrame:
  """Returns a table as it is printed: texts, '' in empty cells."""
  shown = [
    'diverged' if cell.status == 'diverged' else
    text(cell.metric, cell.mean, cell.deviation)
    for cell in cells.itertuples()
  ]  # fmt: skip
  headings, shape = list(table.headings), (len(table.rows), -1)
  frame = cells[headings].iloc[:: len(table.columns)].reset_index(drop=True)
  columns = [column.label for column in table.columns]
  frame[columns] = np.array(shown, object).reshape(shape)
  minutes = cells.seconds * cells.num / 60
  done = cells.assign(minutes=minutes)[cells.status == 'done']
  rows = done.groupby(done.index // len(table.columns))
  for name in table.extra:
    if name != 'minutes' and name not in done:
      continue
    heading, form = COSTS[name]
    values = rows[name].sum() if name == 'minutes' else rows[name].first()
    frame[heading] = values.dropna().map(form.format)
  return frame.astype(object).fillna('')


def to_markdown(frame: pd.DataFrame, num_words: int) -> str:
  """Returns texts as a Markdown table, in which the first columns are words."""
  align = ['left'] * num_words + ['right'] * (frame.shape[1] - num_words)
  return frame.to_markdown(index=False, colalign=align, disable_numparse=True)


def details(table: table_lib.Table, cells: pd.DataFrame) -> pd.DataFrame:
  """Returns the interval and costs of each cell with networks, as texts."""
  found = cells[cells.status.isin(['done', 'diverged'])]
  frame = found[[*table.headings, 'column']].rename(columns={'column': ' '})
  rows = list(found.itertuples())
  frame['result'] = [text(c.metric, c.mean, c.deviation) for c in rows]
  frame['95% interval'] = [
    f'{number(c.metric, c.low)} to {number(c.metric, c.high)}'
    if c.num > 1 and c.status == 'done' else c.status.replace('done', '')
    for c in rows
  ]  # fmt: skip
  for name in ('num', *flops.COSTS):
    heading, form = COSTS[name]
    frame[heading] = found[name].dropna().map(form.format)
  frame = frame.astype(object).fillna('')
  return frame.loc[:, (frame != '').any()]


def tests(
  table: table_lib.Table, cells: pd.DataFrame, results: pd.DataFrame
) -> pd.DataFrame:
  """Returns the paired tests of a table, as texts."""
  found = fill.paired_tests(table, cells, results)
  names = cells[[*table.headings]].agg(' '.join, axis=1) + ', ' + cells.column
  metrics, p = cells.metric[found.cell], ['{:.4f}'.format, '{:.3f}'.format]
  columns = {
    'cell': names[found.cell],
    'against': names[found.reference],
    'difference': map(number, metrics, found.difference),
    'pairs': found.num.map(str),
    'p': found.p.map(p[0], na_action='ignore'),
    'p (Holm)': found.corrected.map(p[1], na_action='ignore'),
  }
  columns = {name: list(values) for name, values in columns.items()}
  return pd.DataFrame(columns, dtype=object).fillna('')
