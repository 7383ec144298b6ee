"""The tables of both papers, and this project's own, as data.

Which rows and columns the papers' own tables have is known in part only; these
cover what is known of them: methods, distributions, densities, tasks.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pruning
from experiments.paper import spec
from experiments.paper import tables_large
from experiments.paper import tables_tasks

LAUNCH = 'python launch.py --config=configs/'
RUNS = ' --workdir=runs/paper/'
ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0)
NUM_LEVELS = 20

_LENET_300_100 = {
  f'linear{end}': {'w': jax.ShapeDtypeStruct(shape, jnp.float32)}
  for end, shape in (('', (784, 300)), ('_1', (300, 100)), ('_2', (100, 10)))
}


def _accuracies(name: str, values: tuple[float, ...], label: str):
  """Returns a column for each value of a fact."""
  return tuple(
    spec.Column(label.format(value), {name: value}, 'accuracy')
    for value in values
  )


def _percent(densities: tuple[float, ...]) -> tuple[spec.Column, ...]:
  """Returns a column for each density."""
  return tuple(
    spec.Column(f'{100 * density:g}%', {'density': density}, 'accuracy')
    for density in densities
  )


def _share(value: float) -> float:
  return round(float(value), 9)


def _levels(labels: dict[float, str]) -> tuple[spec.Row, ...]:
  """Returns the rows of a curve of pruning, most weights first."""
  return (
    spec.Row(('as trained',), {'share': None}),
    *(
      spec.Row((labels[share],), {'share': share})
      for share in sorted(labels, reverse=True)
    ),
  )


def _mnist_levels() -> dict[float, str]:
  """Returns the labels of levels: what is kept of LeNet-300-100."""
  levels = pruning.make_levels(
    _LENET_300_100,
    lowest=0.01,
    highest=1.0,
    num_levels=NUM_LEVELS,
    output_layer='linear_2/w',
    output_factor=2.0,
  )
  kept = sum(levels.kept.values())
  return {
    _share(share): f'{100 * number / kept[-1]:.2f}'
    for share, number in zip(levels.shares, kept, strict=True)
  }


def _nominal_levels() -> dict[float, str]:
  return {
    _share(share): f'{100 * share:.2f}'
    for share in np.geomspace(0.01, 1, NUM_LEVELS)
  }


def _methods(names: tuple[str, ...]) -> tuple[spec.Row, ...]:
  """Returns two rows for each method: without Powerpropagation, and with."""
  return tuple(
    spec.Row((name, f'{alpha:g}'), {'method': name, 'alpha': alpha})
    for name in names
    for alpha in (1.0, 2.0)
  )


_NAMES = (
  'dense', 'gradual', 'magnitude', 'rigl', 'set', 'snip', 'static', 'topkast',
)  # fmt: skip
_OF_METHODS = {
  'headings': ('method', 'alpha'),
  'rows': _methods(_NAMES),
  'columns': _percent((1.0, 0.2, 0.1, 0.05, 0.02)),
  'against': ({'alpha': 1.0}, {'method': 'topkast'}),
  'panel': 1,
}

_POWERPROP = f'{LAUNCH}mnist_powerprop.py{RUNS}powerprop'

MNIST_PRUNING = spec.Table(
  'mnist_pruning',
  'Powerpropagation on MNIST: one-shot pruning, no retraining',
  ('weights kept [%]',),
  {'data': 'mnist', 'model': 'lenet', 'method': 'dense'},
  _levels(_mnist_levels()),
  _accuracies('alpha', ALPHAS, 'alpha {:g}'),
  _POWERPROP,
  sweeps=(f'{LAUNCH}mnist_powerprop.py --sweep=alphas{RUNS}powerprop',),
  against=({'alpha': 1.0},),
  lines='columns',
)

MNIST_TOPKAST = spec.Table(
  'mnist_topkast',
  'Top-KAST on MNIST against dense',
  ('D / B',),
  {'data': 'mnist', 'model': 'lenet', 'share': None},
  (
    spec.Row(('dense',), {'method': 'dense'}, _POWERPROP),
    *(
      spec.Row(
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
      for forward, backward in ((0.1, 0.2), (0.05, 0.1), (0.02, 0.05))
    ),
  ),
  (
    spec.Column('alpha 1', {'alpha': 1.0}, 'accuracy'),
    spec.Column('alpha 2 (Powerprop.)', {'alpha': 2.0}, 'accuracy'),
  ),
  '{variant}',
  against=({'alpha': 1.0},),
  lines='columns',
  extra=('train_share', 'minutes'),
  sweeps=(
    f'{LAUNCH}mnist_powerprop.py --sweep=alphas{RUNS}powerprop',
    f'{LAUNCH}mnist_topkast.py --sweep=densities{RUNS}topkast',
  ),
)

MNIST_TOPKAST_PRUNING = spec.Table(
  'mnist_topkast_pruning',
  'Top-KAST on MNIST, 10% / 20%, pruned further without retraining',
  ('weights kept [%]',),
  {
    'data': 'mnist',
    'model': 'lenet',
    'method': 'topkast',
    'density': 0.1,
    'backward_density': 0.2,
  },
  _levels({s: label for s, label in _mnist_levels().items() if s < 0.1}),
  _accuracies('alpha', (1.0, 2.0), 'alpha {:g}'),
  f'{LAUNCH}mnist_topkast.py{RUNS}topkast',
  sweeps=(f'{LAUNCH}mnist_topkast.py --sweep=densities{RUNS}topkast',),
  against=({'alpha': 1.0},),
  lines='columns',
  has_plots=False,
)

MNIST_METHODS = spec.Table(
  'mnist_methods',
  'Every method on MNIST, LeNet-5',
  where={'data': 'mnist', 'model': 'lenet5', 'share': None},
  command=f'{LAUNCH}mnist_methods.py:{{method}},density={{density}},'
  f'alpha={{alpha}}{RUNS}methods/{{method}}_d{{density}}_a{{alpha}}',
  sweeps=(f'{LAUNCH}mnist_methods.py --sweep=methods{RUNS}methods',),
  **_OF_METHODS,
)


def _cifar(name: str, model: str) -> tuple[spec.Table, spec.Table]:
  """Returns the curves of pruning and the methods, of one network."""
  where = {'data': 'cifar10', 'model': model}
  data = ' --config.data.data_dir=DATA'
  sweeps = tuple(
    f'{LAUNCH}{name}.py --sweep={sweep}{data}{RUNS}{name}/{sweep}'
    for sweep in ('cifar10_pruning', 'cifar10_methods')
  )
  curves = spec.Table(
    f'{name}_pruning',
    f'Powerpropagation on CIFAR-10, {model}: one-shot pruning, no retraining',
    ('level [%]',),
    {**where, 'method': 'dense'},
    _levels(_nominal_levels()),
    _accuracies('alpha', ALPHAS, 'alpha {:g}'),
    f'{LAUNCH}{name}.py:dense,density=1,backward_density=1,alpha={{alpha}}'
    f'{data}{RUNS}{name}/dense_d1_a{{alpha}}',
    sweeps=sweeps[:1],
    against=({'alpha': 1.0},),
    lines='columns',
  )
  methods = spec.Table(
    name,
    f'Every method on CIFAR-10, {model}',
    where={**where, 'share': None},
    command=f'{LAUNCH}{name}.py:{{method}},density={{density}},'
    f'backward_density={{twice}},alpha={{alpha}}{data}'
    f'{RUNS}{name}/{{method}}_d{{density}}_a{{alpha}}',
    sweeps=sweeps,
    **_OF_METHODS,
  )
  return curves, methods


TABLES = {
  table.name: table
  for table in (
    MNIST_PRUNING,
    MNIST_TOPKAST,
    MNIST_TOPKAST_PRUNING,
    MNIST_METHODS,
    *_cifar('cifar10_alexnet', 'alexnet'),
    *_cifar('cifar10_wrn', 'wide_resnet'),
    *tables_large.TABLES,
    *tables_tasks.TABLES,
  )
}
