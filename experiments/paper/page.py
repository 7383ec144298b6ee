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
import math
import pathlib
import sys
from typing import Any

import jinja2
from matplotlib import pyplot as plt
import numpy as np
import pandas as pd

from experiments import rundir
from experiments.paper import costs
from experiments.paper import curves
from experiments.paper import fill
from experiments.paper import plots
from experiments.paper import render
from experiments.paper import runs as runs_lib
from experiments.paper import sweep as sweep_lib
from experiments.paper import table as table_lib
from experiments.paper import tables as tables_lib

USER_ERROR = 2  # exit code
FILES = pathlib.Path(__file__).parent / 'page'
METRICS = (
  'accuracy', 'bits_per_character', 'perplexity', 'average_accuracy',
  'forgetting',
)  # fmt: skip
_FACTS = (
  'data', 'model', 'method', 'strategy', 'density', 'backward_density',
  'distribution', 'num_tasks', 'num_steps',
)  # fmt: skip
MAX_KEYS = 6  # columns of differing config values
STYLE = {
  **plots.STYLE,
  'axes.facecolor': 'none',
  'figure.facecolor': 'none',
  'font.size': 9,
  'legend.facecolor': 'none',
  'savefig.facecolor': 'none',
  'svg.fonttype': 'none',
}
_STATUSES = (
  'unreadable', 'failed', 'diverged', 'interrupted', 'running', 'waiting',
  'done',
)  # fmt: skip

Cell = dict[str, Any]  # `text`, `value` (sorts; '' is last), and its form


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
    title = f'Sweep {sweep.plan["sweep"]}'
    subtitle += f' of {sweep.plan["config"]}'
  notes = list(sweep.notes)
  return environment.get_template('page.html').render(
    title=title,
    subtitle=subtitle,
    counts={status: statuses.count(status) for status in sorted({*statuses})},
    rerun=sweep_lib.whole(sweep),
    runs_table=_runs_table(sweep, groups, frame),
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


def _tables(runs, frame: pd.DataFrame, notes: list[str]) -> list[Cell]:
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


def _table(table: table_lib.Table, results: pd.DataFrame, runs) -> Cell:
  cells = fill.summarize(table, results)
  frame = render.wide(table, cells)
  num_labels, num_columns = len(table.headings), len(table.columns)
  means = cells['mean'].to_numpy().reshape(-1, num_columns)
  rows = []
  for texts, values in zip(frame.to_numpy(), means, strict=True):
    shown = [_word(text) for text in texts]
    for i, value in enumerate(values, num_labels):
      shown[i] = _number(value, texts[i])
    rows.append(shown)
  drawn = {
    kind: image(draw)
    for kind, draw in plots.of_table(table, cells, results, runs).items()
  }
  return {
    'title': table.title,
    'name': table.name.replace('_', ' '),
    'headings': _headings(list(frame), num_labels),
    'rows': rows,
    'plots': [
      {'kind': kind, 'image': drawn[kind], 'caption': caption}
      for kind, caption in render.PLOTS.items()
      if drawn.get(kind)
    ],
  }


def _own_table(frame: pd.DataFrame) -> table_lib.Table:
  """Returns a table of runs that belong to no other."""
  metric = next((m for m in METRICS if m in frame), 'loss')
  keys = frame[['group', 'alpha']].drop_duplicates().to_dict('records')
  rows = tuple(
    table_lib.Row((key['group'], f'{key["alpha"]:g}'), key) for key in keys
  )
  return table_lib.Table(
    'own', 'All runs that have ended', ('run', 'alpha'), {'share': None}, rows,
    (table_lib.Column(metric.replace('_', ' '), {}, metric),),
    command='see the details of the run', sweeps=(),
    varies=('',),  # they need not be alike
    across=('',), lines='columns',
  )  # fmt: skip


def _runs_table(sweep, groups, frame: pd.DataFrame) -> Cell:
  """Returns the table of all runs, a row for the seeds of one network."""
  columns = _varying(sweep, groups)
  known = [m for m in METRICS if m in frame and frame[m].notna().any()]
  rows = []
  for i, (name, own) in enumerate(groups.items()):
    config = next((seen.config for seen in own if seen.config), None)
    trained = frame[(frame.group == name)] if len(frame) else frame
    if 'share' in trained:
      trained = trained[trained.share.isna() & (trained.status == 'done')]
    cost = _costs(own)
    seconds = [s.run.summary.get('wall_time_s') for s in own if s.run]
    rows.append(
      [
        {**_word(name), 'link': f'run-{i}'},
        _status(own),
        *(_word(values[i]) for values in columns.values()),
        _number(config and config['powerprop']['alpha'], form='g'),
        *(_metric(trained, metric) for metric in known),
        _number(len(trained), form='d'),
        _number(cost.get('train_share'), form='.3f'),
        _number(cost.get('inference_share'), form='.3f'),
        _number(cost.get('num_bytes'), form=',.0f'),
        _number(sum(filter(None, seconds)) or None, form='.0f'),
        {**_word(''), 'points': _spark(own)},
      ]
    )
  words = ['run', 'status', *(k.removeprefix('method.') for k in columns)]
  numbers = [render.LABELS.get(m, m.replace('_', ' ')) for m in known]
  last = ['training / dense', 'inference / dense', 'bytes', 'seconds', 'loss']
  headings = [*words, 'alpha', *numbers, 'seeds', *last]
  return {'headings': _headings(headings, len(words)), 'rows': rows}


def _varying(sweep, groups) -> dict[str, list[str]]:
  """Returns the differing facts and config values of each group, by key."""
  rows = []
  for own in groups.values():
    config = next((seen.config for seen in own if seen.config), None)
    flat = pd.json_normalize(config).iloc[0].to_dict() if config else {}
    facts = runs_lib.facts(config) if config else {}
    rows.append({**facts, **flat})
  chosen = dict.fromkeys(
    key
    for run in (sweep.plan or {'runs': ()})['runs']
    for key in run['overrides']
  )
  # The facts say how variants differ.
  if not chosen or 'config' in chosen:
    everywhere = [
      key for key in sorted(set().union(*rows))
      if '.' in key and not key.endswith('.name')
      and all(key in row for row in rows if row)
    ]  # fmt: skip
    chosen = dict.fromkeys([*_FACTS, *chosen, *everywhere])
  columns = {
    key: ['' if row.get(key) is None else str(row[key]) for row in rows]
    for key in chosen
    if key not in (*sweep_lib.NETWORK, 'data.data_dir')
  }
  worth = [key for key, values in columns.items() if len({*values}) > 1]
  return {key: columns[key] for key in worth[:MAX_KEYS]}


def _details(sweep, i: int, name: str, own: Sequence[sweep_lib.Seen]) -> Cell:
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
    'status': _status(own),
    'curve': image(lambda: curves.draw_progress(lines)),
    'differences': sweep_lib.differences(sweep, shown),
    'config': json.dumps(config, indent=2) if config else '',
    'runs': [
      {
        'path': str(seen.path),
        'status': _status([seen]),
        'message': seen.message,
        'facts': _facts(seen),
        'command': sweep_lib.command(sweep, seen),
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


def _costs(own: Sequence[sweep_lib.Seen]) -> dict[str, float]:
  run = next((seen.run for seen in own if seen.run), None)
  try:
    return costs.of_network(run.config) if run else {}
  except ValueError:
    return {}  # a note of the table says so


def _spark(own: Sequence[sweep_lib.Seen]) -> str:
  """Returns the points of a polyline: the logarithm of the training loss."""
  rows = next((seen.rows for seen in own if seen.rows), ())
  losses = [
    row.get('loss', math.nan) for row in rows if row['split'] == 'train'
  ]
  y = np.log([max(loss, 1e-9) for loss in losses if math.isfinite(loss)])
  if len(y) < 2:
    return ''
  x, y = np.linspace(0, 100, len(y)), y - y.min()
  y = 19 - 18 * y / (y.max() or 1)
  return ' '.join(f'{a:.4g},{b:.4g}' for a, b in zip(x, y, strict=True))


def _status(own: Sequence[sweep_lib.Seen]) -> Cell:
  """Returns the worst status of seeds, with progress or their number."""
  worst = min((seen.status for seen in own), key=_STATUSES.index)
  number = sum(seen.status == worst for seen in own)
  progress = [s.progress for s in own if s.status == worst and s.progress]
  text = worst + (f' {100 * np.mean(progress):.0f}%' if progress else '')
  if number < len(own):
    text += f', {number} of {len(own)}'
  return {**_word(text), 'status': worst}


def _metric(trained: pd.DataFrame, metric: str) -> Cell:
  values = trained[metric].dropna()
  return _number(
    values.mean(), render.text(metric, values.mean(), values.std())
  )


def _number(
  value: float | None, text: str | None = None, form: str = ''
) -> Cell:
  is_known = value is not None and not math.isnan(value)
  if text is None:
    text = f'{value:{form}}' if is_known else ''
  return {'text': text, 'value': repr(float(value)) if is_known else ''}


def _word(text: str) -> Cell:
  return {'text': text, 'value': text, 'is_word': True}


def _headings(texts: Sequence[str], num_words: int) -> list[Cell]:
  return [
    {'text': text.replace('_', ' '), 'is_word': i < num_words}
    for i, text in enumerate(texts)
  ]


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
