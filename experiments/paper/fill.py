"""Fills tables with networks, and refuses those that do not fit together.

Results are tidy: one row for each network of a cell, the form of the stored CSV
files.
"""

from collections.abc import Sequence
import pathlib

import numpy as np
import pandas as pd
from scipy import stats

from experiments import rundir
from experiments.paper import costs
from experiments.paper import runs as runs_lib
from experiments.paper import table as table_lib

# Config keys that change no result, or that the facts tell apart.
FREE = (
  'data.cache_dir', 'data.data_dir', 'data.num_workers', 'data.on_bad_record',
  'data.path', 'powerprop.alpha', 'seed', 'tasks.data_dir',
  'train.checkpoint_every', 'train.eval_batch_size', 'train.eval_every',
  'train.keep_checkpoints', 'train.log_every',
  'train.num_devices',
)  # fmt: skip
# Keys in which a row may differ from itself, and a table among its rows.
_DENSITIES = (
  'method.density', 'method.forward_density', 'method.backward_density',
)  # fmt: skip
_ROWS = ('method.', 'strategy.')
_FIELDS = [
  'column', 'metric', 'seed', 'value', 'status', 'message', *costs.COSTS,
  'seconds',
]  # fmt: skip
CONFIDENCE = 0.95


def fill(
  table: table_lib.Table, runs: Sequence[runs_lib.Run], frame: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
  """Returns the results of a table, and notes on unknown costs.

  Args:
    table: to be filled.
    runs: the runs.
    frame: `runs.to_frame` of these.

  Raises:
    ValueError: If two networks are the same network of one cell, or networks
      differ in a config key that is neither row nor column; names the key.
  """
  own = runs_lib.select(frame, table.where)
  chosen = [
    (cell, runs_lib.select(own, cell.where).sort_values('seed'))
    for cell in table_lib.cells(table)
    if cell.command and len(own)
  ]
  for cell, networks in chosen:
    _check_once(table, cell, networks, runs)
  _check_alike(table, chosen, runs)
  rows, notes = [], {}
  for cell, networks in chosen:
    for _, network in networks.iterrows():
      rows.append(_result(table, cell, network, runs, notes))
  columns = [*table.headings, *_FIELDS, 'run']
  return pd.DataFrame(rows, columns=columns), list(notes)


def summarize(table: table_lib.Table, results: pd.DataFrame) -> pd.DataFrame:
  """Returns a row for each cell of a table, in its order.

  Columns: headings, those of `table.Cell`, panel and line of its plots, status
  ('done', 'diverged', 'empty', or 'absent' for networks without the metric),
  mean, deviation (of the sample), num, low, high (Student's interval), seconds
  (the mean), costs.
  """
  keys = [*table.headings, 'column']
  cells = pd.DataFrame(
    [
      (*cell.labels, *cell[1:], *table_lib.line(table, cell))
      for cell in table_lib.cells(table)
    ],
    columns=[*keys, 'metric', 'where', 'command', 'panel', 'line'],
  )
  by_cell = results.groupby(keys, sort=False)
  found = by_cell.agg(
    mean=('value', 'mean'),
    deviation=('value', 'std'),
    num=('value', 'count'),
    has_diverged=('status', lambda status: (status != 'done').any()),
    seconds=('seconds', 'mean'),
    **{name: (name, 'first') for name in costs.COSTS},
  )
  cells = cells.merge(found, 'left', on=keys)
  cells['num'] = cells.num.fillna(0).astype(int)
  has_diverged = cells.has_diverged.eq(True)
  cells['status'] = np.select(
    [cells.has_diverged.isna(), has_diverged, cells.num == 0],
    ['empty', 'diverged', 'absent'],
    'done',
  )
  cells.loc[has_diverged, ['mean', 'deviation']] = np.nan
  low, high = stats.t.interval(CONFIDENCE, np.maximum(cells.num - 1, 1))
  error = cells.deviation / np.sqrt(cells.num.clip(1))  # NaN for one seed
  cells['low'], cells['high'] = (
    cells['mean'] + low * error,
    cells['mean'] + high * error,
  )
  return cells.drop(columns='has_diverged')


def paired_tests(
  table: table_lib.Table, cells: pd.DataFrame, results: pd.DataFrame
) -> pd.DataFrame:
  """Returns the paired t-tests of cells with shared seeds, smallest p first.

  Columns: `cell` and `reference` (indices into `cells`), difference, num, p
  (two-sided; NaN for one pair or equal differences), corrected (Holm's).
  """
  keys = [*table.headings, 'column']
  done = cells[cells.status == 'done']
  groups = dict(list(results.groupby(keys)))
  by_seed = {
    i: groups[key].set_index('seed').value.dropna()
    for i, *key in done[keys].itertuples(name=None)
    for key in [tuple(key)]
  }
  rows = []
  for i in done.index:
    for reference in _references(table, done, i):
      pair = pd.concat([by_seed[i], by_seed[reference]], axis=1).dropna()
      if len(pair):
        a, b = pair.to_numpy().T
        p = stats.ttest_rel(a, b).pvalue if np.ptp(a - b) > 0 else np.nan
        rows.append((i, reference, (a - b).mean(), len(pair), p))
  names = ['cell', 'reference', 'difference', 'num', 'p']
  tests = pd.DataFrame(rows, columns=names).sort_values('p')
  tests['corrected'] = holm(tests.p.to_numpy(float))
  return tests


def holm(p: np.ndarray) -> np.ndarray:
  """Returns ascending p-values corrected by Holm's method; NaN are no tests.

  Example:
    >>> holm(np.array([0.01, 0.03, 0.04]))
    array([0.03, 0.06, 0.06])

  Reference:
    Holm, 1979, "A simple sequentially rejective multiple test procedure".
  """
  remaining = np.isfinite(p).sum() - np.arange(len(p))
  return np.minimum(1, np.maximum.accumulate(remaining * p))


def write(results: pd.DataFrame, path: pathlib.Path) -> None:
  """Writes results as CSV, without the runs they came from."""
  text = results.drop(columns='run').to_csv(index=False)
  rundir.write_bytes(path, text.encode())


def read(table: table_lib.Table, path: pathlib.Path) -> pd.DataFrame:
  """Returns the results of a CSV file by `write`.

  Raises:
    ValueError: If the file is of another table or form.
  """
  results = pd.read_csv(path, dtype=str, keep_default_na=False)
  expected = [*table.headings, *_FIELDS]
  if list(results) != expected:
    raise ValueError(
      f'expected the columns {expected} in {path}, got {list(results)}; write '
      'the table again from its runs'
    )
  for name in ('seed', 'value', *costs.COSTS, 'seconds'):
    numbers = results[name].replace('', 'nan')
    results[name] = numbers.map(int if name == 'seed' else float)
  known = {(*cell.labels, cell.column) for cell in table_lib.cells(table)}
  keys = results[[*table.headings, 'column']].itertuples(index=False, name=None)
  unknown = [key for key in keys if key not in known]
  if unknown:
    raise ValueError(
      f'expected the cells of table {table.name} in {path}, got '
      f'{" ".join(unknown[0])}; write the table again from its runs'
    )
  return results.assign(run=np.nan)


def complete(
  table: table_lib.Table, results: pd.DataFrame, stored: pd.DataFrame
) -> pd.DataFrame:
  """Returns results with the stored ones in the cells that have none."""
  keys = [*table.headings, 'column']
  filled = set(results[keys].itertuples(index=False, name=None))
  rest = [
    key not in filled for key in stored[keys].itertuples(index=False, name=None)
  ]
  parts = [part for part in (results, stored[rest]) if len(part)]
  return pd.concat(parts, ignore_index=True) if parts else results


def _result(table, cell: table_lib.Cell, network, runs, notes) -> dict:
  run = runs[network.run]
  level = network.level if network.share == network.share else None
  try:
    found = costs.of_network(run.config, level)
  except ValueError as error:
    notes[f'{run.path}: unknown costs: {error}'] = None
    found = {}
  return {
    **dict(zip(table.headings, cell.labels, strict=True)),
    **found,
    **network[['seed', 'status', 'message', 'seconds', 'run']],
    'column': cell.column,
    'metric': cell.metric,
    'value': network.get(cell.metric, np.nan),
  }


def _check_once(table, cell: table_lib.Cell, networks, runs) -> None:
  twice = networks[networks.seed.duplicated(keep=False)]
  if twice.empty:
    return
  first, second = (runs[i] for i in twice.run.iloc[:2])
  keys = runs_lib.differing([first.config, second.config]).drop(
    columns=list(FREE), errors='ignore'
  )
  differences = [f'{k} ({a!r} and {b!r})' for k, (a, b) in keys.items()]
  why = (
    f'which differ in {", ".join(differences)}'
    if differences
    else ('of the same config')
  )
  raise ValueError(
    f'table {table.name}, {" ".join(cell.labels)}, {cell.column}: expected one '
    f'network of seed {twice.seed.iloc[0]}, got those of {first.path} and '
    f'{second.path}, {why}; move one of the folders away'
  )


def _check_alike(table, chosen, runs) -> None:
  """Checks that the networks of each row, and of the table, are alike."""
  by_row: dict[tuple[str, ...], set[int]] = {}
  for cell, networks in chosen:
    by_row.setdefault(cell.labels, set()).update(networks.run)
  for labels, indices in by_row.items():
    place = f'table {table.name}, row {" ".join(labels)}'
    ignored = (*FREE, *_DENSITIES, *table.across)
    _check_configs(place, [runs[i] for i in sorted(indices)], ignored)
  every = sorted(set().union(*by_row.values()))
  ignored = (*FREE, *_ROWS, *table.varies, *table.across)
  _check_configs(f'table {table.name}', [runs[i] for i in every], ignored)


def _check_configs(place: str, found, ignored: tuple[str, ...]) -> None:
  if len(found) < 2:
    return
  keys = runs_lib.differing([run.config for run in found])
  keys = keys.loc[:, [key for key in keys if not key.startswith(ignored)]]
  if keys.empty:
    return
  first, *others = sorted(keys)
  values = list(keys[first])
  i = next(i for i, value in enumerate(values) if value != values[0])
  raise ValueError(
    f'{place}: expected runs of one config, got {first}: {values[0]!r} in '
    f'{found[0].path}, {values[i]!r} in {found[i].path}'
    + (f' (and {", ".join(others)})' if others else '')
    + '; give --runs a folder without one of them'
  )


def _references(table, cells: pd.DataFrame, i: int) -> list[int]:
  """Returns the cells that cell `i` is tested against."""
  where, found = cells['where'][i], []
  for against in table.against:
    wanted = {**where, **against}
    free = set()
    if {'method', 'strategy'} & against.keys():
      free = {'backward_ratio', 'backward_density'}
    for j, other in cells['where'].items():
      keys = (wanted.keys() | other.keys()) - free
      if (
        wanted != where
        and cells.metric[i] == cells.metric[j]
        and all(wanted.get(key) == other.get(key) for key in keys)
      ):
        found.append(j)
  return found
