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
import re
import shlex
import sys
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pandas as pd

from experiments import flops
from experiments import rundir
from experiments.paper import fill
from experiments.paper import lines as lines_lib
from experiments.paper import plots
from experiments.paper import render
from experiments.paper import results as results_lib
from experiments.paper import runs as runs_lib
from experiments.paper import table as table_lib
from experiments.paper import tables as tables_lib
from experiments.sweep import points
from experiments.sweep import status as status_lib

USER_ERROR = 2  # exit code
FILES = pathlib.Path(__file__).parent / 'page'
_FACTS = (
  'data', 'model', 'method', 'strategy', 'alpha', 'density', 'backward_density',
  'distribution', 'num_tasks', 'num_steps',
)  # fmt: skip

Groups = dict[str, list[runs_lib.Run]]  # the seeds of each network


def make_page(folder: pathlib.Path) -> str:
  """Returns the page on the runs below a folder, as HTML.

  `sweep.json` of a sweep has the runs that wait, and the commands.
  """
  plans = {file.parent: _read_plan(file) for file in folder.rglob(points.FILE)}
  commands = {
    place / run['name']: _command(place / run['name'], *run['arguments'])
    for place, plan in plans.items()
    for run in plan['runs']
  }
  configs = sorted(file.parent for file in folder.rglob('config.json'))
  found = [runs_lib.read_run(p) for p in dict.fromkeys([*commands, *configs])]
  if not found:
    raise ValueError(
      f'expected {points.FILE} or run folders in {folder}, got neither'
    )
  groups: Groups = {}
  for run in found:
    groups.setdefault(_group_of(run.path, folder), []).append(run)
  runs = [run for run in found if run.state.status in status_lib.ENDED]
  frame, notes = runs_lib.to_frame(runs), []
  if len(frame):
    frame['group'] = [_group_of(runs[i].path, folder) for i in frame.run]
  title, rerun = f'Runs in {folder.resolve().name}', ''
  if plan := plans.get(folder):
    title = f'Runs of {plan["config"]} {plan["sweep"]}'
    sweep = [f'--sweep={plan["sweep"]}'] if plan['sweep'] else []
    words = [f'--config={plan["config"]}', *sweep, *plan['shared']]
    rerun = _command(folder, *words)
  statuses = pd.Series([run.state.status for run in found])
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FILES), autoescape=True
  )
  return environment.get_template('page.html').render(
    title=title,
    counts=statuses.value_counts(sort=False).to_dict(),
    rerun=rerun,
    runs_table=_runs_table(groups, frame, _varying(groups)),
    tables=_tables(runs, frame, notes),
    notes=notes,
    groups=[_details(*group, commands) for group in groups.items()],
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
    rundir.write_bytes(out, make_page(given.runs).encode())
  except (ValueError, OSError) as error:
    print(f'experiments.paper.page: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'Written to {out}')
  return 0


def _read_plan(file: pathlib.Path) -> dict[str, Any]:
  plan = rundir.read_json(file)
  try:
    is_fine = all({*run} >= {'name', 'arguments'} for run in plan['runs'])
    is_fine = is_fine and {*plan} >= {'config', 'sweep', 'shared'}
  except (KeyError, TypeError):
    is_fine = False
  if not is_fine:
    raise ValueError(f'expected the plan of a sweep in {file}: {plan!r:.200}')
  return plan


def _command(workdir: pathlib.Path, *arguments: str) -> str:
  words = ['python', 'launch.py', *arguments, f'--workdir={workdir}']
  return shlex.join(words)


def _group_of(path: pathlib.Path, folder: pathlib.Path) -> str:
  """Returns the name that the seeds of a network share."""
  name = (
    str(path.relative_to(folder)) if path != folder else path.resolve().name
  )
  return re.sub(r',?seed=\d+$', '', str(name)) or str(name)


def _runs_table(
  groups: Groups, frame: pd.DataFrame, words: pd.DataFrame
) -> tuple[int, pd.DataFrame]:
  """Returns the number of word columns, and a row of texts for each group."""
  done = frame
  if len(frame):
    done = frame[(frame.status == 'done') & frame.share.isna()]
  known = [m for m in render.LABELS if m in done and done[m].notna().any()]
  rows = []
  for name, own in groups.items():
    trained = done[done.group == name] if len(done) else done
    link = markupsafe.Markup('<a href="#{0}">{0}</a>').format(name)
    state = {'run': link, 'status': status([run.state for run in own])}
    numbers = {
      render.LABELS[m]: render.text(m, trained[m].mean(), trained[m].std())
      for m in known
    }
    ended = [run for run in own if run.state.status in status_lib.ENDED]
    cost = {}
    with contextlib.suppress(ValueError):  # unknown costs
      cost = flops.costs(ended[0].config) if ended else {}
    for key in ('train_share', 'inference_share', 'num_bytes'):
      heading, form = render.COSTS[key]
      numbers[heading] = form.format(cost[key]) if key in cost else ''
    seconds = trained.seconds.sum() if len(trained) else 0
    numbers |= {'seeds': len(trained), 'seconds': f'{seconds:.0f}'}
    rows.append({**state, **words.loc[name], **numbers})
  return 2 + words.shape[1], pd.DataFrame(rows, dtype=object)


def _varying(groups: Groups) -> pd.DataFrame:
  """Returns the facts that differ among groups, as texts."""
  facts = {
    name: next((table_lib.facts(run.config) for run in own if run.config), {})
    for name, own in groups.items()
  }
  texts = pd.DataFrame(
    [[str(own.get(fact, '')) for fact in _FACTS] for own in facts.values()],
    index=list(groups),
    columns=_FACTS,
  )
  return texts.loc[:, texts.replace('', None).nunique() > 1]


def status(states: Sequence[Any]) -> markupsafe.Markup:
  """Returns the worst status of seeds, with progress or their number."""
  worst = min((one.status for one in states), key=status_lib.ORDER.index)
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
  """Returns the tables that the runs belong to, and appends notes."""
  shown = []
  for table in tables_lib.TABLES.values():
    try:
      results, more = fill.fill(table, runs, frame)
    except ValueError as error:
      notes.append(str(error))
      continue
    notes += more
    if results.empty:
      continue
    cells = fill.summarize(table, results)
    drawn = plots.of_table(table, cells, results, runs)
    images = [
      (kind, lines_lib.to_uri(drawn[kind]), caption)
      for kind, caption in results_lib.PLOTS.items()
      if kind in drawn
    ]
    texts = render.wide(table, cells)
    shown.append({'table': table, 'frame': texts, 'plots': images})
  return shown


def _details(
  name: str,
  own: Sequence[runs_lib.Run],
  commands: Mapping[pathlib.Path, str],
) -> dict[str, Any]:
  lines = [lines_lib.Line('', one.path.name, one) for one in own if one.config]
  config = lines[0].run.config if lines else {}
  return {
    'name': name,
    'status': status([one.state for one in own]),
    'curve': lines_lib.to_uri(lambda: plots.draw_progress(lines)),
    'config': json.dumps(config, indent=2) if config else '',
    'runs': [
      {
        'path': str(one.path),
        'status': status([one.state]),
        'message': one.state.message,
        'command': commands.get(one.path, ''),
      }
      for one in own
    ],
  }


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
