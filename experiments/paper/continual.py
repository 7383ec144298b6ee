"""Networks of tasks one after another: their figures, and a plot of them."""

from collections.abc import Sequence
from typing import Any

from matplotlib import pyplot as plt
import numpy as np

from experiments import results
from experiments.continual import measures
from experiments.continual import report
from experiments.paper import collect
from experiments.paper import spec

SHARE = 0.9  # of the accuracy alone, to count as kept


def networks(records: Sequence[collect.Record]) -> list[collect.Network]:
  """Returns the networks of runs, with the figures of all their tasks.

  With networks of a task each among them (the strategy 'alone'), of the same
  seed and tasks, others are compared with those of the smallest alpha.
  """
  found = [n for record in records for n in _of_record(record)]
  alone: dict[tuple[str, int], np.ndarray] = {}
  for network in sorted(found, key=lambda network: network.alpha):
    if network.facts['strategy'] == 'alone' and network.status == 'done':
      alone.setdefault(_stream(network), np.diag(matrix(network)))
  return [_compared(n, alone.get(_stream(n))) for n in found]


def matrix(network: collect.Network) -> np.ndarray:
  """Returns accuracies [T, T] on each task after each task."""
  tests = results.select(_rows(network), split='test')
  return measures.matrix_of(tests, network.record.config['tasks']['num_tasks'])


def draw(chosen: Sequence[collect.Network]) -> Any:
  """Draws accuracy on the tasks so far, and capacity, against tasks.

  Returns:
    A figure, or None without networks.
  """
  by_label: dict[str, list[collect.Network]] = {}
  for network in chosen:
    if network.status == 'done':
      by_label.setdefault(_label(network), []).append(network)
  if not by_label:
    return None
  usages = {label: _usages(own) for label, own in by_label.items()}
  usages = {label: usage for label, usage in usages.items() if usage[0]}
  figure, axes = plt.subplots(
    1,
    1 + len(usages),
    figsize=(5 + 3.4 * len(usages), 4),
    squeeze=False,
  )
  for i, (label, own) in enumerate(by_label.items()):
    _draw_accuracy(axes[0][0], own, label, i)
  axes[0][0].set(xlabel='tasks so far', ylabel='mean test accuracy [%]')
  axes[0][0].legend(fontsize=7)
  for axis, (label, usage) in zip(axes[0][1:], usages.items(), strict=True):
    for name in ('owned', 'free', 'reused'):
      shares = [[100 * row[name] for row in rows] for rows in usage]
      axis.plot(np.arange(len(shares[0])) + 1, np.mean(shares, 0), label=name)
    axis.set(xlabel='task', ylim=(-2, 102))
    axis.set_title(label, fontsize=9)
  if usages:
    axes[0][1].set_ylabel('share of weights [%]')
    axes[0][1].legend(fontsize=8)
  return figure


def _draw_accuracy(axis, own: Sequence[collect.Network], label: str, i: int):
  so_far = np.array(
    [[np.mean(m[t, : t + 1]) for t in range(len(m))] for m in map(matrix, own)]
  )
  [tasks] = np.nonzero(np.isfinite(so_far).all(0))
  axis.errorbar(
    tasks + 1,
    100 * so_far[:, tasks].mean(0),
    100 * so_far[:, tasks].std(0, ddof=min(1, len(own) - 1)),
    label=label,
    marker='os^vDP*X'[i % 8],
    ms=4,
    lw=1.2,
    capsize=2,
  )


def _of_record(record: collect.Record) -> list[collect.Network]:
  facts = spec.facts(record.config)
  found = []
  for alpha, seed in collect.members(record.config):
    network = collect.Network(
      record, alpha, seed, {**facts, 'alpha': alpha}, {}, record.status
    )
    if record.status == 'done':
      figures = report.figures_of(_rows(network), matrix(network))
      network = network._replace(figures=figures)
    found.append(network)
  return found


def _compared(
  network: collect.Network, alone: np.ndarray | None
) -> collect.Network:
  if alone is None or network.status != 'done':
    return network
  accuracies = matrix(network)
  figures = {
    'intransigence': measures.intransigence(accuracies, alone),
    'kept': float(measures.num_above(accuracies, alone, SHARE)),
  }
  figures = {**network.figures, **figures}
  known = {name: x for name, x in figures.items() if np.isfinite(x)}
  return network._replace(figures=known)


def _rows(network: collect.Network) -> list[results.Row]:
  return results.select(
    network.record.rows, alpha=network.alpha, seed=network.seed
  )


def _usages(own: Sequence[collect.Network]) -> list[list[results.Row]]:
  return [results.select(_rows(n), split='usage', layer='all') for n in own]


def _stream(network: collect.Network) -> tuple[str, int]:
  return str(network.record.config['tasks']), network.seed


def _label(network: collect.Network) -> str:
  strategy = network.facts['strategy']
  if network.alpha == 1:
    return strategy
  return f'{strategy}, alpha = {network.alpha:g}'
