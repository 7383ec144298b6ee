"""A table: rows, columns, and the networks that belong in each cell.

A network belongs in a cell if its facts (`facts`: flat values of its
config) include those of the table, the row and the column. The fact `share` is
the pruning level; None stands for the network as trained.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import re
from typing import Any
from typing import NamedTuple

Facts = dict[str, Any]


class Row(NamedTuple):
  """A row: one label for each heading, and the facts of its networks."""

  labels: tuple[str, ...]
  where: Facts
  variant: str = ''  # of the config, for `Table.command`


class Column(NamedTuple):
  """A column: a metric of the networks with some facts."""

  label: str
  where: Facts
  metric: str


class Table(NamedTuple):
  """A table before any network is trained."""

  name: str
  title: str
  headings: tuple[str, ...]  # of the row labels
  where: Facts
  rows: tuple[Row, ...]
  columns: tuple[Column, ...]
  # Trains the networks of a cell. In braces: facts, {variant} of the row,
  # {twice} the density (at most 1), {name} for the folder.
  command: str
  sweeps: tuple[str, ...]  # commands that fill the whole table
  # Facts of the reference cell of the paired tests.
  against: tuple[Facts, ...] = ()
  # Prefixes of config keys in which its networks may differ.
  varies: tuple[str, ...] = ()
  across: tuple[str, ...] = ()  # and those within one row
  lines: str = 'rows'  # one plot line per 'rows' or 'columns'
  panel: int | None = None  # index of the row label that selects the panel
  extra: tuple[str, ...] = ()  # further columns, `render.EXTRA`
  has_plots: bool = True


class Cell(NamedTuple):
  """A place in a table."""

  labels: tuple[str, ...]
  column: str
  metric: str
  where: Facts
  command: str  # '' where no network can belong


def cells(table: Table) -> Iterator[Cell]:
  """Yields the cells of a table, row by row."""
  for row in table.rows:
    for column in table.columns:
      where = {**table.where, **row.where, **column.where}
      command = ''
      if _is_possible(where):
        command = table.command.format_map(_words(row, column, where))
      yield Cell(row.labels, column.label, column.metric, where, command)


def line(table: Table, cell: Cell) -> tuple[str, str]:
  """Returns the plot panel of a cell and its line in it."""
  if table.lines == 'columns':
    return '', cell.column
  labels = list(cell.labels)
  if len(table.columns) == 1:
    return '', labels[0]
  panel = ''
  if table.panel is not None:
    panel = f'{table.headings[table.panel]} {labels.pop(table.panel)}'
  return panel, ' '.join(filter(None, labels))


def facts(config: Mapping[str, Any]) -> Facts:
  """Returns the facts of a config: flat values by which tables choose.

  `density` is the forward density, `examples` the number of steps times the
  batch size. Facts that a config does not have are absent.
  """
  method, model, train = (
    config.get(name, {}) for name in ('method', 'model', 'train')
  )
  tasks = config.get('tasks', {})
  found = {
    'experiment': config['experiment'],
    'alpha': float(config['powerprop']['alpha']),
    'seed': config['seed'],
    'data': config.get('data', tasks).get('name'),
    'num_tasks': tasks.get('num_tasks'),
    'model': model.get('name'),
    'd_model': model.get('d_model'),
    'compute_dtype': model.get('compute_dtype'),
    'method': method.get('name'),
    'density': method.get('density', method.get('forward_density')),
    'backward_density': method.get('backward_density'),
    'distribution': method.get('distribution'),
    'strategy': config.get('strategy', {}).get('name'),
    'num_steps': train.get('num_steps'),
  }
  if method.get('name') == 'dense':
    found['density'] = 1.0
  if 'backward_density' in method and 'forward_density' in method:
    ratio = method['backward_density'] / method['forward_density']
    found['backward_ratio'] = round(ratio, 6)
  if 'num_steps' in train and 'batch_size' in train:
    found['examples'] = train['num_steps'] * train['batch_size']
  return {name: value for name, value in found.items() if value is not None}


def _is_possible(where: Facts) -> bool:
  """Returns False for a dense network below density 1, and the reverse."""
  if 'density' not in where or 'method' not in where:
    return True
  return (where['density'] == 1.0) == (where['method'] == 'dense')


def _words(row: Row, column: Column, where: Facts) -> Facts:
  """Returns the values for the braces of a command."""
  words = {
    name: f'{value:g}' if isinstance(value, float) else value
    for name, value in where.items()
  }
  if 'density' in where:
    words['twice'] = f'{min(1.0, 2 * where["density"]):g}'
  text = ' '.join([*row.labels, column.label]).lower()
  name = re.sub(r'[^a-z0-9.]+', '_', text).strip('_')
  return {**words, 'variant': row.variant, 'name': name}
