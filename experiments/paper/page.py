"""A page on all runs of a sweep: tables that sort and filter, plots, each run.

  python -m experiments.paper.page --runs=DIR --out=FILE.html

Reads the folder of a sweep, or any folder with runs below, and writes one HTML
file that needs no other file and no network.
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import pathlib
import sys
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pandas as pd

from experiments import rundir
from experiments.paper import costs
from experiments.paper import fill
from experiments.paper import lines as lines_lib
from experiments.paper import plots
from experiments.paper import render
from experiments.paper import runs as runs_lib
from experiments.paper import sweep as sweep_lib
from experiments.paper import table as table_lib
from experiments.paper import tables as tables_lib
from experiments.sweep import status as status_lib

USER_ERROR = 2  # exit code
FILES = pathlib.Path(__file__).parent / 'page'
_FACTS = (
  'data', 'model', 'method', 'strategy', 'density', 'backward_density',
  'distribution', 'num_tasks', 'num_steps',
)  # fmt: skip
_STATUSES = (  # worst first
  'unreadable', 'failed', 'diverged', 'interrupted', 'running', 'waiting',
  'done',
)  # fmt: skip
_COSTS = {
  'train_share': ('training / dense', '{:.3f}'),
  'inference_share': ('inference / dense', '{:.3f}'),
  'num_bytes': ('bytes', '{:,.0f}'),
}
_SPARK = markupsafe.Markup(
  '<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" '
  'role="img" aria-label="training loss"><polyline points="{}"/></svg>'
)

Groups = dict[str, list[runs_lib.Run]]  # the seeds of each network


def make_page(sweep: sweep_lib.Sweep) -> str:
  """Returns the page, as HTML."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FILES), autoescape=True
  )
  groups: Groups = {}
  ended = {}
  for name, run in sweep.runs.items():
    groups.setdefault(sweep_lib.group_of(name), []).append(run)
    if run.state.status in status_lib.ENDED:
      ended[name] = run
  runs, names = list(ended.values()), list(map(sweep_lib.group_of, ended))
  frame = runs_lib.to_frame(runs)
  if len(frame):
    frame = frame.assign(group=[names[i] for i in frame.run])
  statuses = pd.Series([run.state.status for run in sweep.runs.values()])
  title, of = f'Runs in {sweep.path.resolve().name}', ''
  if sweep.plan is not None:
    title = f'Sweep {sweep.plan["sweep"]}'.strip()
    of = f' of {sweep.plan["config"]}'
  notes, table = list(sweep.notes), _runs_table(sweep, groups, frame)
  return environment.get_template('page.html').render(
    title=title,
    subtitle=f'{len(sweep.runs)} runs{of}',
    counts=statuses.value_counts(sort=False).to_dict(),
    rerun=sweep_lib.whole(sweep),
    runs_table=table,
    tables=_tables(runs, frame, notes),
    notes=notes,
    difference_title=sweep.base_name,
    groups=[_details(sweep, *group) for group in groups.items()],
  )


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--runs', type=rundir.user_path, required=True, help='folder of the sweep'
  )
  parser.add_argument('--out', required=True, help='file to write')
  given = parser.parse_args(arguments)
  try:
    out = rundir.out_file(given.out)
    sweep = sweep_lib.read(given.runs)
    content = make_page(sweep).encode()
    rundir.write_bytes(out, content)
  except (ValueError, OSError) as error:
    print(f'experiments.paper.page: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'Written to {out}: {len(sweep.runs)} runs')
  return 0


def _runs_table(
  sweep: sweep_lib.Sweep, groups: Groups, frame: pd.DataFrame
) -> tuple[int, pd.DataFrame]:
  """Returns the number of word columns, and a row of texts for each group."""
  words = _varying(sweep, groups)
  known = [m for m in render.LABELS if m in frame and frame[m].notna().any()]
  rows = []
  for name, own in groups.items():
    trained = frame[:0]
    if len(frame):
      trained = frame[(frame.group == name) & (frame.status == 'done')]
      trained = trained[trained.share.isna()]
    link = markupsafe.Markup('<a href="#{0}">{0}</a>').format(name)
    alphas = [run.config['powerprop']['alpha'] for run in own if run.config]
    numbers = {'alpha': f'{alphas[0]:g}' if alphas else ''}
    for m in known:
      text = render.text(m, trained[m].mean(), trained[m].std())
      numbers[render.LABELS[m]] = text
    numbers['seeds'], cost = len(trained), {}
    with contextlib.suppress(StopIteration, ValueError):  # unknown costs
      cost = costs.of_network(next(
        run.config for run in own if run.state.status in status_lib.ENDED
      ))  # fmt: skip
    for key, (heading, form) in _COSTS.items():
      numbers[heading] = form.format(cost[key]) if key in cost else ''
    seconds = trained.seconds.sum() if len(trained) else 0
    numbers |= {'seconds': f'{seconds:.0f}', 'loss': _spark(own)}
    state = {'run': link, 'status': status([run.state for run in own])}
    rows.append({**state, **words.loc[name], **numbers})
  return 2 + words.shape[1], pd.DataFrame(rows, dtype=object)


def _varying(sweep: sweep_lib.Sweep, groups: Groups) -> pd.DataFrame:
  """Returns the facts and overrides that differ among groups, as texts."""
  rows = {}
  for name, own in groups.items():
    config = next((run.config for run in own if run.config), None)
    known = runs_lib.flatten([config]).iloc[0].to_dict() if config else {}
    rows[name] = (table_lib.facts(config) if config else {}) | known
  plan = sweep.plan or {'runs': ()}
  keys = [key for run in plan['runs'] for key in run['overrides']]
  texts = pd.DataFrame(
    {
      key: [str(row.get(key, '')) for row in rows.values()]
      for key in dict.fromkeys([*_FACTS, *keys])
      if key not in sweep_lib.NETWORK
    },
    index=list(rows),
  )
  return texts.loc[:, texts.replace('', None).nunique() > 1]


def _spark(own: Sequence[runs_lib.Run]) -> str:
  """Returns a small curve of the logarithm of the training loss."""
  run = next((run for run in own if run.rows), own[0])
  losses = [row.get('loss', np.nan) for row in runs_lib.of_split(run, 'train')]
  y = np.log(np.clip([x for x in losses if np.isfinite(x)], 1e-9, None))
  if len(y) < 2:
    return ''
  x, y = np.linspace(0, 100, len(y)), y - y.min()
  y = 19 - 18 * y / (y.max() or 1)
  points = (f'{a:.4g},{b:.4g}' for a, b in zip(x, y, strict=True))
  return _SPARK.format(' '.join(points))


def status(states: Sequence[Any]) -> markupsafe.Markup:
  """Returns the worst status of seeds, with progress or their number."""
  worst = min((one.status for one in states), key=_STATUSES.index)
  own = [one for one in states if one.status == worst]
  shares = [one.step / one.total_steps for one in own if one.total_steps]
  text = worst
  if shares and worst in ('running', 'interrupted', 'failed'):
    text += f' {100 * np.mean(shares):.0f}%'
  if len(own) < len(states):
    text += f', {len(own)} of {len(states)}'
  badge = markupsafe.Markup('<span class="status {}">{}</span>')
  return badge.format(worst, text)


def _tables(
  runs: Sequence[runs_lib.Run], frame: pd.DataFrame, notes: list[str]
) -> list[dict[str, Any]]:
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
  shown = []
  for table, results in found:
    cells = fill.summarize(table, results)
    drawn = plots.of_table(table, cells, results, runs)
    images = [
      (kind, lines_lib.to_uri(drawn[kind]), caption)
      for kind, caption in render.PLOTS.items()
      if kind in drawn
    ]
    frame = render.wide(table, cells)
    shown.append({'table': table, 'frame': frame, 'plots': images})
  return shown


def _own_table(frame: pd.DataFrame) -> table_lib.Table:
  """Returns a table of runs that belong to no other."""
  known = ('accuracy', 'bits_per_character', 'perplexity', 'average_accuracy')
  metric = next((m for m in known if m in frame), 'loss')
  keys = frame[['group', 'alpha']].drop_duplicates().to_dict('records')
  rows = [table_lib.Row((k['group'], f'{k["alpha"]:g}'), k) for k in keys]
  return table_lib.Table(
    'own', 'All runs that have ended', ('network', 'alpha'), {'share': None},
    tuple(rows), (table_lib.Column(metric.replace('_', ' '), {}, metric),), (),
    varies=('',), across=('',),  # they need not be alike
    lines='columns',
  )  # fmt: skip


def _details(
  sweep: sweep_lib.Sweep, name: str, own: Sequence[runs_lib.Run]
) -> dict[str, Any]:
  lines = [lines_lib.Line('', one.path.name, one) for one in own if one.config]
  shown = next((one for one in own if one.config), own[0])
  return {
    'name': name,
    'status': status([one.state for one in own]),
    'curve': lines_lib.to_uri(lambda: plots.draw_progress(lines)),
    'differences': sweep_lib.differences(sweep, shown),
    'config': json.dumps(shown.config, indent=2) if shown.config else '',
    'runs': [
      {
        'path': str(one.path),
        'status': status([one.state]),
        'message': one.state.message,
        'facts': _facts(one.summary),
        'command': sweep.commands.get(one.path, ''),
      }
      for one in own
    ],
  }


def _facts(summary: Mapping[str, Any]) -> str:
  """Returns a line on how long and on which device a run was trained."""
  device, found = summary.get('device') or {}, summary.get('versions') or {}
  found = [f'{name} {version}' for name, version in found.items() if version]
  if device:
    found.insert(0, f'{device.get("count")} x {device.get("kind")}')
  if summary.get('wall_time_s'):
    found.insert(0, f'{summary["wall_time_s"]:.0f} s of training')
  return ', '.join(found)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
