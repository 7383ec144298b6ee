"""What a text quotes is in the results, or is an error."""

import re

import pytest

from experiments.paper import collect
from experiments.paper import fill
from experiments.paper import gather
from experiments.paper import quotes as quotes_lib
from experiments.paper import stored
from experiments.paper import tables
from tests.experiments.paper import folders

SPEED = """case,figure,value,unit,rounds,command,cpu
small,ratio,0.25,x,9,python -m benchmarks.made --only=small,a processor
small,time,3.5,ms,9,python -m benchmarks.made --only=small,a processor
large,ratio,0.75,x,9,python -m benchmarks.made --only=large,a processor
"""


@pytest.fixture(scope='module')
def quotes(tmp_path_factory):
  """The results of two methods, one of which diverged, and of a benchmark."""
  runs = tmp_path_factory.mktemp('runs')
  for name, variant, accuracy in (
    ('a', 'rigl,density=0.1', 0.95),
    ('b', 'rigl,density=0.05', 0.9),
  ):
    folders.write(
      runs / name,
      folders.methods(variant),
      lambda _, seed, accuracy=accuracy: accuracy + (seed - 1) / 100,
    )
  config = folders.methods('set,density=0.2')
  folders.write(runs / 'c', config, lambda *_: 0.9, diverged=(1.0, 1))
  results = tmp_path_factory.mktemp('results')
  records, _ = collect.read_runs(runs)
  table = tables.TABLES['mnist_methods']
  filled, _ = fill.fill(table, gather.networks(records))
  (results / 'mnist_methods.csv').write_text(stored.to_csv(filled))
  (results / 'speed').mkdir()
  (results / 'speed/made.csv').write_text(SPEED)
  return quotes_lib.Quotes(results)


def test_a_cell_is_as_the_table_shows_it(quotes):
  assert quotes.cell('mnist_methods', 'rigl 1', '10%') == '95.00 ± 1.00'
  assert quotes.cell('mnist_methods', 'set 1', '20%') == 'diverged'
  assert '| rigl | 1 |  |  | 95.00 ± 1.00 |' in quotes.table('mnist_methods')


def test_numbers_are_in_the_unit_of_the_table(quotes):
  name, row = 'mnist_methods', 'rigl 1'
  assert quotes.mean(name, row, '10%') == pytest.approx(95)
  assert quotes.deviation(name, row, '10%') == pytest.approx(1)
  assert quotes.means(name, row, ['10%', '5%']) == pytest.approx([95, 90])
  assert quotes.lead(name, row, '10%', '5%') == pytest.approx(5)
  assert quotes.fact(name, row, '10%', 'num') == 3


def test_minutes_are_those_of_all_networks(quotes):
  # 12 seconds for three networks, in each of two runs.
  assert quotes.minutes('mnist_methods') == pytest.approx(0.4)
  assert quotes.minutes('mnist_methods', 'rigl 1', '5%') == pytest.approx(0.2)


def test_figures_of_benchmarks_have_their_command(quotes):
  assert quotes.speed('made', 'small') == 0.25
  assert quotes.speed('made', 'small', 'time') == 3.5
  assert quotes.speeds('made', ['small', 'large']) == [0.25, 0.75]
  assert quotes.setting('made', 'cpu') == 'a processor'
  assert quotes.commands('made') == (
    '`python -m benchmarks.made --only=small`, '
    '`python -m benchmarks.made --only=large`'
  )


@pytest.mark.parametrize(
  ('ask', 'message'),
  [
    (lambda q: q.cell('mnist_methods', 'rigl', '5%'), "mean 'rigl 2'?"),
    (lambda q: q.cell('mnist_methods', 'rigl 1', '6%'), "got '6%'"),
    (lambda q: q.cell('mnist_methods', 'rigl 1', '2%'), 'the cell is empty'),
    (lambda q: q.mean('mnist_methods', 'set 1', '20%'), 'the cell is diverged'),
    (lambda q: q.fact('mnist_methods', 'set 1', '20%', 'mean'), 'is unknown'),
    (lambda q: q.minutes('mnist_methods', 'rigl'), "mean 'rigl 2'?"),
    (lambda q: q.table('text'), 'text.csv, got no such file'),
    (lambda q: q.speed('made', 'smal'), "mean 'small'?"),
    (lambda q: q.speed('made', 'large', 'time'), "a figure of 'ratio'"),
    (lambda q: q.speed('other', 'a'), 'benchmarks/other.py'),
    (lambda q: q.setting('made', 'command'), 'expected figures of one command'),
  ],
)
def test_what_is_not_there_is_an_error(quotes, ask, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    ask(quotes)
