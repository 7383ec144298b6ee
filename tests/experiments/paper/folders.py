"""Run folders of format 2 as `launch.py` leaves them, without the training."""

import json

from configs import mnist_methods
from configs import mnist_powerprop
from configs import permuted_mnist
from configs import text_transformer_xl
from experiments import metrics
from experiments import rundir

SHARES = (0.1, 1.0)


def of_file(module, variant='', alpha=None, seed=0, **changes):
  """Returns the config of one network: that of a file, with some keys changed.

  Keys are as in train__batch_size=3; `alpha` defaults to the file's first.
  """
  config = json.loads(module.get_config(variant).to_json())
  config.pop('seeds')
  alphas = config['powerprop'].pop('alphas')
  alpha = alphas[0] if alpha is None else alpha
  config['powerprop']['alpha'] = alpha
  if isinstance(rates := config['optimizer']['learning_rate'], list):
    config['optimizer']['learning_rate'] = rates[alphas.index(alpha)]
  config['seed'] = seed
  for key, value in changes.items():
    *path, last = key.split('__')
    section = config
    for name in path:
      section = section[name]
    section[last] = value
  return config


def methods(variant, seed=0, **changes):
  return of_file(mnist_methods, variant, seed=seed, **changes)


def powerprop(alpha, seed=0, **changes):
  levels = {'prune__num_levels': len(SHARES), 'prune__lowest': SHARES[0]}
  return of_file(mnist_powerprop, '', alpha, seed, **levels, **changes)


def language(variant, seed=0, **changes):
  return of_file(text_transformer_xl, variant, seed=seed, **changes)


def tasks(strategy, seed=0, **changes):
  variant = f'quick,strategy={strategy}'
  return of_file(permuted_mnist, variant, seed=seed, **changes)


def write(folder, config, rows, status='done', **fields):
  """Writes a run folder."""
  rundir.create(folder, config)
  text = ''.join(rundir.to_json(row) + '\n' for row in rows)
  (folder / metrics.FILE).write_text(text)
  rundir.write_status(folder, status, step=2, total_steps=2, **fields)
  if status == 'done':
    device = {'kind': 'cpu', 'count': 1}
    rundir.write_summary(folder, {'wall_time_s': 12.0, 'device': device})
  return folder


def write_image(folder, config, accuracy, *, diverged=False, mask_change=0.0):
  """Writes a run of image classification.

  The accuracy is that of the test; at a pruning level it is times the share.
  """
  if diverged:
    message = 'the loss is nan by step 2'
    rows = [{'split': 'train', 'step': 1, 'loss': 2.0, 'density': 1.0}]
    return write(folder, config, rows, 'diverged', message=message)
  rows = [
    {'split': 'train', 'density': 1.0, 'loss': loss, 'mask_change': change}
    for loss, change in ((2.0, mask_change), (1.0, 0.0))
  ]
  rows += [
    {'split': split, 'accuracy': accuracy, 'loss': 1.0}
    for split in ('validation', 'test')
  ]
  levels = SHARES if config['prune']['num_levels'] else ()
  for share in levels:
    level = {'share': share, 'density': share, 'overlap': share}
    level |= {'accuracy': accuracy * share, 'loss': 1.0}
    rows.append({'split': 'pruned', **level})
  weights = {'edges': [-1.0, 0.0, 1.0], 'counts': [3, 5]}
  for when in ('before', 'after'):
    rows.append({'split': 'histogram', 'when': when, **weights})
  rows = [{'step': min(i, 2), **row} for i, row in enumerate(rows, 1)]
  return write(folder, config, rows)


def write_language(folder, config, bits):
  shared = {'step': 2, 'loss': 1.0, 'bits_per_character': bits}
  tested = {'density': 0.5, 'validation_bits_per_character': bits + 1}
  more = {'train': {'density': 0.5}, 'validation': {}, 'test': tested}
  rows = [{**shared, 'split': split, **own} for split, own in more.items()]
  return write(folder, config, rows)


def write_tasks(folder, config, matrix, usage=()):
  """Writes a run of tasks one after another; None: not tested."""
  rows = []
  for task, accuracies in enumerate(matrix, 1):
    shared = {'step': task, 'task': task}
    rows += [
      {**shared, 'split': 'test', 'tested': i, 'accuracy': x, 'loss': 1.0}
      for i, x in enumerate(accuracies, 1)
      if x is not None
    ]
    if usage:
      owned, reused = usage[task - 1]
      shares = {'owned': owned, 'free': 1 - owned}
      shares |= {'reused': reused, 'new': owned - reused}
      rows.append({**shared, 'split': 'usage', 'layer': 'all', **shares})
  return write(folder, config, rows)
