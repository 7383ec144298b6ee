"""Tables as CSV: what is kept when the runs are gone.

A CSV file holds all that other forms show, a cell a line, so that they can be
made again without the runs.
"""

import csv
import io
from typing import Any

from experiments.paper import fill
from experiments.paper import spec

_NUMBERS = {'num': int, 'num_bytes': int}
_TEXTS = ('column', 'figure', 'status', 'source', 'command')


def to_csv(filled: fill.Filled) -> str:
  """Returns a line a cell, with all fields of `fill.Result`."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow([*filled.table.headings, *fill.Result._fields[1:]])
  for result in filled.results:
    writer.writerow([*result.labels, *map(_to_field, result[1:])])
  return file.getvalue()


def from_csv(table: spec.Table, content: str) -> fill.Filled:
  """Returns what `to_csv` wrote.

  Raises:
    ValueError: If the file is not of this table as it is now: other fields,
      rows or columns.
  """
  header, *lines = csv.reader(io.StringIO(content))
  num_labels = len(table.headings)
  expected = [*table.headings, *fill.Result._fields[1:]]
  if header != expected:
    raise ValueError(
      f'expected the fields {expected} of table {table.name}, got {header}; '
      'make it again from the runs'
    )
  results = tuple(
    fill.Result(
      tuple(line[:num_labels]),
      *map(_from_field, fill.Result._fields[1:], line[num_labels:]),
    )
    for line in lines
  )
  there = [(result.labels, result.column) for result in results]
  now = [(c.row.labels, c.column.label) for c in spec.cells(table)]
  if there != now:
    raise ValueError(
      f'expected the {len(now)} cells of table {table.name}, got {len(there)}, '
      'or others; make it again from the runs'
    )
  return fill.Filled(table, results)


def complete(filled: fill.Filled, kept: fill.Filled) -> fill.Filled:
  """Returns a table whose empty cells are those of the same table, kept."""
  results = tuple(
    old if new.status == 'empty' else new
    for new, old in zip(filled.results, kept.results, strict=True)
  )
  num = sum(
    result is old and old.status != 'empty'
    for result, old in zip(results, kept.results, strict=True)
  )
  notes = (f'{num} cells are of earlier runs.',) if num else ()
  return filled._replace(results=results, notes=filled.notes + notes)


def _to_field(value: Any) -> str:
  if isinstance(value, tuple):
    return ' '.join(map(repr, value))
  return '' if value is None else str(value)


def _from_field(name: str, field: str) -> Any:
  if name in _TEXTS:
    return field
  if name in ('seeds', 'values'):
    kind = int if name == 'seeds' else float
    return tuple(map(kind, field.split()))
  return _NUMBERS.get(name, float)(field) if field else None
