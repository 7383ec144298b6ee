"""What a text quotes of results: tables, cells, and figures of benchmarks.

Tables are `DIR/NAME.csv`, as `experiments.paper` writes them; what benchmarks
measured is `DIR/speed/NAME.csv`, as their `--record` writes it. What is not
there is an error that says so, never an empty place.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import csv
import difflib
import functools
import os
import pathlib
from typing import Any

from experiments.paper import fill
from experiments.paper import render
from experiments.paper import stored
from experiments.paper import tables as tables_lib

SPEED = 'speed'

Names = str | Sequence[str]


class Quotes:
  """Looks up results; its public methods are what a template can call.

  Rows of tables are named by their labels, with a space between two of them,
  columns by their heading.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    self._directory = pathlib.Path(directory)
    self._filled = functools.cache(self._read_table)
    self._record = functools.cache(self._read_record)

  def table(self, name: str) -> str:
    """Returns a whole table, in Markdown."""
    return render.block(self._filled(name)).rstrip('\n')

  def cell(self, name: str, row: str, column: str) -> str:
    """Returns what a table shows in a cell, such as '58.81 ± 4.87'."""
    return render.text(self._cell(name, row, column))

  def mean(self, name: str, row: str, column: str) -> float:
    """Returns the mean of a cell, in the unit of the table."""
    result = self._cell(name, row, column, 'done')
    return render.scale(result.figure) * result.mean

  def deviation(self, name: str, row: str, column: str) -> float:
    """Returns the deviation of a cell, in the unit of the table."""
    result = self._cell(name, row, column, 'done')
    return render.scale(result.figure) * result.deviation

  def means(self, name: str, rows: Names, columns: Names) -> list[float]:
    """Returns the means of several cells."""
    return [
      self.mean(name, row, column)
      for row in _listed(rows)
      for column in _listed(columns)
    ]

  def lead(self, name: str, rows: Names, column: str, others: Names) -> float:
    """Returns by how much a column is ahead of others in each of some rows."""
    return min(
      self.mean(name, row, column) - max(self.means(name, row, others))
      for row in _listed(rows)
    )

  def fact(self, name: str, row: str, column: str, field: str) -> Any:
    """Returns what else is known of a cell: a field of `fill.Result`."""
    found = getattr(self._cell(name, row, column), field)
    if found is None:
      raise ValueError(f'table {name}, {row}, {column}: its {field} is unknown')
    return found

  def minutes(
    self, name: str, rows: Names | None = None, columns: Names | None = None
  ) -> float:
    """Returns the minutes that the networks of cells took, one by one.

    Args:
      name: of the table.
      rows: None: all.
      columns: None: all. Where they show figures of the same network, name one.
    """
    results = self._filled(name).results
    for kind, names, of in (('row', rows, _row), ('column', columns, _column)):
      for one in [] if names is None else _listed(names):
        self._check(name, kind, one, map(of, results))
    seconds = (
      result.seconds * result.num
      for result in results
      if result.seconds
      and (rows is None or _row(result) in _listed(rows))
      and (columns is None or result.column in _listed(columns))
    )
    return sum(seconds) / 60

  def speed(self, name: str, case: str, figure: str = 'ratio') -> float:
    """Returns a figure that a benchmark measured."""
    rows = self._record(name)
    self._check(f'{SPEED}/{name}', 'case', case, (key[0] for key in rows))
    own = [key[1] for key in rows if key[0] == case]
    self._check(f'{SPEED}/{name}, {case}', 'figure', figure, own)
    return float(rows[case, figure]['value'])

  def speeds(
    self, name: str, cases: Names, figure: str = 'ratio'
  ) -> list[float]:
    """Returns a figure of several cases."""
    return [self.speed(name, case, figure) for case in _listed(cases)]

  def commands(self, name: str) -> str:
    """Returns the calls of a benchmark that measured what is recorded."""
    found = dict.fromkeys(r['command'] for r in self._record(name).values())
    return ', '.join(f'`{command}`' for command in found)

  def setting(self, name: str, field: str) -> str:
    """Returns what a benchmark was measured with: `cpu`, `cores`, `isa`."""
    found = list(dict.fromkeys(r[field] for r in self._record(name).values()))
    if len(found) > 1:
      raise ValueError(
        f'{SPEED}/{name}: expected figures of one {field}, got {found}; '
        'measure all of them again'
      )
    return found[0]

  def _cell(
    self, name: str, row: str, column: str, *statuses: str
  ) -> fill.Result:
    results = self._filled(name).results
    self._check(name, 'row', row, map(_row, results))
    own = [result for result in results if _row(result) == row]
    self._check(f'{name}, {row}', 'column', column, (r.column for r in own))
    [result] = [result for result in own if result.column == column]
    if result.status not in (statuses or ('done', 'diverged')):
      raise ValueError(
        f'table {name}, row {row!r}, column {column!r}: the cell is '
        f'{result.status}'
      )
    return result

  def _check(
    self, place: str, kind: str, name: str, known: Iterable[str]
  ) -> None:
    known = list(dict.fromkeys(known))
    if name not in known:
      close = difflib.get_close_matches(name, known, n=1)
      raise ValueError(
        f'{place}: expected a {kind} of {", ".join(map(repr, known))}; got '
        f'{name!r}' + (f', did you mean {close[0]!r}?' if close else '')
      )

  def _read_table(self, name: str) -> fill.Filled:
    self._check('a table', 'name', name, tables_lib.TABLES)
    path = self._directory / f'{name}.csv'
    if not path.exists():
      raise ValueError(
        f'expected the results of table {name} in {path}, got no such file; '
        f'python -m experiments.paper --runs=DIR --table={name} writes it'
      )
    return stored.from_csv(tables_lib.TABLES[name], path.read_text())

  def _read_record(self, name: str) -> dict[tuple[str, str], dict[str, str]]:
    path = self._directory / SPEED / f'{name}.csv'
    if not path.exists():
      raise ValueError(
        f'expected what benchmarks/{name.partition("_")[0]}.py measured in '
        f'{path}, got no such file; its --record={path.parent} writes it'
      )
    with path.open(newline='') as file:
      return {(row['case'], row['figure']): row for row in csv.DictReader(file)}


def functions(quotes: Quotes) -> dict[str, Callable[..., Any]]:
  """Returns what a template can call, by name."""
  names = [name for name in dir(quotes) if not name.startswith('_')]
  return {**{name: getattr(quotes, name) for name in names}, 'span': span}


def fixed(value: float, digits: int = 2) -> str:
  """Returns a number with so many digits after the point.

  Example:
    >>> fixed(1234.5678, 1), fixed(0.27)
    ('1,234.6', '0.27')
    >>> fixed(-0.001)
    '0.00'
  """
  return f'{value:z,.{digits}f}'


def span(values: Sequence[float], digits: int = 2) -> str:
  """Returns the range of numbers.

  Example:
    >>> span([0.3, 0.1, 0.2], 1), span([2.01, 2.02], 1)
    ('0.1 to 0.3', '2.0')
  """
  ends = [fixed(end, digits) for end in (min(values), max(values))]
  return ' to '.join(dict.fromkeys(ends))


def _listed(names: Names) -> Sequence[str]:
  return [names] if isinstance(names, str) else names


def _row(result: fill.Result) -> str:
  return ' '.join(filter(None, result.labels))


def _column(result: fill.Result) -> str:
  return result.column
