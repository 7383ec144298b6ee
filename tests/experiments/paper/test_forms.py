"""Tables as Markdown, LaTeX and CSV."""

import pytest

from experiments.paper import collect
from experiments.paper import fill
from experiments.paper import gather
from experiments.paper import render
from experiments.paper import stored
from experiments.paper import tables
from tests.experiments.paper import folders

METHODS = tables.TABLES['mnist_methods']


@pytest.fixture(scope='module')
def filled(tmp_path_factory):
  """The table of methods with a few runs, one of which diverged."""
  runs = tmp_path_factory.mktemp('runs')
  for name, variant, accuracy in (
    ('a', 'dense,density=1', 0.98),
    ('b', 'rigl,density=0.1', 0.95),
    ('c', 'rigl,density=0.05', 0.9),
    ('d', 'topkast,density=0.1,alpha=2', 0.96),
  ):
    folders.write(
      runs / name,
      folders.methods(variant),
      lambda _, seed, accuracy=accuracy: accuracy + (seed - 1) / 100,
    )
  config = folders.methods('set,density=0.2')
  folders.write(runs / 'e', config, lambda *_: 0.9, diverged=(1.0, 1))
  records, _ = collect.read_runs(runs)
  return fill.fill(METHODS, gather.networks(records))[0]


def test_the_table_has_what_runs_reached(filled):
  lines = render.block(filled).splitlines()
  assert lines[:3] == [
    '| method | alpha | 100% | 20% | 10% | 5% | 2% |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    '| dense | 1 | 98.00 ± 1.00 |  |  |  |  |',
  ]
  assert '| rigl | 1 |  |  | 95.00 ± 1.00 | 90.00 ± 1.00 |  |' in lines
  assert '| set | 1 |  | diverged |  |  |  |' in lines
  assert '| topkast | 2 |  |  | 96.00 ± 1.00 |  |  |' in lines
  assert len(lines) == 2 + 16


def test_costs_tests_and_commands_are_beside_the_table(filled):
  text = render.markdown(filled)
  [line] = [l for l in text.splitlines() if l.startswith('| rigl | 1 | 10%')]
  assert '| 95.00 ± 1.00 | 92.52 to 97.48 | 3 | 0.1034 | 8.33e+04 |' in line
  assert '## Paired tests' not in text  # none is of the same density and alpha
  assert 'mnist_methods.py:snip,density=0.1,alpha=2 ' in text
  assert 'mnist_methods.py:rigl,density=0.1,alpha=1 ' not in text
  assert 'the loss is nan by step 2 (alpha 1, seed 1)' in text


def test_latex_has_the_same_cells(filled):
  text = render.latex(filled)
  assert r'rigl & 1 &  &  & 95.00 $\pm$ 1.00 & 90.00 $\pm$ 1.00 &  \\' in text
  assert r'method & alpha & 100\% & 20\% & 10\% & 5\% & 2\% \\' in text
  assert text.count('\\\\') == 1 + 16
  assert text.count('{') == text.count('}')


def test_a_csv_file_holds_everything(filled):
  again = stored.from_csv(METHODS, stored.to_csv(filled))
  assert again.results == filled.results
  assert render.block(again) == render.block(filled)


def test_a_csv_file_of_another_table_or_version_is_refused(filled):
  content = stored.to_csv(filled)
  with pytest.raises(ValueError, match='expected the fields'):
    stored.from_csv(tables.TABLES['mnist_pruning'], content)
  lines = content.splitlines(keepends=True)
  with pytest.raises(ValueError, match='expected the 80 cells'):
    stored.from_csv(METHODS, ''.join(lines[:-1]))
