"""The tables as data; `TABLES` has all.

They cover the known part of the papers' own: methods, densities, tasks.
"""

import numpy as np

from experiments.paper import large
from experiments.paper import table as table_lib

Row, Column, Table = table_lib.Row, table_lib.Column, table_lib.Table
SHARES = tuple(float(p) for p in np.geomspace(0.01, 1, 20))  # pruning levels

# Weights of each layer of LeNet-300-100, and the factor on the share it keeps.
_LENET_SIZES, _FACTORS = np.array([784 * 300, 300 * 100, 1000]), [1, 1, 2]
_LENET = {'data': 'mnist', 'model': 'lenet'}
_METHODS = (
  'dense', 'acdc', 'gradual', 'magnitude', 'rigl', 'set', 'snip', 'static',
  'topkast',
)  # fmt: skip
_WITH_HAM = ('dense', 'acdc', 'rigl', 'static', 'topkast')
# Alphas of each strategy; Powerpropagation serves those that prune.
_STRATEGIES = {
  'alone': (1.0,), 'efficient_packnet': (1.0, 2.0, 3.0, 4.0), 'ewc': (1.0,),
  'fine_tuning': (1.0,), 'joint': (1.0,), 'l2': (1.0,), 'packnet': (1.0, 2.0),
}  # fmt: skip
_MEASURES = {
  'accuracy': 'average_accuracy', 'when learned': 'learning_accuracy',
  'forgetting': 'forgetting', 'forward transfer': 'forward_transfer',
  'below alone': 'intransigence', 'weights owned': 'owned',
  'tasks kept': 'kept',
}  # fmt: skip
_DATA = table_lib.DATA


def _pruning(
  name: str, title: str, heading: str, where, shares, percents, alphas, sweep,
  **options,
) -> Table:  # fmt: skip
  """Returns the table of pruning curves: levels, densest first, by alpha."""
  rows = [Row(('as trained',), {'share': None})]
  for share, percent in zip(shares[::-1], percents[::-1], strict=True):
    rows.append(Row((f'{percent:.2f}',), {'share': round(share, 9)}))
  columns = (
    Column(f'alpha {a}', {'alpha': float(a)}, 'accuracy') for a in alphas
  )
  return Table(
    name, title, (heading,), where, tuple(rows), tuple(columns), (sweep,),
    against=({'alpha': 1.0},), lines='columns', **options,
  )  # fmt: skip


def _methods(name: str, title: str, where, *sweeps: str) -> Table:
  """Returns the table of every method, by density."""
  rows = [
    Row((method, f'{alpha:g}'), {'method': method, 'alpha': alpha})
    for method in _METHODS
    for alpha in (1.0, 2.0)
  ]
  for method in _WITH_HAM:
    facts = {'method': method, 'alpha': 1.0, 'ham': 1}
    rows.append(Row((f'{method} + HAM', '1'), facts))
  columns = (
    Column(f'{100 * x:g}%', {'density': x}, 'accuracy')
    for x in (1.0, 0.2, 0.1, 0.05, 0.02)
  )
  return Table(
    name, title, ('method', 'alpha'), {**where, 'share': None, 'ham': 0},
    tuple(rows), tuple(columns), sweeps, panel=1,
    against=({'alpha': 1.0}, {'method': 'topkast'}, {'ham': 0}),
  )  # fmt: skip


def _mnist() -> list[Table]:
  """Returns pruning curves, Top-KAST and every method on MNIST."""
  alphas = table_lib.launch('mnist_powerprop.py', 'powerprop', '--sweep=alphas')
  densities = table_lib.launch(
    'mnist_topkast.py', 'topkast', '--sweep=densities'
  )
  rows = [Row(('dense',), {'method': 'dense'})]
  for a, b in ((0.1, 0.2), (0.05, 0.1), (0.02, 0.05)):
    where = {'method': 'topkast', 'density': a, 'backward_density': b}
    rows.append(Row((f'{100 * a:g}% / {100 * b:g}%',), where))
  kept = np.minimum(1, np.outer(SHARES, _FACTORS)) * _LENET_SIZES
  percents = 100 * kept.astype(int).sum(1) / _LENET_SIZES.sum()
  num_further = sum(share < 0.1 for share in SHARES)
  return [
    _pruning(
      'mnist_pruning',
      'Powerpropagation on MNIST: one-shot pruning, no retraining',
      'weights kept [%]', {**_LENET, 'method': 'dense'}, SHARES, percents,
      range(1, 6), alphas,
    ),
    Table(
      'mnist_topkast', 'Top-KAST on MNIST against dense', ('D / B',),
      {**_LENET, 'share': None}, tuple(rows),
      (
        Column('alpha 1', {'alpha': 1.0}, 'accuracy'),
        Column('alpha 2 (Powerprop.)', {'alpha': 2.0}, 'accuracy'),
      ),
      (alphas, densities), against=({'alpha': 1.0},), lines='columns',
      extra=('train_share', 'minutes'),
    ),
    _pruning(
      'mnist_topkast_pruning',
      'Top-KAST on MNIST, 10% / 20%, pruned further without retraining',
      'weights kept [%]', {**_LENET, **rows[1].where}, SHARES[:num_further],
      percents[:num_further], (1, 2), densities, has_plots=False,
    ),
    _methods(
      'mnist_methods', 'Every method on MNIST, LeNet-5',
      {'data': 'mnist', 'model': 'lenet5'},
      table_lib.launch('mnist_methods.py', 'methods', '--sweep=methods'),
    ),
  ]  # fmt: skip


def _cifar(name: str, model: str) -> list[Table]:
  """Returns the methods and the pruning curves of one network."""
  where = {'data': 'cifar10', 'model': model}
  methods, pruning = (
    table_lib.launch(f'{name}.py', f'{name}/{s}', f'--sweep={s} {_DATA}')
    for s in ('cifar10_methods', 'cifar10_pruning')
  )
  return [
    _methods(
      name, f'Every method on CIFAR-10, {model}', where, pruning, methods
    ),
    _pruning(
      f'{name}_pruning',
      f'Powerpropagation on CIFAR-10, {model}: one-shot pruning, no retraining',
      'level [%]',
      {**where, 'method': 'dense'}, SHARES, 100 * np.array(SHARES),
      range(1, 6), pruning,
    ),
  ]  # fmt: skip


def _continual(
  name: str, title: str, data: str, num_tasks: int, config: str,
  sweep: str = 'strategies', options: str = '',
) -> Table:  # fmt: skip
  rows = (
    Row((name, f'{alpha:g}'), {'strategy': name, 'alpha': alpha})
    for name, alphas in _STRATEGIES.items()
    for alpha in alphas
  )
  return Table(
    name, title, ('strategy', 'alpha'), {'data': data, 'num_tasks': num_tasks},
    tuple(rows),
    tuple(Column(text, {}, key) for text, key in _MEASURES.items()),
    (table_lib.launch(config, name, f'--sweep={sweep} {options}'.rstrip()),),
    against=({'alpha': 1.0}, {'strategy': 'packnet', 'alpha': 1.0}),
  )  # fmt: skip


TABLES: dict[str, Table] = {
  table.name: table
  for table in (
    *_mnist(),
    *_cifar('cifar10_alexnet', 'alexnet'),
    *_cifar('cifar10_wrn', 'wide_resnet'),
    large.imagenet(),
    large.photographs(),
    large.small_text(),
    large.text(
      'enwik8', 'enwik8, bits per character', 'bits_per_character', 512
    ),
    large.text('wikitext103', 'WikiText-103, perplexity', 'perplexity', 410),
    _continual(
      'permuted_mnist', 'Permuted MNIST, 10 tasks', 'permuted_mnist', 10,
      'permuted_mnist.py',
    ),
    _continual(
      'permuted_mnist_100', 'Permuted MNIST, 100 tasks', 'permuted_mnist', 100,
      'permuted_mnist.py', 'hundred_tasks',
    ),
    _continual(
      'split_mnist', 'Split MNIST, 5 tasks of two digits', 'split_mnist', 5,
      'split_mnist.py',
    ),
    _continual(
      'cifar_tasks', 'CIFAR-10, then 50 classes of CIFAR-100, in 6 tasks',
      'cifar', 6, 'cifar_tasks.py', options='--config.tasks.data_dir=DATA',
    ),
  )
}  # fmt: skip
