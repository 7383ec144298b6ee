"""Tables and plots of the papers, from the folders of runs.

  python -m experiments.paper --runs=DIR --out=DIR [--stored=DIR]
      [--table=NAME ...]

Reads the folders of runs below `--runs` and writes, for each table, NAME.md,
NAME.csv, NAME.tex and its plots NAME_*.png into `--out`: the tables of
`--table`, or else all that have a run. A cell without runs is empty, and
NAME.md says the command that fills it. `--stored=DIR` in the place of `--runs`
reads the CSV files of an earlier call; with both, the cells that no run fills
are those of the files. `python -m experiments.paper.readme` shows them in the
README.
"""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import difflib
import pathlib
import sys

from matplotlib import pyplot as plt

from experiments import plots
from experiments.common import run as run_lib
from experiments.paper import collect
from experiments.paper import figures
from experiments.paper import fill
from experiments.paper import gather
from experiments.paper import render
from experiments.paper import spec
from experiments.paper import stored
from experiments.paper import tables as tables_lib

USER_ERROR = 2  # exit code

Networks = list[list[collect.Network]]  # of each cell
Fill = Callable[[spec.Table], tuple[fill.Filled, Networks]]


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code.

  A table that cannot be filled is reported and left as it was; the others are
  written all the same.
  """
  given = _parse(arguments)
  try:
    names = _check_names(given.table)
    make = _source(given.runs, given.stored)
  except (ValueError, OSError) as error:
    print(f'experiments.paper: {error}', file=sys.stderr)
    return USER_ERROR
  code, is_written = 0, False
  for name in names or tables_lib.TABLES:
    try:
      filled, networks = make(tables_lib.TABLES[name])
    except (ValueError, OSError) as error:
      print(f'experiments.paper: {error}', file=sys.stderr)
      code = USER_ERROR
      continue
    if names or any(result.status != 'empty' for result in filled.results):
      print(f'{filled.table.title}\n\n{render.block(filled)}')
      write(filled, networks, pathlib.Path(given.out))
      is_written = True
  if not is_written and not code:
    print(
      'experiments.paper: the runs are of no table; those there are: '
      + ', '.join(tables_lib.TABLES),
      file=sys.stderr,
    )
  return code


def write(filled: fill.Filled, networks: Networks, out: pathlib.Path) -> None:
  """Writes a table in every form, and its plots."""
  out.mkdir(parents=True, exist_ok=True)
  name = filled.table.name
  for suffix, content in (
    ('md', render.markdown(filled)),
    ('csv', stored.to_csv(filled)),
    ('tex', render.latex(filled)),
  ):
    run_lib.write_bytes(out / f'{name}.{suffix}', content.encode())
  with plt.rc_context(plots.STYLE):
    for kind, draw in figures.drawings(filled, networks).items():
      figure = draw()
      if figure is not None:
        figure.savefig(out / f'{name}_{kind}.png')
        plt.close(figure)


def _source(runs: str | None, directory: str | None) -> Fill:
  if not directory:
    return _from_runs(runs)
  if not runs:
    return _from_stored(directory)
  new, old = _from_runs(runs), _from_stored(directory)

  def make(table):
    filled, networks = new(table)
    return stored.complete(filled, old(table)[0]), networks

  return make


def _from_runs(directory: str) -> Fill:
  records, left = collect.read_runs(directory)
  networks = gather.networks(records)
  notes = tuple(f'Left out: {path}: {why}' for path, why in left)
  for note in notes:
    print(f'experiments.paper: {note}', file=sys.stderr)

  def make(table):
    filled, chosen = fill.fill(table, networks)
    return filled._replace(notes=filled.notes + notes), chosen

  return make


def _from_stored(directory: str) -> Fill:
  folder = pathlib.Path(directory)
  if not list(folder.glob('*.csv')):
    raise ValueError(f'expected NAME.csv of tables in {folder}, got none')

  def make(table):
    path = folder / f'{table.name}.csv'
    if not path.exists():
      return fill.fill(table, [])
    filled = stored.from_csv(table, path.read_text())
    return filled, [[] for _ in filled.results]

  return make


def _check_names(names: Sequence[str]) -> list[str]:
  for name in names:
    if name not in tables_lib.TABLES:
      close = difflib.get_close_matches(name, list(tables_lib.TABLES), n=1)
      raise ValueError(
        f'expected --table, one of {", ".join(tables_lib.TABLES)}, got {name!r}'
        + (f'; did you mean {close[0]!r}?' if close else '')
      )
  return list(names)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    'python -m experiments.paper',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--runs', help='folder of the runs')
  parser.add_argument('--stored', help='folder of CSV files')
  parser.add_argument('--out', required=True, help='folder to write to')
  parser.add_argument(
    '--table', action='append', default=[], help='which; may be repeated'
  )
  given = parser.parse_args(arguments)
  if not given.runs and not given.stored:
    parser.error('expected --runs or --stored, got neither')
  return given


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
