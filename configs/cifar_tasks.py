"""CIFAR-10, then five tens of the classes of CIFAR-100, in one ResNet-32.

  tfds build cifar10,cifar100 --data_dir=DATA --file_format=array_record
  python launch.py --config=configs/cifar_tasks.py:strategy=STRATEGY,alpha=A \
      --config.tasks.data_dir=DATA --workdir=DIR

STRATEGY as in `configs/permuted_mnist.py`. The tasks and the network are
customary (Zenke et al., 2017, https://arxiv.org/abs/1703.04200), all else is
this project's choice. Hardware: one GPU; not trained by us.
"""

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import permuted_mnist
from configs import sections


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  _, given = arguments.parse(
    argument,
    ('',),
    strategy='efficient_packnet',
    alpha=1.0,
    gamma=permuted_mnist.GAMMA,
    scope='layer',
    rate=0.05,
    num_steps=20_000,
  )
  words = ','.join(f'{key}={value}' for key, value in given.items())
  config = permuted_mnist.get_config(words)
  num_steps = given['num_steps']
  config.tasks = dict(
    name='cifar',
    num_tasks=6,
    data_dir=config_dict.placeholder(str),
    num_validation=5_000,
  )
  config.model = dict(name='resnet32', compute_dtype='float32')
  if 'biases' in config.strategy:
    config.strategy.biases = 'per_task'
  config.optimizer = sections.sgd(
    learning_rate=given['rate'],
    schedule=sections.cosine(num_steps=num_steps, warmup_steps=num_steps // 20),
    weight_decay=5e-4,
  )
  permuted_mnist.lengthen(config)
  config.train.update(
    batch_size=128, eval_batch_size=500, log_every=min(100, num_steps)
  )
  return config
