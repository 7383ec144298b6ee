"""The page of results: claims, tables, plots, tuning."""

from collections.abc import Sequence
import pathlib

import pandas as pd

from experiments.paper import against
from experiments.paper import fill
from experiments.paper import fronts
from experiments.paper import render
from experiments.paper import table as table_lib
from experiments.paper import tables as tables_lib

# Published values, each with its source: released code, its documentation or
# another project. `differs`: from this table's training, empty if alike.
PUBLISHED = pathlib.Path(__file__).with_name('published.csv')
PLOTS = {
  'density': 'Mean and deviation over seeds against the weights remaining.',
  'flops': 'Against the FLOPs of training; in grey the Pareto front.',
  'tasks': 'Accuracy on the tasks so far, and the use of the weights.',
  'training': 'Training loss, means over seeds.',
  'masks': 'Share of the forward set that left it since the previous row.',
  'histograms': 'Weights after training.',
  'overlap': 'Overlap of the masks before and after training.',
  'bytes': 'Against the bytes of the weights; in grey the Pareto front.',
  'choices': 'Mean and deviation of each choice; in grey the first row.',
  'owned': 'Accuracy against the weights that all tasks own together.',
  'cost': 'Against time and memory of training; in grey the Pareto front.',
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
_TUNING = """\
## Tuning

Every row of a table has its own learning rate and, for random masks, its own
initialization. Within a file each row had the same number of tries, with HAM
twice as many, for its strength, unless a remark says otherwise; the best
accuracy (or loss) in validation chose. Rates without a file here are first
guesses. All tries:
"""


def read(directory: pathlib.Path) -> dict[str, tuple]:
  """Returns the cells and the results of each table with a CSV file."""
  found = {}
  for name, table in tables_lib.TABLES.items():
    path = directory / f'{name}.csv'
    if path.exists():
      results = fill.read(table, path)
      cells = fronts.add_times(table, fill.summarize(table, results), directory)
      found[name] = cells, results
  return found


def page(directory: pathlib.Path) -> str:
  """Returns the page of all tables, in Markdown, to lie beside a directory."""
  stored, filled, empty = read(directory), [], []
  for name, table in tables_lib.TABLES.items():
    if name in stored:
      filled.append(_section(table, *stored[name], directory))
    else:
      code = _code(table.sweeps)
      empty.append(f'### {table.title}\n\n{code}\n{_published(table)}')
  cells = {name: found for name, (found, _) in stored.items()}
  parts = [_INTRODUCTION, against.to_markdown(cells, directory), *filled]
  if empty:
    parts.append('## Tables without runs, and the commands that fill them\n')
  parts += empty + _tuning(directory)
  return '\n'.join(parts).rstrip() + '\n'


def guide(text: str, directory: pathlib.Path) -> str:
  """Returns a page with the findings that its comments name, up to date."""
  cells = {name: found for name, (found, _) in read(directory).items()}
  return against.fill(text, cells, directory)


def _tuning(directory: pathlib.Path) -> list[str]:
  """Returns the section of the tries that found rates and other settings."""
  files = sorted((directory / against.TUNING).glob('*.csv'))
  parts = [_TUNING] if files else []
  for file in files:
    tries = pd.read_csv(file, dtype=str, keep_default_na=False)
    content = tries.to_markdown(index=False, disable_numparse=True)
    parts.append(_folded(f'{file.stem}: {len(tries)} runs', content))
  return parts


def _section(
  table: table_lib.Table, cells: pd.DataFrame, results: pd.DataFrame,
  directory: pathlib.Path,
) -> str:  # fmt: skip
  """Returns the section of a table with results on the page."""
  seeds = ', '.join(map(str, sorted(results.seed.unique())))
  num_labels = len(table.headings)
  parts = [
    f'## {table.title}\n\n{_code(table.sweeps)}\n'
    f'Table `{table.name}`, seeds {seeds}.\n',
    render.to_markdown(render.wide(table, cells), num_labels) + '\n',
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
  if table.plots == 'owned':
    parts.append(_at_equal_accuracy(cells))
  details = render.details(table, cells)
  tested = render.tests(table, cells, results)
  parts.append(_published(table))
  for title, content in (
    ('Each cell', render.to_markdown(details, num_labels + 1)),
    ('Paired tests', render.to_markdown(tested, 2) if len(tested) else ''),
  ):
    if content:
      parts.append(_folded(title, content))
  return '\n'.join(filter(None, parts))


def _at_equal_accuracy(cells: pd.DataFrame) -> str:
  """Returns the weights owned at equal accuracy, in Markdown."""
  found = fronts.at_equal_accuracy(cells)
  if found.empty:
    return ''
  names = {
    'masks': 'masks', 'accuracy': 'average accuracy [%]',
    'base': 'alpha 1 owns [%]', 'line': 'best other', 'cost': 'owns [%]',
    'share': 'share of alpha 1',
  }  # fmt: skip
  forms = dict.fromkeys(('base', 'cost'), '{:.1f}')
  forms |= dict.fromkeys(('accuracy', 'share'), '{:.2f}')
  texts = {name: found[name].map(form.format) for name, form in forms.items()}
  shown = found.assign(**texts)[[*names]].rename(columns=names)
  text = render.to_markdown(shown, 1)
  return (
    'Weights owned at the accuracies of alpha 1, interpolated between gammas:'
    f'\n\n{text}\n'
  )


def _published(table: table_lib.Table) -> str:
  """Returns the published values of a table, those trained otherwise apart."""
  values, parts = pd.read_csv(PUBLISHED, keep_default_na=False), []
  values = values[values.table == table.name]
  metric = table.columns[0].metric
  values = values.assign(
    text=[render.number(metric, x, 1) for x in values.value]
  )
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
    text = render.to_markdown(frame.loc[:, is_used], len(table.headings))
    parts.append(f'{title}:\n\n{text}\n')
  return '\n'.join(parts)


def _code(lines: Sequence[str]) -> str:
  return '\n'.join(['```', *lines, '```', '']) if lines else ''


def _folded(title: str, content: str) -> str:
  return f'<details><summary>{title}</summary>\n\n{content}\n\n</details>\n'
