"""The tables as data; `TABLES` has all.

They cover the known part of the papers' own: methods, densities, tasks.
"""

from experiments.paper import image
from experiments.paper import large
from experiments.paper import patterns
from experiments.paper import table as table_lib
from experiments.paper import tasks

_TEN = {'data': 'permuted_mnist', 'num_tasks': 10, 'num_steps': 8_000}
_PERMUTED = 'permuted_mnist.py'

TABLES: dict[str, table_lib.Table] = {
  table.name: table
  for table in (
    *image.mnist(),
    *image.fashion(),
    *image.cifar('cifar10_alexnet', 'alexnet'),
    *image.cifar('cifar10_wrn', 'wide_resnet'),
    large.imagenet(),
    large.photographs(),
    large.small_text(),
    large.text_cost(),
    patterns.fashion(),
    patterns.text(),
    large.text(
      'enwik8', 'enwik8, bits per character', 'bits_per_character', 512
    ),
    large.text('wikitext103', 'WikiText-103, perplexity', 'perplexity', 410),
    tasks.packing('permuted_packing', _TEN, _PERMUTED),
    tasks.strategies(
      'permuted_mnist', 'Permuted MNIST, 10 tasks', _TEN, _PERMUTED,
      gamma=0.98, scope='layer',
    ),
    tasks.strategies(
      'permuted_mnist_100', 'Permuted MNIST, 100 tasks',
      {'data': 'permuted_mnist', 'num_tasks': 100}, _PERMUTED, 'hundred_tasks',
      alphas=tasks.BEST,
    ),
    tasks.strategies(
      'split_mnist', 'Split MNIST, 5 tasks of two digits',
      {'data': 'split_mnist', 'num_tasks': 5}, 'split_mnist.py',
    ),
    tasks.strategies(
      'cifar_tasks', 'CIFAR-10, then 50 classes of CIFAR-100, in 6 tasks',
      {'data': 'cifar', 'num_tasks': 6}, 'cifar_tasks.py',
      options=('--config.tasks.data_dir=DATA',),
    ),
  )
}  # fmt: skip
