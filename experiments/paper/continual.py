"""Strategies against forgetting, from the folders of runs of one stream.

  python -m experiments.paper.continual --runs=DIR --out=DIR

Reads the folders of runs below `--runs` that are done, prints the table as
Markdown, and writes it (`continual.md`) and the plot of accuracy and of owned,
reused and free weights against tasks (`continual.png`). With a run of the
strategy 'alone' among them, tasks are compared with networks of their own.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys
from typing import Any
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt
import numpy as np

from experiments import results
from experiments.common import metrics
from experiments.continual import measures
from experiments.continual import report
from experiments.paper import collect

COLUMNS = {
  'average_accuracy': 'accuracy',
  'learning_accuracy': 'when learned',
  'forgetting': 'forgetting',
  'forward_transfer': 'forward transfer',
  'intransigence': 'below alone',
  'owned': 'weights owned',
}
SHARE = 0.9  # of the accuracy alone, to count as kept

Key = tuple[str, float]  # strategy, alpha


class Network(NamedTuple):
  """What one network of a run did."""

  seed: int
  accuracies: np.ndarray  # [T, T]
  usage: list[dict[str, Any]]  # of all weights, after each task
  figures: dict[str, float]


def read(records: Sequence[collect.Record]) -> dict[Key, list[Network]]:
  """Returns the networks of each strategy and alpha.

  Raises:
    ValueError: If two runs are of the same strategy and alpha, or of different
      streams of tasks.
  """
  found: dict[Key, list[Network]] = {}
  paths: dict[Key, pathlib.Path] = {}
  streams = {str(record.config['tasks']) for record in records}
  if len(streams) > 1:
    raise ValueError(
      f'expected runs of one stream of tasks, got {sorted(streams)}'
    )
  for record in records:
    rows = metrics.read(record.path)
    for alpha in results.distinct(rows, 'alpha'):
      key = (record.config['strategy']['name'], alpha)
      if key in paths:
        raise ValueError(
          f'expected one run of {key[0]}, alpha {alpha:g}, got {paths[key]} '
          f'and {record.path}'
        )
      paths[key] = record.path
      of_alpha = results.select(rows, alpha=alpha)
      found[key] = [
        _network(results.select(of_alpha, seed=seed), seed)
        for seed in results.distinct(of_alpha, 'seed')
      ]
  return found


def make_rows(networks: dict[Key, list[Network]]) -> list[list[str]]:
  """Returns the header and a line for each strategy and alpha."""
  alone = {n.seed: np.diag(n.accuracies) for n in _alone(networks)}
  num_tasks = max(len(n.accuracies) for ns in networks.values() for n in ns)
  lines = [
    ['strategy', 'alpha', *COLUMNS.values(), f'tasks of {num_tasks} kept']
  ]
  for (strategy, alpha), own in sorted(networks.items()):
    figures = [dict(n.figures) for n in own]
    kept = []
    for network, of_network in zip(own, figures, strict=True):
      reference = alone.get(network.seed)
      if reference is None:
        continue
      of_network['intransigence'] = measures.intransigence(
        network.accuracies, reference
      )
      kept.append(measures.num_above(network.accuracies, reference, SHARE))
    cells = [_cell([f.get(name, np.nan) for f in figures]) for name in COLUMNS]
    shown = ', '.join(f'{number}' for number in kept)
    lines.append([strategy, f'{alpha:g}', *cells, shown])
  return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
  """Returns a table; the first line is its header."""
  header, *rest = lines
  rule = ['---'] + ['---:'] * (len(header) - 1)
  return ''.join(f'| {" | ".join(line)} |\n' for line in (header, rule, *rest))


def draw(networks: dict[Key, list[Network]]) -> Any:
  """Draws accuracy on the tasks so far, and capacity, against tasks."""
  packed = [key for key in sorted(networks) if networks[key][0].usage]
  figure, axes = plt.subplots(
    1,
    1 + len(packed),
    figsize=(5 + 3.4 * len(packed), 4),
    constrained_layout=True,
    squeeze=False,
  )
  for i, (key, own) in enumerate(sorted(networks.items())):
    matrices = np.array([n.accuracies for n in own])
    so_far = np.array(
      [[np.mean(m[t, : t + 1]) for t in range(len(m))] for m in matrices]
    )
    [tasks] = np.nonzero(np.isfinite(so_far).all(0))
    axes[0][0].errorbar(
      tasks + 1,
      100 * so_far[:, tasks].mean(0),
      100 * so_far[:, tasks].std(0, ddof=min(1, len(own) - 1)),
      label=_name(key),
      marker='os^vDP*X'[i % 8],
      ms=4,
      lw=1.2,
      capsize=2,
    )
  axes[0][0].set(xlabel='tasks so far', ylabel='mean test accuracy [%]')
  axes[0][0].legend(fontsize=7)
  for axis, key in zip(axes[0][1:], packed, strict=True):
    for name in ('owned', 'free', 'reused'):
      shares = [[100 * row[name] for row in n.usage] for n in networks[key]]
      tasks = np.arange(len(shares[0])) + 1
      axis.plot(tasks, np.mean(shares, 0), label=name)
    axis.set(xlabel='task', ylim=(-2, 102), title=_name(key))
    axis.title.set_fontsize(9)
  if packed:
    axes[0][1].set_ylabel('share of weights [%]')
    axes[0][1].legend(fontsize=8)
  for axis in axes[0]:
    axis.grid(alpha=0.3)
  return figure


def main(arguments: Sequence[str]) -> int:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    'python -m experiments.paper.continual',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--runs', required=True, help='folder of the runs')
  parser.add_argument('--out', required=True, help='folder to write to')
  given = parser.parse_args(arguments)
  try:
    networks = read(collect.read_runs(given.runs))
  except ValueError as error:
    print(f'experiments.paper.continual: {error}', file=sys.stderr)
    return 2
  out = pathlib.Path(given.out)
  out.mkdir(parents=True, exist_ok=True)
  table = markdown(make_rows(networks))
  (out / 'continual.md').write_text(table)
  figure = draw(networks)
  figure.savefig(out / 'continual.png', dpi=150)
  plt.close(figure)
  print(table)
  return 0


def _network(rows: Sequence[results.Row], seed: int) -> Network:
  num_tasks = max(results.distinct(rows, 'tested'))
  tests = results.select(rows, split='test')
  matrix = measures.matrix_of(tests, num_tasks)
  usage = results.select(rows, split='usage', layer='all')
  return Network(seed, matrix, usage, report.figures_of(rows, matrix))


def _alone(networks: dict[Key, list[Network]]) -> list[Network]:
  """Returns the networks of a task each; those with the smallest alpha."""
  keys = sorted(key for key in networks if key[0] == 'alone')
  return networks[keys[0]] if keys else []


def _cell(values: Sequence[float]) -> str:
  is_known = bool(np.isfinite(values).all())
  return str(results.cell(list(values))) if is_known else ''


def _name(key: Key) -> str:
  strategy, alpha = key
  return strategy if alpha == 1 else f'{strategy}, alpha = {alpha:g}'


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
