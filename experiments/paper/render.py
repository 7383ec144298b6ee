"""Results as Markdown, and the page of all tables."""

from collections.abc import Sequence
import pathlib

import numpy as np
import pandas as pd

from experiments import flops
from experiments.paper import fill
from experiments.paper import table as table_lib
from experiments.paper import tables as tables_lib

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
# Published values, each with its source: released code, its documentation or
# another project. `differs`: from this table's training, empty if alike.
PUBLISHED = pathlib.Path(__file__).with_name('published.csv')
LABELS = {
  'active': 'density [%]',
  'accuracy': 'test accuracy [%]',
  'validation_bits_per_character': 'validation, bits per character',
  'bits_per_character': 'bits per character',
  'validation_perplexity': 'validation perplexity',
  'perplexity': 'perplexity',
  'loss': 'test loss',
  'average_accuracy': 'average accuracy [%]',
  'learning_accuracy': 'when learned [%]',
  'forgetting': 'forgetting [%]',
  'forward_transfer': 'forward transfer [%]',
  'owned': 'weights owned [%]',
  'reused': 'reused by the last [%]',
}
PLOTS = {
  'density': 'Mean and deviation over seeds against the weights remaining.',
  'flops': 'Against the FLOPs of training; in grey the Pareto front.',
  'tasks': 'Accuracy on the tasks so far, and the use of the weights.',
  'training': 'Training loss, means over seeds.',
  'masks': 'Share of the forward set that left it since the previous row.',
  'histograms': 'Weights after training.',
  'overlap': 'Overlap of the masks before and after training.',
}
# Heading and format.
COSTS = {
  'density': ('density', '{:.4f}'),
  'inference_flops': ('inference FLOPs', '{:.3g}'),
  'inference_share': ('inference / dense', '{:.3f}'),
  'train_flops': ('training FLOPs', '{:.3g}'),
  'train_share': ('training / dense', '{:.3f}'),
  'num_bytes': ('bytes', '{:,.0f}'),
  'minutes': ('minutes', '{:.0f}'),
  'num': ('seeds', '{:d}'),
}
_INTRODUCTION = """\
# Results

Made by `python -m experiments.paper --stored=docs/results --out=docs/results`
from the CSV files beside it, which hold the result of each seed; do not edit.

Each cell is the mean ± the sample deviation over seeds, without a deviation if
there is one seed; accuracies and shares are in percent. "Diverged": the loss of
a seed was not finite. Intervals are Student's 95% intervals of the mean. Paired
tests are two-sided t-tests of the differences in equal seeds; p is corrected by
Holm's method over all tests of a table. FLOPs of inference are those of one
example, FLOPs of training those of all steps (`sparsity/flops.py`).
"""


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


def page(directory: pathlib.Path) -> str:
  """Returns the page of all tables, in Markdown, to lie beside a directory."""
  filled, empty = [_INTRODUCTION], []
  for table in tables_lib.TABLES.values():
    path = directory / f'{table.name}.csv'
    if path.exists():
      filled.append(_section(table, fill.read(table, path), directory))
    else:
      code = _code(table.sweeps)
      empty.append(f'### {table.title}\n\n{code}\n{_published(table)}')
  if empty:
    filled.append('## Tables without runs, and the commands that fill them\n')
  return '\n'.join(filled + empty).rstrip() + '\n'


def _section(
  table: table_lib.Table, results: pd.DataFrame, directory: pathlib.Path
) -> str:
  """Returns the section of a table with results on the page."""
  cells = fill.summarize(table, results)
  seeds = ', '.join(map(str, sorted(results.seed.unique())))
  num_labels = len(table.headings)
  parts = [
    f'## {table.title}\n\n{_code(table.sweeps)}\n'
    f'Table `{table.name}`, seeds {seeds}.\n',
    to_markdown(wide(table, cells), num_labels) + '\n',
  ]
  keys = [*table.headings, 'column', 'seed']
  diverged = results[results.status == 'diverged'].drop_duplicates(keys)
  for row in diverged.to_dict('records'):
    labels = ' '.join(row[heading] for heading in table.headings)
    place = f'{labels}, {row["column"]}, seed {row["seed"]}'
    parts.append(f'- Diverged: {place}: {row["message"]}\n')
  remark = directory / f'{table.name}.md'
  if remark.exists():
    parts.append(remark.read_text())
  for kind, caption in PLOTS.items():
    plot = directory / f'{table.name}_{kind}.png'
    if plot.exists():
      parts.append(f'![{caption}]({directory.name}/{plot.name})\n')
  tested = tests(table, cells, results)
  parts.append(_published(table))
  for title, content in (
    ('Each cell', to_markdown(details(table, cells), num_labels + 1)),
    ('Paired tests', to_markdown(tested, 2) if len(tested) else ''),
  ):
    if content:
      folded = f'<summary>{title}</summary>\n\n{content}\n\n'
      parts.append(f'<details>{folded}</details>\n')
  return '\n'.join(filter(None, parts))


def _published(table: table_lib.Table) -> str:
  """Returns the published values of a table, those trained otherwise apart."""
  values, parts = pd.read_csv(PUBLISHED, keep_default_na=False), []
  values = values[values.table == table.name]
  metric = table.columns[0].metric
  values = values.assign(text=[number(metric, x, 1) for x in values.value])
  rows = [' | '.join(row.labels) for row in table.rows]
  is_alike = values.labels.isin(rows) & (values.differs == '')
  columns = [column.label for column in table.columns]
  keys = ['labels', 'source', 'differs']
  for title, own in (
    ('Published, trained alike', values[is_alike]),
    ('Published, but trained otherwise', values[~is_alike]),
  ):
    if own.empty:
      continue
    order = own[keys].drop_duplicates().itertuples(index=False, name=None)
    found = own.pivot(index=keys, columns='column', values='text').loc[[*order]]
    found = found.reset_index().fillna('')
    frame = found.labels.str.split(' | ', regex=False, expand=True)
    frame = frame.set_axis(table.headings, axis=1)
    frame[columns] = found.reindex(columns=columns, fill_value='')
    frame[['source', 'difference']] = found[keys[1:]]
    is_used = frame.ne('').any() | frame.columns.isin(table.headings)
    text = to_markdown(frame.loc[:, is_used], len(table.headings))
    parts.append(f'{title}:\n\n{text}\n')
  return '\n'.join(parts)


def _code(lines: Sequence[str]) -> str:
  return '\n'.join(['```', *lines, '```', '']) if lines else ''
