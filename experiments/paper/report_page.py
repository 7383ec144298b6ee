"""A page on all runs of a sweep: tables that sort, plots, each run.

  python -m experiments.paper.report_page --runs=DIR --out=FILE

Reads the folder of a sweep, or any folder with runs below, and writes one HTML
file that needs nothing else: no network and no other file.
"""

import argparse
from collections.abc import Sequence
import json
import math
import pathlib
import sys
from typing import Any

import jinja2
import markupsafe
from matplotlib import pyplot as plt

from experiments import plots
from experiments import results
from experiments.common import run as run_lib
from experiments.paper import collect
from experiments.paper import costing
from experiments.paper import figures
from experiments.paper import fill
from experiments.paper import gather
from experiments.paper import grids
from experiments.paper import overview
from experiments.paper import spec
from experiments.paper import svg
from experiments.paper import tables as tables_lib

USER_ERROR = 2  # exit code
PAGE = pathlib.Path(__file__).parent / 'page'
CAPTIONS = {
  'density': 'Mean and deviation over seeds, against the weights that remain.',
  'flops': 'Against the FLOPs of training; in grey the Pareto front.',
  'tasks': 'Accuracy on the tasks so far, and whose the weights are.',
  'training': 'Training loss, means over seeds.',
  'masks': 'Share of the weights seen that left the set since the row before.',
  'histograms': 'Weights after training.',
  'overlap': 'Masks before and after training.',
}


def make_page(sweep: overview.Sweep) -> str:
  """Returns the page, as HTML."""
  networks = gather.networks([s.record for s in sweep.runs if s.record])
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PAGE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  statuses = [seen.status for seen in sweep.runs]
  notes = list(sweep.notes)
  title = f'Runs in {sweep.path.resolve().name}'
  subtitle = f'{len(sweep.runs)} runs'
  if sweep.plan is not None:
    title = f'Sweep {sweep.plan["sweep"]}'
    subtitle += f' of {sweep.plan["config"]}'
  tables = _tables(networks, notes)
  return environment.get_template('report.html').render(
    title=title,
    subtitle=subtitle,
    counts={status: statuses.count(status) for status in sorted({*statuses})},
    rerun=overview.of_sweep(sweep),
    runs_table=grids.of_runs(sweep, networks),
    tables=tables,
    notes=notes,
    difference_title=sweep.base_name,
    runs=[_run(sweep, i, seen) for i, seen in enumerate(sweep.runs)],
    footer='Made by python -m experiments.paper.report_page',
  )


def write(sweep: overview.Sweep, path: pathlib.Path) -> None:
  """Writes the page of a sweep, whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  run_lib.write_bytes(path, make_page(sweep).encode())


def main(arguments: Sequence[str]) -> int:
  """Runs the command, and returns the exit code."""
  parser = argparse.ArgumentParser(
    'python -m experiments.paper.report_page',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--runs', required=True, help='folder of the sweep')
  parser.add_argument('--out', required=True, help='file to write')
  given = parser.parse_args(arguments)
  try:
    sweep = overview.read_sweep(given.runs)
    write(sweep, pathlib.Path(given.out))
  except (ValueError, OSError) as error:
    print(f'experiments.paper.report_page: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'Written to {given.out}: {len(sweep.runs)} runs')
  return 0


def _tables(
  networks: Sequence[collect.Network], notes: list[str]
) -> list[dict[str, Any]]:
  """Returns the tables that the runs are of, with their plots.

  Runs of no table make one of their own.
  """
  found = []
  for table in tables_lib.TABLES.values():
    try:
      filled, chosen = fill.fill(table, networks)
    except ValueError as error:
      notes.append(str(error))
      continue
    if any(result.status != 'empty' for result in filled.results):
      found.append((filled, chosen))
  if not found and networks:
    own = [
      n._replace(facts={**n.facts, 'run': str(n.record.path)}) for n in networks
    ]
    found.append(fill.fill(_own_table(own), own))
  return [
    {
      'name': filled.table.name.replace('_', ' '),
      'title': filled.table.title,
      'grid': grids.of_table(filled),
      'plots': _plots(filled, chosen),
    }
    for filled, chosen in found
  ]


def _own_table(networks: Sequence[collect.Network]) -> spec.Table:
  """Returns a table of networks that are of no other one, a run a row."""
  metric = next(
    (m for m in grids.METRICS for n in networks if m in n.figures), 'loss'
  )
  rows = {}
  for network in networks:
    labels = (network.record.path.name, f'{network.alpha:g}')
    where = {'run': network.facts['run'], 'alpha': network.alpha}
    rows[network.facts['run'], network.alpha] = spec.Row(labels, where)
  return spec.Table(
    'own',
    'All runs that have an end',
    ('run', 'alpha'),
    {'share': None},
    tuple(rows.values()),
    (spec.Column(metric.replace('_', ' '), {}, metric),),
    command='see the details of the run',
    varies=('',),  # they need not be alike
    lines='columns',
  )


def _plots(filled, chosen) -> list[dict[str, str]]:
  drawn = {
    kind: svg.draw(draw)
    for kind, draw in figures.drawings(filled, chosen).items()
  }
  return [
    {'kind': kind, 'svg': markupsafe.Markup(text), 'caption': CAPTIONS[kind]}
    for kind, text in drawn.items()
    if text
  ]


def _run(sweep: overview.Sweep, i: int, seen: overview.Seen) -> dict[str, Any]:
  """Returns what the page says of a run."""
  command = overview.command(sweep, seen)
  if not command:
    cells = [c for t in tables_lib.TABLES.values() for c in spec.cells(t)]
    command = overview.of_table(cells, seen)
  return {
    'id': f'run-{i}',
    'name': seen.name,
    'status': seen.status,
    'path': str(seen.path),
    'message': seen.message,
    'facts': _facts(seen),
    'curve': markupsafe.Markup(svg.draw(lambda: draw_curve(seen.rows))),
    'differences': overview.differences(sweep.base, seen.config),
    'command': command,
    'config': json.dumps(seen.config, indent=2) if seen.config else '',
  }


def _facts(seen: overview.Seen) -> str:
  """Returns a line on when and where a run was made."""
  found = []
  if 'wall_time_s' in seen.summary:
    found.append(f'{seen.summary["wall_time_s"]:.0f} s of training')
  device = seen.summary.get('device', {})
  if device:
    found.append(f'{device["count"]} x {device["kind"]}')
  versions = seen.summary.get('versions', {})
  found += [
    f'{name} {version}' for name, version in versions.items() if version
  ]
  if seen.record is not None:
    try:
      costing.of(seen.record.config)
    except ValueError as error:
      found.append(f'its costs are unknown, it is of another version: {error}')
  return ', '.join(found)


def draw_curve(rows: Sequence[results.Row]) -> Any:
  """Draws the training loss and the accuracy in validation, a line a network.

  Returns:
    A figure, or None without rows of training.
  """
  train = results.select(rows, split='train')
  if not train:
    return None
  validation = results.select(rows, split='validation')
  shown = [('train', 'loss', train)]
  for metric in ('accuracy', 'bits_per_character', 'perplexity'):
    if any(metric in row for row in validation):
      shown.append(('validation', metric, validation))
      break
  figure, axes = plt.subplots(
    1,
    len(shown),
    figsize=(3.6 * len(shown), 2.2),
    sharex=True,
    squeeze=False,
    layout='none',  # one that is solved takes most of the time
    gridspec_kw={
      'left': 0.1, 'bottom': 0.2, 'right': 0.98, 'top': 0.88, 'wspace': 0.25
    },
  )  # fmt: skip
  for axis, (split, metric, found) in zip(axes[0], shown, strict=True):
    members = dict.fromkeys((row['alpha'], row['seed']) for row in found)
    for alpha, seed in members:
      own = results.select(found, alpha=alpha, seed=seed)
      points = [
        (row['global_step'] if 'task' in row else row['step'], row[metric])
        for row in own
        if math.isfinite(row.get(metric, math.nan))
      ]
      if points:
        label = f'alpha {alpha:g}, seed {seed}'
        axis.plot(*zip(*points, strict=True), lw=1, label=label, marker='.')
    axis.set(xlabel='step', title=f'{split} {metric}'.replace('_', ' '))
    axis.title.set_fontsize(9)
  plots.set_log_y(axes[0][0])
  if len(axes[0][0].get_lines()) <= 6:
    axes[0][0].legend(fontsize=6)
  return figure


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
