"""Fills tables with networks, and says what does not fit together."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from experiments.paper import collect
from experiments.paper import costing
from experiments.paper import estimates
from experiments.paper import published
from experiments.paper import spec

# Keys of configs that change no figure, or that facts tell apart.
FREE = (
  'data.cache_dir', 'data.data_dir', 'data.num_workers', 'data.on_bad_record',
  'data.path', 'powerprop.alphas', 'seeds', 'side_by_side', 'tasks.data_dir',
  'train.checkpoint_every', 'train.eval_batch_size', 'train.eval_every',
  'train.keep_checkpoints', 'train.log_every', 'train.model_devices',
  'train.num_devices',
)  # fmt: skip
# In these a row may differ from itself, too: they are what columns are about.
_DENSITIES = (
  'method.density', 'method.forward_density', 'method.backward_density',
)  # fmt: skip
_OF_ROWS = ('method.', 'strategy.')


class Result(NamedTuple):
  """A cell of a table: one line of its CSV file."""

  labels: tuple[str, ...]  # of the row
  column: str
  figure: str
  # 'done', 'diverged', 'empty', or 'absent': networks, but no such figure
  status: str
  mean: float | None = None
  deviation: float | None = None
  num: int = 0  # seeds
  low: float | None = None  # the 95% interval of the mean
  high: float | None = None
  seeds: tuple[int, ...] = ()
  values: tuple[float, ...] = ()  # by seed
  density: float | None = None  # of all parameters
  inference_flops: float | None = None
  inference_share: float | None = None  # of dense
  train_flops: float | None = None
  train_share: float | None = None  # of dense
  num_bytes: int | None = None
  seconds: float | None = None  # of training, for each network
  published: float | None = None
  source: str = ''
  command: str = ''  # what trains its networks


class Filled(NamedTuple):
  """A table with its cells, in the order of `spec.cells`."""

  table: spec.Table
  results: tuple[Result, ...]
  notes: tuple[str, ...] = ()


class Test(NamedTuple):
  """A paired test of two cells."""

  cell: Result
  reference: Result
  paired: estimates.Paired
  corrected: float | None  # p among all tests of the table


def fill(
  table: spec.Table, networks: Sequence[collect.Network]
) -> tuple[Filled, list[list[collect.Network]]]:
  """Returns a table's results, and the networks of each cell.

  Raises:
    ValueError: If the networks of a cell or a row, or those of the table, were
      trained in different ways (says in which key they differ), or if a network
      is there twice.
  """
  cells = list(spec.cells(table))
  own = [n for n in networks if spec.has(n.facts, table.where)]
  found = [_of_cell(cell, own) for cell in cells]
  for cell, chosen in zip(cells, found, strict=True):
    _check_once(table, cell, chosen)
  _check_alike(table, cells, found)
  notes: dict[str, None] = {}  # each once, in their order
  results = tuple(
    _result(table, cell, chosen, notes)
    for cell, chosen in zip(cells, found, strict=True)
  )
  return Filled(table, results, tuple(notes)), found


def tests(filled: Filled) -> list[Test]:
  """Returns the paired tests of the cells that share seeds."""
  cells = list(spec.cells(filled.table))
  found = []
  for cell, result in zip(cells, filled.results, strict=True):
    if not result.values:
      continue
    for against in filled.table.against:
      for other, reference in zip(cells, filled.results, strict=True):
        if reference.values and _is_reference(cell, other, against):
          compared = estimates.paired(by_seed(result), by_seed(reference))
          if compared is not None:
            found.append(Test(result, reference, compared, None))
  known = [i for i, test in enumerate(found) if test.paired.p is not None]
  corrected = estimates.holm([found[i].paired.p for i in known])
  for i, p in zip(known, corrected, strict=True):
    found[i] = found[i]._replace(corrected=p)
  return found


def by_seed(result: Result) -> dict[int, float]:
  """Returns the figures of a cell by seed."""
  return dict(zip(result.seeds, result.values, strict=True))


def _of_cell(
  cell: spec.Cell, networks: Iterable[collect.Network]
) -> list[collect.Network]:
  if not cell.command:
    return []
  return sorted(
    (n for n in networks if spec.has(n.facts, cell.where)),
    key=lambda network: network.seed,
  )


def _check_once(
  table: spec.Table, cell: spec.Cell, networks: Sequence[collect.Network]
) -> None:
  paths: dict[int, collect.Network] = {}
  for network in networks:
    other = paths.setdefault(network.seed, network)
    if other is network:
      continue
    configs = [other.record.config, network.record.config]
    differing = {
      key: values
      for key, values in collect.differing(configs).items()
      if key not in FREE
    }
    why = (
      f'which differ in {_shown(differing)}'
      if differing
      else 'of the same config'
    )
    folders = f'{other.record.path} and {network.record.path}'
    raise ValueError(
      f'{_place(table, cell)}: expected one network of seed {network.seed}, '
      f'got those of {folders}, {why}; move one of the folders away'
    )


def _check_alike(table: spec.Table, cells, found) -> None:
  """Checks that rows, and the table, are of one way to train."""
  of_rows: dict[tuple[str, ...], dict[Any, collect.Record]] = {}
  for cell, networks in zip(cells, found, strict=True):
    records = of_rows.setdefault(cell.row.labels, {})
    records.update({n.record.path: n.record for n in networks})
  for labels, records in of_rows.items():
    place = f'table {table.name}, row {" ".join(labels)}'
    ignored = (*FREE, *_DENSITIES, *table.across)
    _check_configs(place, list(records.values()), ignored)
  every = {p: r for records in of_rows.values() for p, r in records.items()}
  _check_configs(
    f'table {table.name}',
    list(every.values()),
    (*FREE, *_OF_ROWS, *table.varies, *table.across),
  )


def _check_configs(place, records, ignored: tuple[str, ...]) -> None:
  differing = {
    key: values
    for key, values in collect.differing([r.config for r in records]).items()
    if not key.startswith(ignored)
  }
  if not differing:
    return
  key, values = next(iter(differing.items()))
  other = next(i for i, value in enumerate(values) if value != values[0])
  more = sorted(differing.keys() - {key})
  raise ValueError(
    f'{place}: expected runs of one config, got {key}: {values[0]!r} in '
    f'{records[0].path}, {values[other]!r} in {records[other].path}'
    + (f' (and {", ".join(more)})' if more else '')
    + '; give --runs a folder without one of them'
  )


def _result(table, cell, networks, notes) -> Result:
  result = Result(
    cell.row.labels,
    cell.column.label,
    cell.column.figure,
    'empty',
    command=cell.command,
  )
  for figure in published.printable(table.name):
    if not figure.departs and spec.holds(cell, figure.where):
      result = result._replace(published=figure.value, source=figure.source)
  if not networks:
    return result
  result = _with_costs(result, networks[0], notes)
  if any(n.status != 'done' for n in networks):
    for message in {n.record.message for n in networks if n.record.message}:
      notes[f'{_place(table, cell)} diverged: {message}'] = None
    return result._replace(status='diverged', num=len(networks))
  known = [n for n in networks if cell.column.figure in n.figures]
  if not known:
    return result._replace(status='absent')
  values = tuple(n.figures[cell.column.figure] for n in known)
  estimate = estimates.estimate(values)
  times = [_seconds(n.record) for n in known]
  return result._replace(
    status='done',
    seeds=tuple(n.seed for n in known),
    values=values,
    seconds=None if None in times else sum(times) / len(times),
    **estimate._asdict(),
  )


def _with_costs(result: Result, network: collect.Network, notes) -> Result:
  try:
    costs = costing.of(network.record.config, network.facts.get('share'))
  except ValueError as error:
    path = network.record.path
    notes[f'{path} is of another version, its costs are unknown: {error}'] = (
      None
    )
    return result
  return result._replace(**costs._asdict()) if costs else result


def _seconds(record: collect.Record) -> float | None:
  seconds = record.summary.get('wall_time_s')
  if seconds is None:
    return None
  return seconds / len(collect.members(record.config))


def _is_reference(cell: spec.Cell, other: spec.Cell, against) -> bool:
  """Whether `other` is what `cell` is tested against."""
  if cell.where == other.where or cell.column.figure != other.column.figure:
    return False
  if not spec.has(other.where, against) or spec.has(cell.where, against):
    return False
  changes = {'method', 'strategy'} & against.keys()
  free = {*against} | (
    {'backward_ratio', 'backward_density'} if changes else set()
  )
  keys = (cell.where.keys() | other.where.keys()) - free
  return all(cell.where.get(key) == other.where.get(key) for key in keys)


def _place(table: spec.Table, cell: spec.Cell) -> str:
  return f'table {table.name}, {" ".join(cell.row.labels)}, {cell.column.label}'


def _shown(differing: dict[str, list[Any]]) -> str:
  return ', '.join(
    f'{key} ({" and ".join(map(repr, values))})'
    for key, values in differing.items()
  )
