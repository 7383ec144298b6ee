"""What a table is: rows, columns, and which networks fill which cell.

A cell is filled by the networks whose facts include those of the table, of the
row and of the column. Facts are what a config says, in one flat dict (`facts`),
and of a network pruned after training the share that was asked for.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import re
from typing import Any
from typing import NamedTuple

Facts = dict[str, Any]


class Row(NamedTuple):
  """A row: its labels, one for each heading, and the facts of its networks."""

  labels: tuple[str, ...]
  where: Facts
  variant: str = ''  # what its commands have of their own
  is_ours: bool = True  # False: it holds published figures only


class Column(NamedTuple):
  """A column: a figure of the networks that have some facts."""

  label: str
  where: Facts
  figure: str


class Table(NamedTuple):
  """A table, before any network was trained."""

  name: str
  title: str
  headings: tuple[str, ...]  # of the labels of rows
  where: Facts
  rows: tuple[Row, ...]
  columns: tuple[Column, ...]
  # What trains the networks of a cell. In braces: facts, the row's {variant},
  # {twice} the density, at most 1, and a {name} for the folder.
  command: str
  # Facts of the cell that each cell is tested against, in pairs of equal seeds.
  against: tuple[Facts, ...] = ()
  # Keys of configs, or beginnings of them, in which its networks may differ.
  varies: tuple[str, ...] = ()
  across: tuple[str, ...] = ()  # the same, of the networks of a row
  lines: str = 'rows'  # of plots: 'rows' or 'columns'
  panel: int | None = None  # which label of a row chooses the panel of a plot
  extra: tuple[str, ...] = ()  # further columns, `render.EXTRA`
  sweeps: tuple[str, ...] = ()  # the commands that fill the whole table
  has_plots: bool = True


class Cell(NamedTuple):
  """A place in a table."""

  row: Row
  column: Column
  where: Facts  # all of them
  command: str  # '' where nothing of ours fills it


def cells(table: Table) -> Iterator[Cell]:
  """Yields the cells of a table, row by row."""
  for row in table.rows:
    for column in table.columns:
      where = {**table.where, **row.where, **column.where}
      command = ''
      if row.is_ours and is_possible(where):
        command = table.command.format_map(_words(row, column, where))
      yield Cell(row, column, where, command)


def is_possible(where: Mapping[str, Any]) -> bool:
  """Returns whether there is such a network: dense ones have density 1."""
  if 'density' not in where or 'method' not in where:
    return True
  return (where['density'] == 1.0) == (where['method'] == 'dense')


def holds(cell: Cell, where: Mapping[str, Any]) -> bool:
  """Returns whether a cell can be filled, and is one of `where`."""
  can_be = bool(cell.command) or not cell.row.is_ours
  return can_be and has(cell.where, where)


def has(facts: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
  """Returns whether `facts` include all of `where`.

  Example:
    >>> has({'method': 'rigl', 'density': 0.1}, {'density': 0.1})
    True
  """
  return all(facts.get(name) == value for name, value in where.items())


def facts(config: Mapping[str, Any]) -> Facts:
  """Returns what a config says of all its networks, in one flat dict.

  Values that a config does not have are absent. `density` is that of what the
  network sees, `examples` the number of steps times the batch.
  """
  method = config.get('method', {})
  model, train = config.get('model', {}), config.get('train', {})
  tasks = config.get('tasks', {})
  found = {
    'experiment': config.get('experiment'),
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
  if 'backward_density' in method:
    ratio = method['backward_density'] / method['forward_density']
    found['backward_ratio'] = round(ratio, 6)
  if 'num_steps' in train and 'batch_size' in train:
    found['examples'] = train['num_steps'] * train['batch_size']
  return {name: value for name, value in found.items() if value is not None}


def _words(row: Row, column: Column, where: Facts) -> dict[str, Any]:
  """Returns what may stand in braces in a command."""
  words = {
    name: f'{value:g}' if isinstance(value, float) else value
    for name, value in where.items()
  }
  if 'density' in where:
    words['twice'] = f'{min(1.0, 2 * where["density"]):g}'
  name = re.sub(
    r'[^a-z0-9.]+', '_', ' '.join([*row.labels, column.label]).lower()
  )
  return {**words, 'variant': row.variant, 'name': name.strip('_')}
