"""Fills tables with networks, and refuses those that do not fit together.

Results are tidy: one row for each network of a cell, the form of the stored CSV
files.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import pathlib

import numpy as np
import pandas as pd
from scipy import stats

from experiments import flops
from experiments import rundir
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
_ROWS = ('method.', 'optimizer.ham_', 'strategy.')
_FIELDS = [
  'metric', 'seed', 'value', 'status', 'message', *flops.COSTS, 'seconds',
]  # fmt: skip
_NETWORK = ['run', 'seed', 'status', 'message', 'seconds', 'level']
CONFIDENCE = 0.95


def fill(
  table: table_lib.Table, runs: Sequence[runs_lib.Run], frame: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
  """Returns the results of a table, and notes on runs and costs left out.

  `frame` is `runs.to_frame` of the runs. Raises ValueError if two networks are
  the same network of one cell, or no config is that of more than half of the
  networks of a row.
  """
  keys = [*table.headings, 'column']
  names, found, notes = [*keys, *_FIELDS, 'run'], [], {}
  cells = table_lib.cells(table)
  for cell in cells.to_dict('records') if len(frame) else ():
    networks = runs_lib.select(frame, cell['where']).sort_values('seed')
    if networks.empty:
      continue
    same = {name: cell[name] for name in (*keys, 'metric')}
    value = networks.get(cell['metric'], np.nan)
    found.append(networks[_NETWORK].assign(value=value, **same))
  if not found:
    return pd.DataFrame(columns=names), []
  results = pd.concat(found, ignore_index=True)
  results = _leave_out(table, results, runs, notes)
  results = _once(table, results, runs, notes).reset_index(drop=True)

  def cost(network: pd.Series) -> dict[str, float]:
    run, level = runs[network.run], network.level
    try:
      return flops.costs(run.config, None if level != level else level)
    except ValueError as error:
      notes[f'{run.path}: unknown costs: {error}'] = None
      return {}

  known = pd.DataFrame(list(results.apply(cost, axis=1)), columns=flops.COSTS)
  return results.join(known)[names], list(notes)


def summarize(table: table_lib.Table, results: pd.DataFrame) -> pd.DataFrame:
  """Returns the cells of a table with their estimates.

  Adds to `table.cells`: status ('done', 'diverged', 'empty', or 'absent' for
  networks without the metric), mean, deviation (of the sample), num, low, high
  (Student's interval), seconds (the mean), costs.
  """
  keys = [*table.headings, 'column']
  found = results.groupby(keys, sort=False).agg(
    mean=('value', 'mean'),
    deviation=('value', 'std'),
    num=('value', 'count'),
    has_diverged=('status', lambda status: (status != 'done').any()),
    seconds=('seconds', 'mean'),
    **{name: (name, 'first') for name in flops.COSTS},
  )
  cells = table_lib.cells(table).merge(found, 'left', on=keys)
  cells['num'] = cells.num.fillna(0).astype(int)
  has_diverged = cells.pop('has_diverged')
  cells['status'] = np.select(
    [has_diverged.isna(), has_diverged.eq(True), cells.num == 0],
    ['empty', 'diverged', 'absent'],
    'done',
  )
  cells.loc[cells.status == 'diverged', ['mean', 'deviation']] = np.nan
  high = stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(cells.num - 1, 1))
  half = high * cells.deviation / np.sqrt(cells.num.clip(1))  # NaN for one seed
  return cells.assign(low=cells['mean'] - half, high=cells['mean'] + half)


def paired_tests(
  table: table_lib.Table, cells: pd.DataFrame, results: pd.DataFrame
) -> pd.DataFrame:
  """Returns the paired t-tests of cells with shared seeds, smallest p first.

  Columns: `cell` and `reference` (indices into `cells`), difference, num, p
  (two-sided; NaN for one pair or equal differences), corrected (Holm's).
  """
  keys, done = [*table.headings, 'column'], cells[cells.status == 'done']
  values = results.pivot(index='seed', columns=keys, values='value')
  values = values[list(done[keys].itertuples(index=False, name=None))]
  values.columns, rows = done.index, []
  for i, reference in _pairs(table, done):
    difference = (values[i] - values[reference]).dropna()
    if len(difference):
      pair = values.loc[difference.index, [i, reference]].to_numpy().T
      p = stats.ttest_rel(*pair).pvalue if np.ptp(difference) > 0 else np.nan
      rows.append((i, reference, difference.mean(), len(difference), p))
  names = ['cell', 'reference', 'difference', 'num', 'p']
  tests = pd.DataFrame(rows, columns=names).sort_values('p')
  return tests.assign(corrected=holm(tests.p.to_numpy(float)))


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
  """Returns the results of a CSV file of this table by `write`."""
  keys = [*table.headings, 'column']
  results = pd.read_csv(path, dtype=str, keep_default_na=False)
  if list(results) != [*keys, *_FIELDS]:
    raise ValueError(
      f'expected the columns {[*keys, *_FIELDS]} in {path}, got '
      f'{list(results)}; write the table again from its runs'
    )
  numbers = ['value', *flops.COSTS, 'seconds']
  results[numbers] = results[numbers].replace('', 'nan').astype(float)
  results['seed'] = results.seed.astype(int)
  unknown = results[~_is_in(keys, results, table_lib.cells(table))]
  if len(unknown):
    raise ValueError(
      f'expected the cells of table {table.name} in {path}, got '
      f'{" ".join(unknown[keys].iloc[0])}; write the table again from its runs'
    )
  return results.assign(run=np.nan)


def complete(
  table: table_lib.Table, results: pd.DataFrame, stored: pd.DataFrame
) -> pd.DataFrame:
  """Returns results with the stored ones in the cells that have none."""
  rest = stored[~_is_in([*table.headings, 'column'], stored, results)]
  parts = [part for part in (results, rest) if len(part)]
  return pd.concat(parts, ignore_index=True) if parts else results


def _is_in(keys: list[str], frame: pd.DataFrame, other: pd.DataFrame):
  """Returns True for each row of a frame with the keys of a row of another."""
  index = pd.MultiIndex.from_frame(other[keys])
  return pd.MultiIndex.from_frame(frame[keys]).isin(index)


def _once(table: table_lib.Table, results: pd.DataFrame, runs, notes):
  """Returns the results with each seed once; sweeps may share a network.

  Raises ValueError for two results of one seed that differ.
  """
  keys = [*table.headings, 'column', 'seed']
  for _, own in results[results.duplicated(keys, keep=False)].groupby(keys):
    one, other = own.iloc[0], own.iloc[1]
    first, second = (runs[i] for i in (one.run, other.run))
    if own.value.nunique(dropna=False) > 1 or own.status.nunique() > 1:
      labels = ' '.join(one[[*table.headings]])
      raise ValueError(
        f'table {table.name}, {labels}, {one.column}: expected one network of '
        f'seed {one.seed}, got those of {first.path} and {second.path}; move '
        'one of the folders away'
      )
    notes[f'left out {second.path}: the same network as {first.path}'] = None
  return results.drop_duplicates(keys)


def _leave_out(table: table_lib.Table, results: pd.DataFrame, runs, notes):
  """Returns the results without runs whose config is another than most have."""
  place, across = f'table {table.name}', (*FREE, *table.across)
  headings, indices = [*table.headings], results.run.unique()
  flat = runs_lib.flatten([runs[i].config for i in indices])
  texts = runs_lib.to_texts(flat).set_axis(indices)
  for keys, free in (
    ([*headings, 'column'], FREE), (headings, (*across, *_DENSITIES)),
  ):  # fmt: skip
    # One text a run, which tells equal configs quickly.
    is_free = [key.startswith(free) for key in texts]
    whole = texts.loc[:, np.logical_not(is_free)].sum(axis=1)
    for labels, own in results.groupby(keys, sort=False):
      if whole[own.run.unique()].nunique() == 1:
        continue
      row = f'{place}, row {" ".join(filter(None, labels))}'
      others = _differing(row, runs, own.run, free, notes)
      results = results[~results.run.isin(others)]
  ignored = (*across, *_ROWS, *table.varies)
  others = _differing(place, runs, results.run, ignored, notes)
  return results[~results.run.isin(others)]


def _differing(
  place: str, runs, indices, ignored: tuple[str, ...], notes: dict[str, None]
) -> list[int]:
  """Returns the runs whose config differs from that of more than half.

  Raises ValueError if no config is that of more than half.
  """
  found = sorted({*indices})
  keys = runs_lib.differing([runs[i].config for i in found])
  keys = keys.loc[:, [key for key in keys if not key.startswith(ignored)]]
  if keys.empty:
    return []
  groups = keys.map(repr).groupby(list(keys), sort=False).indices.values()
  most, *others = sorted(groups, key=len, reverse=True)
  first, *more = sorted(keys)
  a, b = most[0], others[0][0]
  message = f'{place}: expected runs of one config, got {first}: ' + ', '.join(
    f'{keys[first].iloc[i]!r} in {runs[found[i]].path}' for i in (a, b)
  )
  message += f' (and {", ".join(more)})' if more else ''
  if 2 * len(most) <= len(found):
    raise ValueError(f'{message}; give --runs a folder without one of them')
  left = [found[i] for group in others for i in group]
  for i in left:
    notes[f'left out {runs[i].path}: {message}'] = None
  return left


def _pairs(
  table: table_lib.Table, cells: pd.DataFrame
) -> Iterator[tuple[int, int]]:
  """Yields each cell with the cells that it is tested against."""
  for (i, cell), against in itertools.product(cells.iterrows(), table.against):
    wanted, free = {**cell['where'], **against}, set()
    if {'method', 'strategy'} & against.keys():
      free = {'backward_ratio', 'backward_density'}
    for j, other in cells.iterrows():
      keys = (wanted.keys() | other['where'].keys()) - free
      if (
        wanted != cell['where']
        and cell.metric == other.metric
        and all(wanted.get(key) == other['where'].get(key) for key in keys)
      ):
        yield i, j
