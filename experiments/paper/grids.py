"""The tables of a page: text, and the values by which it sorts."""

from collections.abc import Sequence
import math
from typing import Any
from typing import NamedTuple

from experiments import results
from experiments.paper import collect
from experiments.paper import costing
from experiments.paper import fill
from experiments.paper import overview
from experiments.paper import render
from experiments.paper import spec
from experiments.paper import svg

# What a run is judged by: those that it has.
METRICS = (
  'accuracy', 'bits_per_character', 'perplexity', 'average_accuracy',
  'forgetting',
)  # fmt: skip
MAX_KEYS = 6  # columns for what differs among the configs

_FACTS = (
  'data', 'model', 'method', 'strategy', 'density', 'backward_density',
  'distribution', 'num_tasks', 'num_steps',
)  # fmt: skip
_HAVE_COLUMNS = ('powerprop.alphas', 'seeds', 'data.data_dir')


class Heading(NamedTuple):
  """Of a column of a table."""

  text: str
  is_word: bool = False
  sorts: bool = True


class Cell(NamedTuple):
  """Of a table of the page."""

  text: str
  value: str  # by which it sorts; '' is always last
  is_word: bool = False
  is_status: bool = False
  link: str = ''
  points: str = ''


class Grid(NamedTuple):
  """A table of the page."""

  headings: list[Heading]
  rows: list[list[Cell]]


def of_table(filled: fill.Filled) -> Grid:
  """Returns a table as it is printed."""
  header, *lines = render.wide(filled)
  num_labels = len(filled.table.headings)
  num_columns = len(filled.table.columns)
  headings = [
    Heading(text, is_word=i < num_labels) for i, text in enumerate(header)
  ]
  found = iter(filled.results)
  rows = []
  for line in lines:
    own = [next(found) for _ in range(num_columns)]
    values = [
      *line[:num_labels],
      *('' if r.mean is None else repr(r.mean) for r in own),
      *line[num_labels + num_columns :],
    ]
    rows.append(
      [
        Cell(text.replace('*', ''), value, is_word=i < num_labels)
        for i, (text, value) in enumerate(zip(line, values, strict=True))
      ]
    )
  return Grid(headings, rows)


def of_runs(sweep: overview.Sweep, networks: Sequence[collect.Network]) -> Grid:
  """Returns the table of all runs, a row for each run and alpha."""
  columns = varying(sweep)
  by_row: dict[Any, list[collect.Network]] = {}
  for network in networks:
    if network.facts.get('share') is None:
      key = (network.record.path, network.alpha)
      by_row.setdefault(key, []).append(network)
  names = [name for name in METRICS if any(name in n.figures for n in networks)]
  rows = []
  for i, seen in enumerate(sweep.runs):
    alphas = sorted(alpha for path, alpha in by_row if path == seen.path)
    for alpha in alphas or [None]:
      own = by_row.get((seen.path, alpha), [])
      words = [values[i] for values in columns.values()]
      rows.append(_run_row(i, seen, words, names, alpha, own))
  return Grid(_headings(list(columns), names), rows)


def varying(sweep: overview.Sweep) -> dict[str, list[str]]:
  """Returns by heading what differs among the runs and is worth a column.

  These are the keys that the sweep overrides; or else the facts in which the
  configs differ, and the keys that all of them have.

  Returns:
    From headings to the value of each run, as text.
  """
  configs = [seen.config or {} for seen in sweep.runs]
  flat = [collect.flatten(config) for config in configs]
  pairs = zip(flat, configs, strict=True)
  facts = [{**one, **spec.facts(config)} for one, config in pairs]
  chosen = dict.fromkeys(
    key.removeprefix('config.')
    for run in (sweep.plan or {}).get('runs', ())
    for key in run.get('overrides', ())
  )
  # Of variants the facts say how they differ.
  if not chosen or 'config' in chosen:
    everywhere = [
      key
      for key in sorted(set().union(*flat))
      if key not in _HAVE_COLUMNS and not key.endswith('.name')
      if all(key in one for one in flat if one)
    ]
    chosen = dict.fromkeys([*_FACTS, *chosen, *everywhere])
  columns = {
    key: ['' if one.get(key) is None else str(one[key]) for one in facts]
    for key in chosen
    if key not in _HAVE_COLUMNS
  }
  worth = [key for key, values in columns.items() if len({*values}) > 1]
  return {key: columns[key] for key in worth[:MAX_KEYS]}


def _heading_of(key: str) -> Heading:
  return Heading(key.removeprefix('method.').replace('_', ' '), True)


def _headings(keys: Sequence[str], names: Sequence[str]) -> list[Heading]:
  return [
    Heading('run', True),
    Heading('status', True),
    *(_heading_of(key) for key in keys),
    Heading('alpha'),
    *(
      Heading(render.LABELS.get(name, name.replace('_', ' '))) for name in names
    ),
    Heading('seeds'),
    Heading('training / dense'),
    Heading('inference / dense'),
    Heading('bytes'),
    Heading('seconds'),
    Heading('loss', True, sorts=False),
  ]


def _run_row(
  i: int,
  seen: overview.Seen,
  words: Sequence[str],
  names: Sequence[str],
  alpha: float | None,
  own: Sequence[collect.Network],
) -> list[Cell]:
  costs = _costs(seen)
  status = seen.status
  if own and all(network.figures for network in own):
    status = 'done'  # another alpha of this run may have diverged
  progress = ''
  if seen.step is not None and seen.total:
    progress = f' {100 * seen.step / seen.total:.0f}%'
  return [
    Cell(seen.name, seen.name, True, link=f'run-{i}'),
    Cell(status + progress, status, True, is_status=True),
    *(Cell(word, word, True) for word in words),
    _number(alpha, 'g'),
    *(_figure(own, name) for name in names),
    _number(sum(bool(network.figures) for network in own), 'd'),
    _number(costs and costs.train_share, '.3f'),
    _number(costs and costs.inference_share, '.3f'),
    _number(costs and costs.num_bytes, ',d'),
    _number(seen.summary.get('wall_time_s'), '.0f'),
    Cell('', '', points=svg.points(_losses(seen, alpha))),
  ]


def _figure(own: Sequence[collect.Network], name: str) -> Cell:
  values = [n.figures[name] for n in own if name in n.figures]
  if not values:
    return Cell('', '')
  found = results.cell(values)
  result = fill.Result((), '', name, 'done', *found)
  return Cell(render.text(result), repr(found.mean))


def _number(value: float | None, form: str) -> Cell:
  return Cell('', '') if value is None else Cell(f'{value:{form}}', repr(value))


def _costs(seen: overview.Seen) -> costing.Costs | None:
  try:
    return costing.of(seen.config) if seen.record else None
  except ValueError:
    return None  # of another version; its details say so


def _losses(seen: overview.Seen, alpha: float | None) -> list[float]:
  """Returns logarithms of the training loss of the first seed."""
  rows = results.select(seen.rows, split='train')
  if alpha is not None:
    rows = results.select(rows, alpha=alpha)
  first = [row for row in rows if row['seed'] == rows[0]['seed']]
  return [
    math.log(max(row['loss'], 1e-9))
    for row in first
    if math.isfinite(row.get('loss', math.nan))
  ]
