"""The tables as data, and the published figures in them."""

import itertools
import shlex

import pytest

from experiments.paper import fill
from experiments.paper import published
from experiments.paper import render
from experiments.paper import spec
from experiments.paper import tables
from experiments.sweeps import plan
import launch


def commands(table):
  """Returns each command of a table with the cells that it fills."""
  cells = sorted(
    (c for c in spec.cells(table) if c.command), key=lambda c: c.command
  )
  return [
    (command, list(own))
    for command, own in itertools.groupby(cells, lambda c: c.command)
  ]


@pytest.mark.parametrize('name', tables.TABLES)
def test_the_command_of_a_cell_trains_its_networks(name, monkeypatch):
  monkeypatch.chdir(launch.__file__.rpartition('/')[0])
  table = tables.TABLES[name]
  folders = set()
  for command, cells in commands(table):
    python, file, *arguments = shlex.split(command)
    assert (python, file) == ('python', 'launch.py')
    parsed = launch.parse(arguments)
    assert parsed.workdir not in folders
    folders.add(parsed.workdir)
    facts = spec.facts(parsed.config.to_dict())
    alphas = parsed.config.powerprop.alphas
    for cell in cells:
      share = {'share': cell.where.get('share')}  # of pruning
      own = [{**facts, **share, 'alpha': alpha} for alpha in alphas]
      assert any(spec.has(one, cell.where) for one in own), cell


@pytest.mark.parametrize('name', tables.TABLES)
def test_its_sweeps_fill_the_whole_table(name, monkeypatch):
  monkeypatch.chdir(launch.__file__.rpartition('/')[0])
  table = tables.TABLES[name]
  facts, folders = [], set()
  for command in table.sweeps:
    arguments = shlex.split(command)[2:]
    values = dict(argument.split('=', 1) for argument in arguments)
    folders.add(values['--workdir'])
    config = values['--config']
    overrides = plan.collect(plan.find(values['--sweep'], config))
    shared = [x for x in arguments if x.startswith('--config.')]
    for run in plan.make_runs(overrides, config, shared):
      parsed = launch.parse([*run.arguments, '--workdir=any']).config
      own = spec.facts(parsed.to_dict())
      facts += [{**own, 'alpha': alpha} for alpha in parsed.powerprop.alphas]
  assert len(folders) == len(table.sweeps) > 0  # a folder is of one sweep
  for _, cells in commands(table):
    for cell in cells:
      share = {'share': cell.where.get('share')}  # of pruning
      assert any(spec.has({**one, **share}, cell.where) for one in facts), cell


@pytest.mark.parametrize('name', tables.TABLES)
def test_every_cell_is_of_one_place(name):
  cells = list(spec.cells(tables.TABLES[name]))
  places = {(c.row.labels, c.column.label) for c in cells}
  wheres = {(c.column.figure, repr(sorted(c.where.items()))) for c in cells}
  assert len(places) == len(wheres) == len(cells)


def test_the_levels_of_pruning_are_those_of_the_config():
  table = tables.TABLES['mnist_pruning']
  labels = [row.labels[0] for row in table.rows]
  assert labels[:3] == ['as trained', '100.00', '78.56']
  assert labels[-1] == '1.00'
  assert len(labels) == 21


@pytest.mark.parametrize('figure', published.FIGURES)
def test_a_published_figure_is_in_one_cell_or_listed(figure):
  table = tables.TABLES[figure.table]
  cells = [c for c in spec.cells(table) if spec.holds(c, figure.where)]
  assert figure.source.startswith('https://')
  if figure.departs:
    assert figure in published.printable(figure.table)
  else:
    assert len(cells) == 1, cells


def test_only_figures_with_a_source_are_printed(monkeypatch):
  remembered = published.Published(
    'imagenet', {'method': 'set', 'density': 0.2}, 0.123, 'https://nowhere',
    published.REMEMBERED,
  )  # fmt: skip
  sourced = remembered._replace(value=0.321, mark=published.SOURCED)
  table = tables.TABLES['imagenet']
  for figure, is_printed in ((remembered, False), (sourced, True)):
    monkeypatch.setattr(published, 'FIGURES', (figure,))
    text = render.markdown(fill.fill(table, [])[0])
    assert (f'*{100 * figure.value:.2f}*' in text) == is_printed


def test_what_is_not_ours_has_no_command():
  for table in tables.TABLES.values():
    for cell in spec.cells(table):
      assert bool(cell.command) == (
        cell.row.is_ours and spec.is_possible(cell.where)
      )
