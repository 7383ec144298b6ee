"""The tables of image classification: pruning, methods, Top-KAST, cost."""

import numpy as np

from experiments.paper import table as table_lib

Row, Column, Table = table_lib.Row, table_lib.Column, table_lib.Table
SHARES = tuple(float(p) for p in np.geomspace(0.01, 1, 20))  # pruning levels
RATE = 'optimizer.learning_rate'  # each method has its own
COSTS = 'train_flops', 'step_ms', 'step_seconds', 'step_bytes'

# Weights of each layer of LeNet-300-100, and the factor on the share it keeps.
_LENET_SIZES, _FACTORS = np.array([784 * 300, 300 * 100, 1000]), [1, 1, 2]
_LENET = {'model': 'lenet', 'hidden': '300-100'}
_METHODS = (
  'dense', 'acdc', 'gradual', 'magnitude', 'rigl', 'set', 'snip', 'static',
  'topkast',
)  # fmt: skip
_WITH_HAM = ('dense', 'acdc', 'rigl', 'static', 'topkast')
_PLAIN = {'powerprop': 0, 'ham': 0}
# (label, facts) of what methods are combined with.
VARIANTS = (
  ('plain', _PLAIN),
  ('Powerprop.', {'powerprop': 1, 'ham': 0}),
  ('HAM', {'powerprop': 0, 'ham': 1}),
)
_DENSITIES = (0.2, 0.1, 0.05, 0.02)
# Top-KAST's usual choices, and its runs on Fashion-MNIST.
CHOICES = {
  'refresh_every': 100, 'exploration': 'topk', 'penalty': 1e-4,
  'stop_refresh_at': None, 'pattern': None,
}  # fmt: skip
LENET_TOPKAST = {
  'data': 'fashion_mnist', **_LENET, 'num_steps': 10_000, 'share': None,
  'method': 'topkast', 'alpha': 1.0,
}  # fmt: skip
_DATA = table_lib.DATA
_FASHION = 'data=fashion_mnist'


def mnist() -> list[Table]:
  """Returns pruning curves, Top-KAST, and every method on MNIST."""
  alphas = table_lib.launch('mnist_powerprop.py', 'mnist_powerprop')
  densities = table_lib.launch(
    'mnist_topkast.py', 'mnist_topkast', '--sweep=densities'
  )
  where = {'data': 'mnist', **_LENET, 'num_steps': 50_000}
  rows = [Row(('dense',), {'method': 'dense'})]
  for a, b in ((0.1, 0.2), (0.05, 0.1), (0.02, 0.05)):
    facts = {'method': 'topkast', 'density': a, 'backward_density': b}
    rows.append(Row((f'{100 * a:g}% / {100 * b:g}%',), facts))
  kept = np.minimum(1, np.outer(SHARES, _FACTORS)) * _LENET_SIZES
  percents = 100 * kept.astype(int).sum(1) / _LENET_SIZES.sum()
  num_further = sum(share < 0.1 for share in SHARES)
  return [
    _pruning(
      'mnist_pruning',
      'Powerpropagation on MNIST: one-shot pruning, no retraining',
      'weights kept [%]', {**where, 'method': 'dense'}, SHARES, percents,
      range(1, 6), alphas,
    ),
    Table(
      'mnist_topkast', 'Top-KAST on MNIST against dense', ('D / B',),
      {**where, 'share': None}, tuple(rows),
      (
        Column('alpha 1', {'alpha': 1.0}, 'accuracy'),
        Column('alpha 2 (Powerprop.)', {'alpha': 2.0}, 'accuracy'),
      ),
      (alphas, densities), against=({'alpha': 1.0},), lines='columns',
      across=(RATE,), varies=(RATE,), extra=('train_share', 'minutes'),
    ),
    _pruning(
      'mnist_topkast_pruning',
      'Top-KAST on MNIST, 10% / 20%, pruned further without retraining',
      'weights kept [%]', {**where, **rows[1].where}, SHARES[:num_further],
      percents[:num_further], (1, 2), densities, plots='',
    ),
    *_lenet5('mnist', 'MNIST'),
  ]  # fmt: skip


def fashion() -> list[Table]:
  """Returns methods in two networks, ablations and cost on Fashion-MNIST."""
  residual = table_lib.launch(
    'fashion_resnet.py', 'fashion_resnet', '--sweep=residual', _DATA
  )
  return [
    *_lenet5('fashion_mnist', 'Fashion-MNIST', f':{_FASHION}', _DATA),
    _methods(
      'fashion_resnet', 'Methods on Fashion-MNIST, WideResNet-16-1',
      {'data': 'fashion_mnist', 'model': 'wide_resnet', 'num_steps': 3_000},
      residual, densities=_DENSITIES[:3],
      names=(
        ('dense', 'acdc', 'gradual', 'rigl', 'static', 'topkast'),
        ('dense', 'gradual', 'rigl', 'static', 'topkast'), ('acdc',),
      ),
    ),
    _ablations(),
    _cost(),
  ]  # fmt: skip


def cifar(name: str, model: str) -> list[Table]:
  """Returns the methods and the pruning curves of one network."""
  where = {'data': 'cifar10', 'model': model}
  methods, pruning = (
    table_lib.launch(f'{name}.py', f'{name}/{s}', f'--sweep={s}', _DATA)
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
      {**where, 'method': 'dense', 'ham': 0}, SHARES, 100 * np.array(SHARES),
      range(1, 6), pruning,
    ),
  ]  # fmt: skip


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
    against=({'alpha': 1.0},), lines='columns', across=(RATE,), varies=(RATE,),
    **options,
  )  # fmt: skip


def _methods(
  name: str, title: str, where, *sweeps: str,
  names=(_METHODS, _METHODS, _WITH_HAM), densities=_DENSITIES,
) -> Table:  # fmt: skip
  """Returns the table of methods, plain and combined, by density."""
  rows = (
    Row((method, label), {'method': method, **facts})
    for method in names[0]
    for (label, facts), own in zip(VARIANTS, names, strict=True)
    if method in own
  )
  columns = (
    Column(f'{100 * x:g}%', {'density': x}, 'accuracy')
    for x in (1.0, *densities)
  )
  return Table(
    name, title, ('method', 'variant'), {**where, 'share': None},
    tuple(rows), tuple(columns), sweeps, panel=1, varies=(RATE,),
    against=(_PLAIN, {'method': 'topkast'}),
  )  # fmt: skip


def _lenet5(data: str, title: str, variant: str = '', *options: str):
  """Returns the tables of every method in 1,000 and in 10,000 steps."""
  short = data.partition('_')[0]
  for suffix, num_steps, densities in (
    ('', 1_000, _DENSITIES), ('_long', 10_000, (0.05,)),
  ):  # fmt: skip
    sweep = f'methods{suffix}'
    yield _methods(
      f'{short}_{sweep}',
      f'Every method on {title}, LeNet-5, {num_steps:,} steps',
      {'data': data, 'model': 'lenet5', 'num_steps': num_steps},
      table_lib.launch(
        f'mnist_methods.py{variant}', f'{short}_{sweep}', f'--sweep={sweep}',
        *options,
      ),
      names=(_METHODS, _METHODS, ('gradual', *_WITH_HAM)),
      densities=densities,
    )  # fmt: skip


def _ablations() -> Table:
  """Returns Top-KAST's choices, one changed at a time."""
  base = {**CHOICES, 'density': 0.1, 'backward_density': 0.2}
  rows = [('all others', 'refresh 100, B 20%, penalty 1e-4', {})]
  for steps in (1, 10, 50, 500):
    rows.append(('refresh every', f'{steps}', {'refresh_every': steps}))
  rows += [
    ('B', '10% = A', {'backward_density': 0.1}),
    ('B', '20%, random', {'exploration': 'random'}),
    ('B', '100%', {'backward_density': 1.0}),
    *(('penalty', f'{x:g}', {'penalty': x}) for x in (0.0, 1e-5, 1e-3)),
    ('last refresh', '10% of steps', {'stop_refresh_at': 1_000}),
    ('last refresh', '50% of steps', {'stop_refresh_at': 5_000}),
  ]
  sweep = table_lib.launch(
    'fashion_topkast.py', 'fashion_topkast', '--sweep=ablations', _DATA
  )  # fmt: skip
  return Table(
    'fashion_topkast', "Top-KAST's choices on Fashion-MNIST, LeNet-300-100",
    ('choice', 'setting'), LENET_TOPKAST,
    tuple(Row((a, b), {**base, **facts}) for a, b, facts in rows),
    (
      Column('alpha 1', {}, 'accuracy'),
      Column('alpha 2 (Powerprop.)', {'alpha': 2.0}, 'accuracy'),
      Column('left A, first tenth', {}, 'first_change'),
      Column('left A, last tenth', {}, 'last_change'),
    ),
    (sweep,), against=(base,), across=(RATE,), varies=(RATE,), plots='choices',
  )  # fmt: skip


def _cost() -> Table:
  """Returns dense networks against compact Top-KAST ones, of several widths."""
  rows = []
  for first in (75, 150, 300, 600, 1_200):
    hidden = f'{first}-{first // 3}'
    facts = {'method': 'dense', 'hidden': hidden}
    rows.append(Row(('dense', '', hidden), facts))
  for a in (0.2, 0.1, 0.05):
    for first in (600, 1_200, 2_400):
      hidden = f'{first}-{first // 3}'
      facts = {'method': 'topkast', 'storage': 'compact', 'hidden': hidden}
      facts |= {'density': a, 'backward_density': 2 * a}
      label = f'{100 * a:g}% / {200 * a:g}%'
      rows.append(Row(('Top-KAST', label, hidden), facts))
  sweep = table_lib.launch(
    'fashion_cost.py', 'fashion_cost', '--sweep=cost', _DATA
  )
  return Table(
    'fashion_cost', 'Accuracy against the cost of training on Fashion-MNIST',
    ('method', 'D / B', 'hidden'),
    {
      'data': 'fashion_mnist', 'model': 'lenet', 'num_steps': 10_000,
      'share': None, 'powerprop': 0, 'ham': 0,
    },
    tuple(rows), (Column('accuracy', {}, 'accuracy'),), (sweep,),
    varies=(RATE, 'model.hidden'), plots='cost',
    extra=COSTS,
  )  # fmt: skip
