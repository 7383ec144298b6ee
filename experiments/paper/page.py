"""A page on all runs of a sweep: tables that sort and filter, plots, each run.

  python -m experiments.paper.page --runs=DIR --out=FILE.html

Reads the folder of a sweep, or any folder with runs below, and writes one HTML
file that needs no other file and no network.
"""

import argparse
import base64
from collections.abc import Callable
from collections.abc import Sequence
import io
import json
import pathlib
import sys
from typing import Any

import jinja2
from matplotlib import pyplot as plt
import pandas as pd

from experiments import rundir
from experiments.paper import curves
from experiments.paper import fill
from experiments.paper import grids
from experiments.paper import plots
from experiments.paper import render
from experiments.paper import runs as runs_lib
from experiments.paper import sweep as sweep_lib
from experiments.paper import table as table_lib
from experiments.paper import tables as tables_lib

USER_ERROR = 2  # exit code
FILES = pathlib.Path(__file__).parent / 'page'
STYLE = {
  **plots.STYLE,
  'axes.facecolor': 'none',
  'figure.facecolor': 'none',
  'font.size': 9,
  'legend.facecolor': 'none',
  'savefig.facecolor': 'none',
  'svg.fonttype': 'none',
}


def make_page(sweep: sweep_lib.Sweep) -> str:
  """Returns the page, as HTML."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FILES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  runs = [seen.run for seen in sweep.seen if seen.run]
  frame = runs_lib.to_frame(runs)
  groups: dict[str, list[sweep_lib.Seen]] = {}
  for seen in sweep.seen:
    groups.setdefault(sweep_lib.group_of(seen), []).append(seen)
  frame['group'] = [_group_of(groups, runs[i]) for i in frame.get('run', ())]
  statuses = [seen.status for seen in sweep.seen]
  title = f'Runs in {sweep.path.resolve().name}'
  subtitle = f'{len(sweep.seen)} runs'
  if sweep.plan is not None:
    title = f'Sweep {sweep.plan["sweep"]}'.strip()
    subtitle += f' of {sweep.plan["config"]}'
  notes = list(sweep.notes)
  return environment.get_template('page.html').render(
    title=title,
    subtitle=subtitle,
    counts={status: statuses.count(status) for status in sorted({*statuses})},
    rerun=sweep_lib.whole(sweep),
    runs_table=grids.runs_table(sweep, groups, frame),
    tables=_tables(runs, frame, notes),
    notes=notes,
    difference_title=sweep.base_name,
    groups=[_details(sweep, i, *item) for i, item in enumerate(groups.items())],
  )


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code."""
  parser = argparse.ArgumentParser(
    'python -m experiments.paper.page',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--runs', required=True, help='folder of the sweep')
  parser.add_argument('--out', required=True, help='file to write')
  given = parser.parse_args(arguments)
  out = pathlib.Path(given.out)
  try:
    sweep = sweep_lib.read(given.runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_bytes(out, make_page(sweep).encode())
  except (ValueError, OSError) as error:
    print(f'experiments.paper.page: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'Written to {out}: {len(sweep.seen)} runs')
  return 0


def image(draw: Callable[[], Any]) -> str:
  """Returns a figure as the URI of an SVG image; '' if `draw` returns None."""
  with plt.rc_context(STYLE):
    figure = draw()
    if figure is None:
      return ''
    file = io.BytesIO()
    figure.savefig(file, format='svg', metadata={'Date': None})
    plt.close(figure)
  data = base64.b64encode(file.getvalue()).decode()
  return f'data:image/svg+xml;base64,{data}'


def _group_of(groups, run: runs_lib.Run) -> str:
  return next(
    name
    for name, own in groups.items()
    if any(seen.path == run.path for seen in own)
  )


def _tables(runs, frame: pd.DataFrame, notes: list[str]) -> list[grids.Cell]:
  """Returns the tables that the runs belong to, or else one of their own."""
  found = []
  for table in tables_lib.TABLES.values():
    try:
      results, more = fill.fill(table, runs, frame)
    except ValueError as error:
      notes.append(str(error))
      continue
    notes += more
    if len(results):
      found.append((table, results))
  if not found and len(frame):
    table = _own_table(frame)
    found = [(table, fill.fill(table, runs, frame)[0])]
  return [_table(table, results, runs) for table, results in found]


def _table(table: table_lib.Table, results: pd.DataFrame, runs) -> grids.Cell:
  cells = fill.summarize(table, results)
  frame = render.wide(table, cells)
  num_labels, num_columns = len(table.headings), len(table.columns)
  means = cells['mean'].to_numpy().reshape(-1, num_columns)
  rows = []
  for texts, values in zip(frame.to_numpy(), means, strict=True):
    shown = [grids.word(text) for text in texts]
    for i, value in enumerate(values, num_labels):
      shown[i] = grids.number(value, texts[i])
    rows.append(shown)
  drawn = {
    kind: image(draw)
    for kind, draw in plots.of_table(table, cells, results, runs).items()
  }
  return {
    'title': table.title,
    'name': table.name.replace('_', ' '),
    'headings': grids.headings(list(frame), num_labels),
    'rows': rows,
    'plots': [
      {'kind': kind, 'image': drawn[kind], 'caption': caption}
      for kind, caption in render.PLOTS.items()
      if drawn.get(kind)
    ],
  }


def _own_table(frame: pd.DataFrame) -> table_lib.Table:
  """Returns a table of runs that belong to no other."""
  metric = next((m for m in grids.METRICS if m in frame), 'loss')
  keys = frame[['group', 'alpha']].drop_duplicates().to_dict('records')
  rows = tuple(
    table_lib.Row((key['group'], f'{key["alpha"]:g}'), key) for key in keys
  )
  return table_lib.Table(
    'own', 'All runs that have ended', ('network', 'alpha'), {'share': None},
    rows,
    (table_lib.Column(metric.replace('_', ' '), {}, metric),),
    command='see the details of the run', sweeps=(),
    varies=('',),  # they need not be alike
    across=('',), lines='columns',
  )  # fmt: skip


def _details(
  sweep, i: int, name: str, own: Sequence[sweep_lib.Seen]
) -> grids.Cell:
  lines = [
    curves.Line('', seen.name, runs_lib.Run(
      seen.path, seen.config, seen.status, '', {}, list(seen.rows)
    ))
    for seen in own if seen.config
  ]  # fmt: skip
  config = next((seen.config for seen in own if seen.config), None)
  shown = next((seen for seen in own if seen.config), own[0])
  return {
    'id': f'run-{i}',
    'name': name,
    'status': grids.status(own),
    'curve': image(lambda: curves.draw_progress(lines)),
    'differences': sweep_lib.differences(sweep, shown),
    'config': json.dumps(config, indent=2) if config else '',
    'runs': [
      {
        'path': str(seen.path),
        'status': grids.status([seen]),
        'message': seen.message,
        'facts': _facts(seen),
        'command': sweep.commands.get(seen.path, ''),
      }
      for seen in own
    ],
  }


def _facts(seen: sweep_lib.Seen) -> str:
  """Returns a line on how long and on which device a run was trained."""
  summary = seen.run.summary if seen.run else {}
  found, device = [], summary.get('device') or {}
  if summary.get('wall_time_s'):
    found.append(f'{summary["wall_time_s"]:.0f} s of training')
  if device:
    found.append(f'{device.get("count")} x {device.get("kind")}')
  versions = summary.get('versions') or {}
  return ', '.join([*found, *(f'{k} {v}' for k, v in versions.items() if v)])


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
