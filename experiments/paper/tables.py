"""The tables as data: MNIST, CIFAR-10, continual learning; `TABLES` has all.

The rows and columns of the papers' own tables are known in part only; these
cover the known part: methods, distributions, densities, tasks.
"""

from collections.abc import Sequence

import numpy as np

from experiments.paper import large
from experiments.paper import table as table_lib

SHARES = tuple(float(p) for p in np.geomspace(0.01, 1, 20))  # pruning levels

# Weights of each layer of LeNet-300-100, and the factor on the share it keeps.
_LENET_SIZES, _FACTORS = np.array([784 * 300, 300 * 100, 1000]), [1, 1, 2]
_LENET = {'data': 'mnist', 'model': 'lenet'}
_METHODS = (
  'dense', 'gradual', 'magnitude', 'rigl', 'set', 'snip', 'static', 'topkast',
)  # fmt: skip
# Alphas of each strategy; Powerpropagation serves those that prune.
_STRATEGIES = {
  'alone': (1.0,), 'efficient_packnet': (1.0, 2.0, 3.0, 4.0), 'ewc': (1.0,),
  'fine_tuning': (1.0,), 'joint': (1.0,), 'l2': (1.0,), 'packnet': (1.0, 2.0),
}  # fmt: skip
_MEASURES = {
  'average_accuracy': 'accuracy',
  'learning_accuracy': 'when learned',
  'forgetting': 'forgetting',
  'forward_transfer': 'forward transfer',
  'intransigence': 'below alone',
  'owned': 'weights owned',
  'kept': 'tasks kept',
}


def _pruning(
  name: str, title: str, heading: str, where: table_lib.Facts, shares,
  percents: np.ndarray, alphas: Sequence[float], command: str, sweep: str,
  **options,
) -> table_lib.Table:  # fmt: skip
  """Returns the table of pruning curves: levels, densest first, by alpha."""
  rows = [table_lib.Row(('as trained',), {'share': None})]
  for share, percent in zip(shares[::-1], percents[::-1], strict=True):
    rows.append(table_lib.Row((f'{percent:.2f}',), {'share': round(share, 9)}))
  columns = (
    table_lib.Column(f'alpha {alpha:g}', {'alpha': float(alpha)}, 'accuracy')
    for alpha in alphas
  )
  return table_lib.Table(
    name, title, (heading,), where, tuple(rows), tuple(columns), command,
    (sweep,), against=({'alpha': 1.0},), lines='columns', **options,
  )  # fmt: skip


def _methods(
  name: str, title: str, where: table_lib.Facts, command: str, *sweeps: str
) -> table_lib.Table:
  """Returns the table of every method, by density."""
  rows = (
    table_lib.Row((method, f'{alpha:g}'), {'method': method, 'alpha': alpha})
    for method in _METHODS
    for alpha in (1.0, 2.0)
  )
  columns = (
    table_lib.Column(f'{100 * density:g}%', {'density': density}, 'accuracy')
    for density in (1.0, 0.2, 0.1, 0.05, 0.02)
  )
  return table_lib.Table(
    name, title, ('method', 'alpha'), {**where, 'share': None}, tuple(rows),
    tuple(columns), command, sweeps, panel=1,
    against=({'alpha': 1.0}, {'method': 'topkast'}),
  )  # fmt: skip


def _mnist() -> list[table_lib.Table]:
  launch = table_lib.launch
  powerprop = launch('mnist_powerprop.py', 'powerprop')
  alphas = launch('mnist_powerprop.py', 'powerprop', '--sweep=alphas')
  densities = launch('mnist_topkast.py', 'topkast', '--sweep=densities')
  rows = [table_lib.Row(('dense',), {'method': 'dense'}, powerprop)]
  for a, b in ((0.1, 0.2), (0.05, 0.1), (0.02, 0.05)):
    where = {'method': 'topkast', 'density': a, 'backward_density': b}
    section = '--config.method'
    options = (
      f'{section}.forward_density={a:g} {section}.backward_density={b:g}'
    )
    command = launch('mnist_topkast.py', f'topkast/d{a:g}', options)
    rows.append(
      table_lib.Row((f'{100 * a:g}% / {100 * b:g}%',), where, command)
    )
  kept = np.minimum(1, np.outer(SHARES, _FACTORS)) * _LENET_SIZES
  percents = 100 * kept.astype(int).sum(1) / _LENET_SIZES.sum()
  num_further = sum(share < 0.1 for share in SHARES)
  return [
    _pruning(
      'mnist_pruning',
      'Powerpropagation on MNIST: one-shot pruning, no retraining',
      'weights kept [%]', {**_LENET, 'method': 'dense'}, SHARES, percents,
      range(1, 6), powerprop, alphas,
    ),
    table_lib.Table(
      'mnist_topkast', 'Top-KAST on MNIST against dense', ('D / B',),
      {**_LENET, 'share': None}, tuple(rows),
      (
        table_lib.Column('alpha 1', {'alpha': 1.0}, 'accuracy'),
        table_lib.Column('alpha 2 (Powerprop.)', {'alpha': 2.0}, 'accuracy'),
      ),
      '{variant}', (alphas, densities), against=({'alpha': 1.0},),
      lines='columns', extra=('train_share', 'minutes'),
    ),
    _pruning(
      'mnist_topkast_pruning',
      'Top-KAST on MNIST, 10% / 20%, pruned further without retraining',
      'weights kept [%]', {**_LENET, **rows[1].where}, SHARES[:num_further],
      percents[:num_further], (1, 2), launch('mnist_topkast.py', 'topkast'),
      densities, has_plots=False,
    ),
    _methods(
      'mnist_methods', 'Every method on MNIST, LeNet-5',
      {'data': 'mnist', 'model': 'lenet5'},
      launch(
        'mnist_methods.py:{method},density={density},alpha={alpha}',
        'methods/{method}_d{density}_a{alpha}',
      ),
      launch('mnist_methods.py', 'methods', '--sweep=methods'),
    ),
  ]  # fmt: skip


def _cifar(name: str, model: str) -> list[table_lib.Table]:
  """Returns the methods and the pruning curves of one network."""
  where = {'data': 'cifar10', 'model': model}
  data = '--config.data.data_dir=DATA'
  methods, pruning = (
    table_lib.launch(f'{name}.py', f'{name}/{s}', f'--sweep={s} {data}')
    for s in ('cifar10_methods', 'cifar10_pruning')
  )
  dense = ':dense,density=1,backward_density=1,alpha={alpha}'
  each = ':{method},density={density},backward_density={twice},alpha={alpha}'
  return [
    _methods(
      name, f'Every method on CIFAR-10, {model}', where,
      table_lib.launch(
        f'{name}.py{each}', name + '/{method}_d{density}_a{alpha}', data
      ),
      pruning, methods,
    ),
    _pruning(
      f'{name}_pruning',
      f'Powerpropagation on CIFAR-10, {model}: one-shot pruning, no retraining',
      'level [%]', {**where, 'method': 'dense'}, SHARES, 100 * np.array(SHARES),
      range(1, 6),
      table_lib.launch(f'{name}.py{dense}', name + '/dense_d1_a{alpha}', data),
      pruning,
    ),
  ]  # fmt: skip


def _continual(
  name: str, title: str, data: str, num_tasks: int, variant: str,
  sweep: str = 'strategies', options: str = '',
) -> table_lib.Table:  # fmt: skip
  launch, file = table_lib.launch, variant.partition(':')[0]
  rows = (
    table_lib.Row((name, f'{alpha:g}'), {'strategy': name, 'alpha': alpha})
    for name, alphas in _STRATEGIES.items()
    for alpha in alphas
  )
  return table_lib.Table(
    name, title, ('strategy', 'alpha'), {'data': data, 'num_tasks': num_tasks},
    tuple(rows),
    tuple(table_lib.Column(text, {}, key) for key, text in _MEASURES.items()),
    launch(
      variant + 'strategy={strategy},alpha={alpha}',
      name + '/{strategy}_a{alpha}', options,
    ),
    (launch(file, name, f'--sweep={sweep} {options}'),),
    against=({'alpha': 1.0}, {'strategy': 'packnet', 'alpha': 1.0}),
  )  # fmt: skip


TABLES: dict[str, table_lib.Table] = {
  table.name: table
  for table in (
    *_mnist(),
    *_cifar('cifar10_alexnet', 'alexnet'),
    *_cifar('cifar10_wrn', 'wide_resnet'),
    *large.TABLES,
    _continual(
      'permuted_mnist', 'Permuted MNIST, 10 tasks', 'permuted_mnist', 10,
      'permuted_mnist.py:',
    ),
    _continual(
      'permuted_mnist_100', 'Permuted MNIST, 100 tasks', 'permuted_mnist', 100,
      'permuted_mnist.py:hundred,', 'hundred_tasks',
    ),
    _continual(
      'split_mnist', 'Split MNIST, 5 tasks of two digits', 'split_mnist', 5,
      'split_mnist.py:',
    ),
    _continual(
      'cifar_tasks', 'CIFAR-10, then 50 classes of CIFAR-100, in 6 tasks',
      'cifar', 6, 'cifar_tasks.py:', options='--config.tasks.data_dir=DATA',
    ),
  )
}  # fmt: skip
