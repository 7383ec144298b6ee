"""Tables and plots of the papers, from run folders.

  python -m experiments.paper --runs=DIR --out=DIR [--table=NAME ...]
      [--stored=DIR]

Reads the run folders below `--runs` and writes, for each table with a run (or
each `--table`), the result of each seed as NAME.csv and the plots NAME_KIND.png
into `--out`. Beside the folder, OUT.md shows all tables in it and the claims
that they support or not; a text NAME.md in the folder is a remark for that
page, by hand. In training.md beside it, items that end with `<!-- CLAIM -->`
are brought up to date. Times of tables of cost are those of `python -m
benchmarks.cost --record=OUT/speed`.
Cells without runs are those of the CSV files in `--stored`; without `--runs`
all are.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys

import pandas as pd

from experiments import rundir
from experiments.paper import fill
from experiments.paper import fronts
from experiments.paper import plots
from experiments.paper import render
from experiments.paper import results as results_lib
from experiments.paper import runs as runs_lib
from experiments.paper import tables as tables_lib

USER_ERROR = 2  # exit code
GUIDE = 'training.md'  # beside the page; has findings too


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code.

  A table that cannot be filled is reported and left as it was; the others are
  written all the same.
  """
  given = _parse(arguments)
  out, code, num_written = pathlib.Path(given.out), 0, 0
  try:
    runs, left = runs_lib.read(given.runs) if given.runs else ([], [])
    stored = pathlib.Path(given.stored) if given.stored else None
    if stored and not list(stored.glob('*.csv')):
      raise ValueError(f'expected CSV files of tables in {stored}, got none')
  except (ValueError, OSError) as error:
    return _report(error)
  for path, why in left:
    _report(f'left out {path}: {why}')
  frame = runs_lib.to_frame(runs)
  for name in given.table or tables_lib.TABLES:
    table = tables_lib.TABLES[name]
    try:
      results, notes = fill.fill(table, runs, frame)
      if stored and (path := stored / f'{name}.csv').exists():
        results = fill.complete(table, results, fill.read(table, path))
    except (ValueError, OSError) as error:
      code = _report(error)
      continue
    for note in notes:
      _report(note)
    if given.table or len(results):
      _write(table, results, runs, out)
      num_written += 1
  if num_written:
    page = results_lib.page(out).encode()
    rundir.write_bytes(out.with_name(f'{out.name}.md'), page)
    if (guide := out.with_name(GUIDE)).exists():
      text = results_lib.guide(guide.read_text(), out)
      rundir.write_bytes(guide, text.encode())
  elif not code:
    _report(f'expected runs of a table, one of {", ".join(tables_lib.TABLES)}')
  return code


def _write(table, results: pd.DataFrame, runs, out: pathlib.Path):
  """Prints a table and writes its results and plots."""
  cells = fronts.add_times(table, fill.summarize(table, results), out)
  text = render.to_markdown(render.wide(table, cells), len(table.headings))
  print(f'{table.title}\n\n{text}\n')
  out.mkdir(parents=True, exist_ok=True)
  fill.write(results, out / f'{table.name}.csv')
  plots.save(plots.of_table(table, cells, results, runs), out, f'{table.name}_')


def _report(message: object) -> int:
  print(f'experiments.paper: {message}', file=sys.stderr)
  return USER_ERROR


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__)
  path = rundir.user_path
  parser.add_argument('--runs', type=path, help='folder of the runs')
  parser.add_argument('--stored', type=path, help='folder of CSV files')
  parser.add_argument(
    '--out', type=path, required=True, help='folder to write to'
  )
  parser.add_argument(
    '--table', action='append', choices=tables_lib.TABLES, default=[],
    metavar='NAME', help='repeat it for several',
  )  # fmt: skip
  given = parser.parse_args(arguments)
  if not given.runs and not given.stored:
    parser.error('expected --runs or --stored, got neither')
  return given


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
