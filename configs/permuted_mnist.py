"""Permuted MNIST: ten tasks in one LeNet-300-100.

python launch.py --config=configs/permuted_mnist.py --workdir=runs/permuted
"""

import ml_collections
from ml_collections import config_dict

DENSITIES = (
  0.8, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.17, 0.14, 0.12, 0.1, 0.085, 0.07,
  0.06, 0.05, 0.04, 0.035, 0.03, 0.025, 0.02,
)  # fmt: skip


def get_config(variant: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  if variant not in ('', 'hundred', 'quick'):
    raise ValueError(
      f"expected variant '', 'hundred' or 'quick', got {variant!r}"
    )
  config = ml_collections.ConfigDict()
  config.experiment = 'continual_learning'
  config.seeds = (0, 1, 2)
  config.tasks = dict(
    name='permuted_mnist',
    num_tasks=10,
    seed=0,
    data_dir=config_dict.placeholder(str),  # None: the files shipped with this
  )
  config.model = dict(name='lenet', hidden=(300, 100))
  config.heads = 'per_task'
  config.powerprop = dict(alphas=(1.0,), optimizer_in='theta')
  config.strategy = dict(
    name='efficient_packnet',
    gamma=0.98,
    densities=DENSITIES,
    search='linear',
    biases='frozen',
    when_exhausted='continue',
    keep_optimizer=False,
  )
  config.optimizer = dict(
    name='sgd',
    learning_rate=0.1,
    schedule=dict(name='constant', warmup_steps=0),
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    clip_norm=config_dict.placeholder(float),  # None: no clipping
  )
  config.loss = dict(label_smoothing=0.0)
  config.train = dict(
    batch_size=60,
    eval_batch_size=1_000,
    num_steps=5_000,
    log_every=500,
    eval_every=5_000,
    checkpoint_every=5_000,
    keep_checkpoints=2,
  )
  config.test = dict(every=1, check_forgetting=True)
  if variant == 'quick':
    config.seeds = (0,)
    config.tasks.num_tasks = 3
    config.train.update(
      num_steps=200, log_every=100, eval_every=100, checkpoint_every=100
    )
  return config
