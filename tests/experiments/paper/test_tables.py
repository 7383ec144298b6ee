"""The tables as data, and the published values."""

import functools
import pathlib
import shlex

import numpy as np
import pandas as pd
import pytest

from experiments.paper import fill
from experiments.paper import image
from experiments.paper import results
from experiments.paper import runs as runs_lib
from experiments.paper import table as table_lib
from experiments.paper import tables
from experiments.sweep import plan as plan_lib
from tests.experiments.paper import folders

REPOSITORY = pathlib.Path(tables.__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch):
  monkeypatch.chdir(REPOSITORY)


@functools.cache
def plan(command):
  """Returns the runs of a command of launch.py, of one seed."""
  words = shlex.split(command)[2:]
  given = dict(word.split('=', 1) for word in words)
  shared = [word for word in words if word.startswith('--config.')]
  shared.append('--config.seeds=(0,)')
  return plan_lib.make(given['--config'], shared, given.get('--sweep')).runs


@pytest.mark.parametrize('name', tables.TABLES)
def test_its_sweeps_fill_the_whole_table(name):
  table, found, workdirs = tables.TABLES[name], [], set()
  for command in table.sweeps:
    workdirs.add(command.partition('--workdir=')[2])
    found += [table_lib.facts(run.config) for run in plan(command)]
  assert len(workdirs) == len(table.sweeps) > 0  # a folder is of one sweep
  cells = table_lib.cells(table)
  for cell in cells.to_dict('records'):
    where = cell['where']
    # Dense networks have density 1, and they alone.
    is_possible = not {'density', 'method'} <= where.keys() or (
      (where['density'] == 1.0) == (where['method'] == 'dense')
    )
    wanted = {k: v for k, v in where.items() if k != 'share'}
    is_found = any(
      all(facts.get(k) == v for k, v in wanted.items()) for facts in found
    )
    assert is_found or not is_possible, cell
  # No two cells are of the same networks.
  assert not cells.duplicated([*table.headings, 'column']).any()
  cells['where'] = [repr(sorted(where.items())) for where in cells['where']]
  assert not cells.duplicated(['metric', 'where']).any()


def test_no_sweep_has_another_network_of_a_cell():
  commands = {
    sweep for table in tables.TABLES.values() for sweep in table.sweeps
  }
  found = [run.config for command in sorted(commands) for run in plan(command)]
  frame = runs_lib.to_texts(runs_lib.flatten(found))
  is_free = [key.startswith(fill.FREE) for key in frame]
  facts = pd.DataFrame([table_lib.facts(config) for config in found])
  facts['config'] = frame.loc[:, np.logical_not(is_free)].sum(axis=1)
  facts = facts.assign(share=None).drop_duplicates('config')
  for table in tables.TABLES.values():
    for cell in table_lib.cells(table).to_dict('records'):
      own = runs_lib.select(facts, {**cell['where'], 'share': None})
      assert len(own) <= 1, (table.name, cell)


def test_pruning_levels_are_the_shares_of_the_config():
  prune = folders.of_file(folders.mnist_powerprop)['prune']
  assert (prune['num_levels'], prune['lowest'], prune['highest']) == (
    len(image.SHARES), image.SHARES[0], image.SHARES[-1],
  )  # fmt: skip
  labels = [row.labels[0] for row in tables.TABLES['mnist_pruning'].rows]
  assert labels[:3] == ['as trained', '100.00', '78.56']


def test_published_values_have_a_source_and_a_place():
  published = pd.read_csv(results.PUBLISHED, keep_default_na=False)
  assert len(published) > 30
  for value in published.itertuples():
    table, labels = tables.TABLES[value.table], tuple(value.labels.split(' | '))
    assert value.source.startswith('https://')
    assert len(labels) == len(table.headings)
    assert value.column in {column.label for column in table.columns}
    is_row = labels in {row.labels for row in table.rows}
    assert is_row != bool(value.differs)
