"""The tables of tasks one after another in one network."""

from experiments.paper import spec

_LAUNCH = 'python launch.py --config=configs/'

COLUMNS = {
  'average_accuracy': 'accuracy',
  'learning_accuracy': 'when learned',
  'forgetting': 'forgetting',
  'forward_transfer': 'forward transfer',
  'intransigence': 'below alone',
  'owned': 'weights owned',
  'kept': 'tasks kept',
}
# Powerpropagation is for what is packed.
STRATEGIES = {
  'alone': (1.0,),
  'efficient_packnet': (1.0, 2.0, 3.0, 4.0),
  'ewc': (1.0,),
  'fine_tuning': (1.0,),
  'joint': (1.0,),
  'l2': (1.0,),
  'packnet': (1.0, 2.0),
}


def _table(
  name: str,
  title: str,
  data: str,
  num_tasks: int,
  variant: str,
  more: str = '',
  sweep: str = 'strategies',
) -> spec.Table:
  rows = tuple(
    spec.Row((strategy, f'{alpha:g}'), {'strategy': strategy, 'alpha': alpha})
    for strategy, alphas in STRATEGIES.items()
    for alpha in alphas
  )
  return spec.Table(
    name,
    title,
    ('strategy', 'alpha'),
    {'data': data, 'num_tasks': num_tasks},
    rows,
    tuple(spec.Column(label, {}, name) for name, label in COLUMNS.items()),
    f'{_LAUNCH}{variant}strategy={{strategy}},alpha={{alpha}}{more} '
    f'--workdir=runs/paper/{name}/{{strategy}}_a{{alpha}}',
    against=({'alpha': 1.0}, {'strategy': 'packnet', 'alpha': 1.0}),
    sweeps=(
      f'{_LAUNCH}{variant.partition(":")[0]} --sweep={sweep}{more} '
      f'--workdir=runs/paper/{name}',
    ),
  )


TABLES = (
  _table(
    'permuted_mnist',
    'Permuted MNIST, 10 tasks',
    'permuted_mnist',
    10,
    'permuted_mnist.py:',
  ),
  _table(
    'permuted_mnist_100',
    'Permuted MNIST, 100 tasks',
    'permuted_mnist',
    100,
    'permuted_mnist.py:hundred,',
    sweep='hundred_tasks',
  ),
  _table(
    'split_mnist',
    'Split MNIST, 5 tasks of two digits',
    'split_mnist',
    5,
    'split_mnist.py:',
  ),
  _table(
    'cifar_tasks',
    'CIFAR-10, then 50 classes of CIFAR-100, in 6 tasks',
    'cifar',
    6,
    'cifar_tasks.py:',
    ' --config.tasks.data_dir=DATA',
  ),
)
