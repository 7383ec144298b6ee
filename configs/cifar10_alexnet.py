"""A small AlexNet on CIFAR-10: every method, and pruning afterwards.

  tfds build cifar10 --data_dir=DATA --file_format=array_record
  python launch.py --config=configs/cifar10_alexnet.py:METHOD,density=D \
      --config.data.data_dir=DATA --workdir=DIR

METHOD is one of `methods.NAMES`; dense gives the curve of one-shot pruning.
Further keys: backward_density of Top-KAST, distribution, alpha of
Powerpropagation, `ham=200` for HAM, and num_steps, which scales all milestones.
Sizes and recipe are this project's choice, as those of Schwarz et al., 2021,
https://arxiv.org/abs/2110.00296, are unknown to us. Hardware: one GPU; not
trained by us.
"""

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import methods
from configs import sections


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  name, given = arguments.parse(
    argument,
    methods.NAMES,
    methods.unused,
    density=0.1,
    backward_density=0.2,
    distribution='erdos_renyi_kernel',
    alpha=1.0,
    ham=0.0,
    num_steps=70_400,  # 200 epochs of 45,000 / 128
  )
  num_steps, ham = given.pop('num_steps'), given.pop('ham')
  alpha = given['alpha']
  config = ml_collections.ConfigDict()
  config.experiment = 'image_classification'
  config.seeds = (0, 1, 2)
  config.data = dict(
    name='cifar10',
    data_dir=config_dict.placeholder(str),
    num_validation=5_000,
  )
  config.model = dict(name='alexnet', dropout=0.5, compute_dtype='float32')
  config.powerprop = dict(alphas=(alpha,), optimizer_in='theta')
  config.method = methods.section(
    name, num_steps=num_steps, refresh_every=100, **given
  )
  config.optimizer = sections.sgd(
    learning_rate=0.1,
    schedule=dict(
      name='piecewise',
      warmup_steps=390,
      boundaries=(num_steps // 2, num_steps * 3 // 4),
      factor=0.1,
    ),
    weight_decay=5e-4,
    ham_a=ham,
  )
  config.loss = dict(label_smoothing=0.0)
  config.train = sections.train(
    batch_size=128,
    eval_batch_size=500,
    num_steps=num_steps,
    eval_every=2_000,
    checkpoint_every=2_000,
  )
  config.prune = sections.prune(num_levels=20)
  return config
