"""Folders of runs as `launch.py` leaves them, without the training."""

import json

from configs import mnist_methods
from configs import mnist_powerprop
from configs import permuted_mnist
from experiments import results
from experiments.common import metrics
from experiments.common import run as run_lib

SHARES = (0.1, 1.0)


def plain(config):
  return json.loads(config.to_json())


def methods(variant, **changes):
  """Returns the config of a method, with some keys changed: train__batch=3."""
  return change(plain(mnist_methods.get_config(variant)), **changes)


def powerprop(**changes):
  config = plain(mnist_powerprop.get_config())
  config['prune']['num_levels'] = len(SHARES)
  config['prune']['lowest'] = SHARES[0]
  return change(config, **changes)


def tasks(strategy, **changes):
  config = plain(permuted_mnist.get_config(f'quick,strategy={strategy}'))
  return change(config, **changes)


def change(config, **changes):
  for key, value in changes.items():
    *path, last = key.split('__')
    section = config
    for name in path:
      section = section[name]
    section[last] = value
  return config


def write(folder, config, accuracy, *, diverged=(), mask_change=None):
  """Writes a run that is done, or whose loss was not finite in the end.

  Args:
    folder: of the run.
    config: its config.
    accuracy: from alpha and seed to the accuracy in the test; at a level of
      pruning it is that times the share.
    diverged: alpha and seed of the network that ended the run.
    mask_change: of the first of its two rows of training.
  """
  directory = run_lib.open_run(folder, config)
  rows = []
  for alpha in config['powerprop']['alphas']:
    for seed in config['seeds']:
      if (alpha, seed) == tuple(diverged):
        write_rows(folder, rows)
        message = f'the loss is nan by step 2 (alpha {alpha:g}, seed {seed})'
        directory.write_status('diverged', global_step=1, message=message)
        return folder
      rows += rows_of(config, alpha, seed, accuracy(alpha, seed), mask_change)
  write_rows(folder, rows)
  directory.write_status('done', global_step=2)
  directory.write_summary({'wall_time_s': 12.0, **results.summarize(rows)})
  return folder


def rows_of(config, alpha, seed, accuracy, mask_change):
  first, second = {'step': 1, 'loss': 2.0}, {'step': 2, 'loss': 1.0}
  if mask_change is not None:
    first['mask_change'], second['mask_change'] = mask_change, 0.0
  found = [
    {'split': 'train', 'density': 1.0, **first},
    {'split': 'train', 'density': 1.0, **second},
    {'split': 'validation', 'step': 2, 'accuracy': accuracy, 'loss': 1.0},
    {'split': 'test', 'step': 2, 'accuracy': accuracy, 'loss': 1.0},
  ]
  if config['prune']['num_levels']:
    found += [
      {
        'split': 'pruned', 'step': 2, 'share': share, 'density': share,
        'overlap': share, 'accuracy': accuracy * share, 'loss': 1.0,
      }
      for share in SHARES
    ]  # fmt: skip
  found += [
    {
      'split': 'histogram', 'when': when, 'step': 2, 'edges': [-1.0, 0.0, 1.0],
      'counts': [3, 5],
    }
    for when in ('before', 'after')
  ]  # fmt: skip
  return [
    {'global_step': row['step'], 'alpha': alpha, 'seed': seed, **row}
    for row in found
  ]


def write_rows(folder, rows):
  text = ''.join(run_lib.to_json(row) + '\n' for row in rows)
  (folder / metrics.FILE).write_text(text)


def write_tasks(folder, config, matrix, usage=()):
  """Writes a run of tasks one after another; None: not tested."""
  directory = run_lib.open_run(folder, config)
  rows = []
  for alpha in config['powerprop']['alphas']:
    for seed in config['seeds']:
      for task, accuracies in enumerate(matrix):
        member = {
          'global_step': task, 'alpha': alpha, 'seed': seed, 'task': task + 1
        }  # fmt: skip
        rows += [
          {**member, 'split': 'test', 'tested': i + 1, 'accuracy': accuracy}
          for i, accuracy in enumerate(accuracies)
          if accuracy is not None
        ]
        if usage:
          owned, reused = usage[task]
          usage_row = {
            'split': 'usage', 'layer': 'all', 'owned': owned,
            'free': 1 - owned, 'reused': reused, 'new': owned - reused,
          }  # fmt: skip
          rows.append({**member, **usage_row})
  write_rows(folder, rows)
  directory.write_status('done', global_step=len(matrix))
  directory.write_summary({'wall_time_s': 12.0})
  return folder
