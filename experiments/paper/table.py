"""A table: rows, columns, and the networks that belong in each cell.

A network belongs in a cell if its facts (`facts`: flat values of its
config) include those of the table, the row and the column. The fact `share` is
the pruning level; None stands for the network as trained.
"""

import collections
from collections.abc import Mapping
import itertools
import shlex
from typing import Any
from typing import NamedTuple

import pandas as pd

Facts = dict[str, Any]
DATA = '--config.data.data_dir=DATA'  # an option of `launch`


class Row(NamedTuple):
  """A row: one label for each heading, and the facts of its networks."""

  labels: tuple[str, ...]
  where: Facts


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
  sweeps: tuple[str, ...]  # commands that fill the whole table
  # Facts of the reference cell of the paired tests.
  against: tuple[Facts, ...] = ()
  # Prefixes of config keys in which its networks may differ.
  varies: tuple[str, ...] = ()
  across: tuple[str, ...] = ()  # and those within one row
  lines: str = 'rows'  # one plot line per 'rows' or 'columns'
  panel: int | None = None  # index of the row label that is the panel
  extra: tuple[str, ...] = ()  # further columns, `render.COSTS`
  plots: str = 'density'  # their kind, `plots.KINDS`; '' for none


def launch(config: str, out: str, *options: str) -> str:
  """Returns a command of launch.py."""
  words = [
    f'--config=configs/{config}',
    *options,
    f'--workdir=runs/paper/{out}',
  ]
  return shlex.join(['python', 'launch.py', *words])


def cells(table: Table) -> pd.DataFrame:
  """Returns a row for each cell of a table, row by row.

  Columns: the headings, column, metric, where, and panel and line of its plots.
  """
  found = []
  for row, column in itertools.product(table.rows, table.columns):
    where = {**table.where, **row.where, **column.where}
    found.append(
      {
        **dict(zip(table.headings, row.labels, strict=True)),
        'column': column.label,
        'metric': column.metric,
        'where': where,
        **_place(table, row, column),
      }
    )
  return pd.DataFrame(found)


_TEXTS = (
  'experiment', 'data', 'model', 'hidden', 'compute_dtype', 'method',
  'distribution', 'scope', 'storage', 'exploration', 'strategy', 'pattern',
)  # fmt: skip
# Keys of methods and strategies that are facts as they are.
_KEYS = (
  'backward_density', 'distribution', 'scope', 'storage', 'exploration',
  'refresh_every', 'stop_refresh_at', 'penalty', 'gamma',
)  # fmt: skip


def facts(config: Mapping[str, Any]) -> Facts:
  """Returns the facts of a config: flat values by which tables choose.

  `density` is the forward density, `examples` the number of steps times the
  batch size, `powerprop` 1 with an alpha other than 1, `ham` 1 with HAM, and
  `hidden` as in '300-100', `pattern` as in 'block 4 4'. Facts that a config
  does not have are absent.

  Raises:
    TypeError: If a fact has a type of no config; other errors of a mapping too.
  """
  sections = collections.defaultdict(dict, config)
  method, model, train = (sections[k] for k in ('method', 'model', 'train'))
  tasks, strategy = sections['tasks'], sections['strategy']
  alpha = float(config['powerprop']['alpha'])
  found = {
    'experiment': config['experiment'],
    'alpha': alpha,
    'powerprop': int(alpha != 1),
    'seed': int(config['seed']),
    'data': (sections['data'] or tasks).get('name'),
    'num_tasks': tasks.get('num_tasks'),
    'model': model.get('name'),
    'd_model': model.get('d_model'),
    'compute_dtype': model.get('compute_dtype'),
    'method': method.get('name'),
    'density': method.get('density', method.get('forward_density')),
    'strategy': strategy.get('name'),
    'ham': int(any(sections['optimizer'].get(x) for x in ('ham_a', 'ham_b'))),
    'num_steps': train.get('num_steps'),
  }
  found |= {key: method.get(key, strategy.get(key)) for key in _KEYS}
  if pattern := method.get('pattern'):
    sizes = [pattern[k] for k in sorted(pattern, reverse=True) if k != 'name']
    found['pattern'] = ' '.join(map(str, (pattern['name'], *sizes)))
  if 'hidden' in model:
    found['hidden'] = '-'.join(map(str, model['hidden']))
  if method.get('name') == 'dense':
    found['density'] = 1.0
  if 'backward_density' in method and 'forward_density' in method:
    ratio = method['backward_density'] / method['forward_density']
    found['backward_ratio'] = round(ratio, 6)
  if 'num_steps' in train and 'batch_size' in train:
    found['examples'] = train['num_steps'] * train['batch_size']
  found = {name: value for name, value in found.items() if value is not None}
  for name, value in found.items():
    is_text = isinstance(value, str)
    if is_text != (name in _TEXTS) or not (is_text or abs(value) < 2**53):
      raise TypeError(f'{name}: {value!r:.80}')
  return found


def _place(table: Table, row: Row, column: Column) -> dict[str, str]:
  """Returns the plot panel of a cell and its line in it."""
  labels, panel = list(row.labels), ''
  if table.lines == 'columns':
    labels = [column.label]
  elif len(table.columns) == 1:
    labels = labels[:1]
  elif table.panel is not None:
    panel = labels.pop(table.panel)
  return {'panel': panel, 'line': ' '.join(filter(None, labels))}
