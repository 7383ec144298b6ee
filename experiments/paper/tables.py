"""The tables as data: MNIST, CIFAR-10, continual learning; `TABLES` has all.

The rows and columns of the papers' own tables are known in part only; these
cover the known part: methods, distributions, densities, tasks.
"""

import numpy as np

from experiments.paper import large
from experiments.paper import table as table_lib

LAUNCH = 'python launch.py --config=configs/'
RUNS = ' --workdir=runs/paper/'
ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0)
SHARES = tuple(float(p) for p in np.geomspace(0.01, 1, 20))

CONTINUAL_COLUMNS = {
  'average_accuracy': 'accuracy',
  'learning_accuracy': 'when learned',
  'forgetting': 'forgetting',
  'forward_transfer': 'forward transfer',
  'intransigence': 'below alone',
  'owned': 'weights owned',
  'kept': 'tasks kept',
}
# Alphas of each strategy; Powerpropagation serves those that prune.
STRATEGIES = {
  'alone': (1.0,),
  'efficient_packnet': (1.0, 2.0, 3.0, 4.0),
  'ewc': (1.0,),
  'fine_tuning': (1.0,),
  'joint': (1.0,),
  'l2': (1.0,),
  'packnet': (1.0, 2.0),
}

_LENET_SIZES = np.array([784 * 300, 300 * 100, 100 * 10])
_OUTPUT_FACTORS = np.array([1, 1, 2])  # the output layer keeps twice the share


def _alphas(alphas: tuple[float, ...]) -> tuple[table_lib.Column, ...]:
  return tuple(
    table_lib.Column(f'alpha {alpha:g}', {'alpha': alpha}, 'accuracy')
    for alpha in alphas
  )


def _levels(
  shares: tuple[float, ...], percents: np.ndarray
) -> tuple[table_lib.Row, ...]:
  """Returns the rows of a pruning curve, densest first."""
  rows = [table_lib.Row(('as trained',), {'share': None})]
  for share, percent in sorted(zip(shares, percents, strict=True))[::-1]:
    rows.append(table_lib.Row((f'{percent:.2f}',), {'share': round(share, 9)}))
  return tuple(rows)


def _lenet_percents(shares: tuple[float, ...]) -> np.ndarray:
  """Returns the percentage of LeNet-300-100's weights kept at each level."""
  kept = np.minimum(1.0, np.outer(shares, _OUTPUT_FACTORS)) * _LENET_SIZES
  return 100 * kept.astype(int).sum(1) / _LENET_SIZES.sum()


_METHODS = {
  'headings': ('method', 'alpha'),
  'rows': tuple(
    table_lib.Row((name, f'{alpha:g}'), {'method': name, 'alpha': alpha})
    for name in (
      'dense', 'gradual', 'magnitude', 'rigl', 'set', 'snip', 'static',
      'topkast',
    )
    for alpha in (1.0, 2.0)
  ),
  'columns': tuple(
    table_lib.Column(f'{100 * density:g}%', {'density': density}, 'accuracy')
    for density in (1.0, 0.2, 0.1, 0.05, 0.02)
  ),
  'against': ({'alpha': 1.0}, {'method': 'topkast'}),
  'panel': 1,
}  # fmt: skip

_POWERPROP = f'{LAUNCH}mnist_powerprop.py{RUNS}powerprop'
_SWEEP_ALPHAS = f'{LAUNCH}mnist_powerprop.py --sweep=alphas{RUNS}powerprop'
_SWEEP_DENSITIES = f'{LAUNCH}mnist_topkast.py --sweep=densities{RUNS}topkast'
_LENET = {'data': 'mnist', 'model': 'lenet'}
_FURTHER = tuple(share for share in SHARES if share < 0.1)


def _mnist_pruning() -> table_lib.Table:
  return table_lib.Table(
    'mnist_pruning',
    'Powerpropagation on MNIST: one-shot pruning, no retraining',
    ('weights kept [%]',),
    {**_LENET, 'method': 'dense'},
    _levels(SHARES, _lenet_percents(SHARES)),
    _alphas(ALPHAS),
    _POWERPROP,
    (_SWEEP_ALPHAS,),
    against=({'alpha': 1.0},),
    lines='columns',
  )


def _mnist_topkast() -> table_lib.Table:
  rows = [table_lib.Row(('dense',), {'method': 'dense'}, _POWERPROP)]
  for forward, backward in ((0.1, 0.2), (0.05, 0.1), (0.02, 0.05)):
    rows.append(
      table_lib.Row(
        (f'{100 * forward:g}% / {100 * backward:g}%',),
        {
          'method': 'topkast',
          'density': forward,
          'backward_density': backward,
        },
        f'{LAUNCH}mnist_topkast.py --config.method.forward_density={forward:g} '
        f'--config.method.backward_density={backward:g}'
        f'{RUNS}topkast/d{forward:g}',
      )
    )
  return table_lib.Table(
    'mnist_topkast',
    'Top-KAST on MNIST against dense',
    ('D / B',),
    {**_LENET, 'share': None},
    tuple(rows),
    (
      table_lib.Column('alpha 1', {'alpha': 1.0}, 'accuracy'),
      table_lib.Column('alpha 2 (Powerprop.)', {'alpha': 2.0}, 'accuracy'),
    ),
    '{variant}',
    (_SWEEP_ALPHAS, _SWEEP_DENSITIES),
    against=({'alpha': 1.0},),
    lines='columns',
    extra=('train_share', 'minutes'),
  )


def _mnist_topkast_pruning() -> table_lib.Table:
  densities = {'density': 0.1, 'backward_density': 0.2}
  return table_lib.Table(
    'mnist_topkast_pruning',
    'Top-KAST on MNIST, 10% / 20%, pruned further without retraining',
    ('weights kept [%]',),
    {**_LENET, 'method': 'topkast', **densities},
    _levels(_FURTHER, _lenet_percents(_FURTHER)),
    _alphas((1.0, 2.0)),
    f'{LAUNCH}mnist_topkast.py{RUNS}topkast',
    (_SWEEP_DENSITIES,),
    against=({'alpha': 1.0},),
    lines='columns',
    has_plots=False,
  )


def _mnist_methods() -> table_lib.Table:
  return table_lib.Table(
    'mnist_methods',
    'Every method on MNIST, LeNet-5',
    where={'data': 'mnist', 'model': 'lenet5', 'share': None},
    command=f'{LAUNCH}mnist_methods.py:{{method}},density={{density}},'
    f'alpha={{alpha}}{RUNS}methods/{{method}}_d{{density}}_a{{alpha}}',
    sweeps=(f'{LAUNCH}mnist_methods.py --sweep=methods{RUNS}methods',),
    **_METHODS,
  )


def _cifar(name: str, model: str) -> tuple[table_lib.Table, table_lib.Table]:
  """Returns the pruning curves and the methods of one network."""
  where = {'data': 'cifar10', 'model': model}
  data = ' --config.data.data_dir=DATA'
  sweeps = tuple(
    f'{LAUNCH}{name}.py --sweep={sweep}{data}{RUNS}{name}/{sweep}'
    for sweep in ('cifar10_pruning', 'cifar10_methods')
  )
  curves = table_lib.Table(
    f'{name}_pruning',
    f'Powerpropagation on CIFAR-10, {model}: one-shot pruning, no retraining',
    ('level [%]',),
    {**where, 'method': 'dense'},
    _levels(SHARES, 100 * np.array(SHARES)),
    _alphas(ALPHAS),
    f'{LAUNCH}{name}.py:dense,density=1,backward_density=1,alpha={{alpha}}'
    f'{data}{RUNS}{name}/dense_d1_a{{alpha}}',
    sweeps[:1],
    against=({'alpha': 1.0},),
    lines='columns',
  )
  methods = table_lib.Table(
    name,
    f'Every method on CIFAR-10, {model}',
    where={**where, 'share': None},
    command=f'{LAUNCH}{name}.py:{{method}},density={{density}},'
    f'backward_density={{twice}},alpha={{alpha}}{data}'
    f'{RUNS}{name}/{{method}}_d{{density}}_a{{alpha}}',
    sweeps=sweeps,
    **_METHODS,
  )
  return methods, curves


def _continual(
  name: str,
  title: str,
  data: str,
  num_tasks: int,
  variant: str,
  more: str = '',
  sweep: str = 'strategies',
) -> table_lib.Table:
  file = variant.partition(':')[0]
  return table_lib.Table(
    name,
    title,
    ('strategy', 'alpha'),
    {'data': data, 'num_tasks': num_tasks},
    tuple(
      table_lib.Row(
        (strategy, f'{alpha:g}'), {'strategy': strategy, 'alpha': alpha}
      )
      for strategy, alphas in STRATEGIES.items()
      for alpha in alphas
    ),
    tuple(
      table_lib.Column(label, {}, metric)
      for metric, label in CONTINUAL_COLUMNS.items()
    ),
    f'{LAUNCH}{variant}strategy={{strategy}},alpha={{alpha}}{more}'
    f'{RUNS}{name}/{{strategy}}_a{{alpha}}',
    (f'{LAUNCH}{file} --sweep={sweep}{more}{RUNS}{name}',),
    against=({'alpha': 1.0}, {'strategy': 'packnet', 'alpha': 1.0}),
  )


_MANY = 'permuted_mnist.py:hundred,'
TABLES: dict[str, table_lib.Table] = {
  table.name: table
  for table in (
    _mnist_pruning(),
    _mnist_topkast(),
    _mnist_topkast_pruning(),
    _mnist_methods(),
    *_cifar('cifar10_alexnet', 'alexnet'),
    *_cifar('cifar10_wrn', 'wide_resnet'),
    *large.TABLES,
    _continual(
      'permuted_mnist', 'Permuted MNIST, 10 tasks', 'permuted_mnist', 10,
      'permuted_mnist.py:',
    ),
    _continual(
      'permuted_mnist_100', 'Permuted MNIST, 100 tasks', 'permuted_mnist', 100,
      _MANY, sweep='hundred_tasks',
    ),
    _continual(
      'split_mnist', 'Split MNIST, 5 tasks of two digits', 'split_mnist', 5,
      'split_mnist.py:',
    ),
    _continual(
      'cifar_tasks', 'CIFAR-10, then 50 classes of CIFAR-100, in 6 tasks',
      'cifar', 6, 'cifar_tasks.py:', ' --config.tasks.data_dir=DATA',
    ),
  )
}  # fmt: skip
