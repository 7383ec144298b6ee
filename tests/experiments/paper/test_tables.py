"""The tables as data, and the published values."""

import pathlib
import shlex

import pandas as pd
import pytest

from experiments.paper import image
from experiments.paper import results
from experiments.paper import table as table_lib
from experiments.paper import tables
from experiments.sweep import plan as plan_lib
from tests.experiments.paper import folders

REPOSITORY = pathlib.Path(tables.__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch):
  monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize('name', tables.TABLES)
def test_its_sweeps_fill_the_whole_table(name):
  table, found, workdirs = tables.TABLES[name], [], set()
  for command in table.sweeps:
    words = shlex.split(command)[2:]
    given = dict(word.split('=', 1) for word in words)
    config, out = given['--config'], given['--workdir']
    sweep = given.get('--sweep')
    shared = [word for word in words if word.startswith('--config.')]
    workdirs.add(out)
    runs = plan_lib.make(config, shared, sweep).runs
    found += [table_lib.facts(run.config) for run in runs]
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
