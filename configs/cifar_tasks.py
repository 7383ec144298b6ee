"""CIFAR-10, then five tens of the classes of CIFAR-100, in one ResNet-32.

  python -m experiments.data.prepare cifar10 --data_dir=DATA
  python -m experiments.data.prepare cifar100 --data_dir=DATA
  python launch.py --config=configs/cifar_tasks.py:strategy=STRATEGY,alpha=A \
      --config.tasks.data_dir=DATA --workdir=DIR

STRATEGY as in `configs/permuted_mnist.py`. The six tasks and the network are
customary (Zenke et al., 2017, https://arxiv.org/abs/1703.04200, for the tasks);
optimizer, steps, gamma and densities are this project's choice. With PackNet
and EfficientPackNet each task has its own normalization. Hardware: one GPU; the
data were not at hand, a few steps on images of their layout are a test.
"""

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import strategies


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  _, given = arguments.parse(
    argument,
    ('',),
    strategy='efficient_packnet',
    alpha=1.0,
    gamma=0.95,
    num_steps=20_000,
  )
  num_steps = given['num_steps']
  config = ml_collections.ConfigDict()
  config.experiment = 'continual_learning'
  config.seeds = (0, 1, 2)
  config.tasks = dict(
    name='cifar',
    num_tasks=6,
    data_dir=config_dict.placeholder(str),
    num_validation=5_000,
    pad=4,
    flip=True,
  )
  config.model = dict(name='resnet32', compute_dtype='float32')
  config.heads = 'per_task'
  config.powerprop = dict(alphas=(given['alpha'],), optimizer_in='theta')
  config.strategy = strategies.section(
    given['strategy'], num_steps=num_steps, gamma=given['gamma']
  )
  if 'biases' in config.strategy:
    config.strategy.biases = 'per_task'
  config.optimizer = dict(
    name='sgd',
    learning_rate=0.05,
    schedule=dict(
      name='cosine',
      warmup_steps=num_steps // 20,
      num_steps=num_steps,
      final=0.0,
    ),
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    clip_norm=config_dict.placeholder(float),
  )
  config.loss = dict(label_smoothing=0.0)
  config.train = dict(
    batch_size=128,
    num_micro=1,
    num_devices=1,
    eval_batch_size=500,
    num_steps=num_steps,
    log_every=min(100, num_steps),
    eval_every=num_steps,
    checkpoint_every=num_steps,
    keep_checkpoints=2,
    on_not_finite='stop',
  )
  config.test = dict(every=1, check_forgetting=True)
  return config
