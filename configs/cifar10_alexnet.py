"""A small AlexNet on CIFAR-10: every method, and pruning afterwards.

  python -m experiments.data.prepare cifar10 --data_dir=DATA
  python launch.py --config=configs/cifar10_alexnet.py:METHOD,density=D \
      --config.data.data_dir=DATA --workdir=DIR

METHOD is dense (with the curve of one-shot pruning, as in Powerpropagation),
static, set, rigl, magnitude (one shot, half way), gradual, snip or topkast;
further keys: backward_density of Top-KAST, distribution, alpha of
Powerpropagation (1 for none), and num_steps, which all milestones follow.

Schwarz et al., 2021, https://arxiv.org/abs/2110.00296, use "a smaller version
of AlexNet". Its sizes and their recipe are not known to us: both are choices of
this project, and no published figure is to be compared with. Hardware: one GPU.
CIFAR-10 was not at hand; a few steps on images of its layout are a test.
"""

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import methods


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  name, given = arguments.parse(
    argument,
    methods.NAMES,
    density=0.1,
    backward_density=0.2,
    distribution='uniform',
    alpha=1.0,
    num_steps=70_400,  # 200 epochs of 45,000 / 128
  )
  num_steps, alpha = given['num_steps'], given['alpha']
  config = ml_collections.ConfigDict()
  config.experiment = 'image_classification'
  config.seeds = (0, 1, 2)
  config.side_by_side = 'auto'
  config.data = dict(
    name='cifar10',
    data_dir=config_dict.placeholder(str),
    num_validation=5_000,
    pad=4,
    flip=True,
  )
  config.model = dict(name='alexnet', dropout=0.5, compute_dtype='float32')
  config.powerprop = dict(alphas=(alpha,), optimizer_in='theta')
  config.method = methods.section(
    name,
    density=given['density'],
    backward_density=given['backward_density'],
    num_steps=num_steps,
    refresh_every=100,
    distribution=given['distribution'],
    # A weight at zero stays there under Powerpropagation; 1e-4 in theta.
    grow_at=0.0 if alpha == 1 else 1e-4 ** (1 / alpha),
  )
  config.optimizer = dict(
    name='sgd',
    learning_rate=0.1,
    schedule=dict(
      name='piecewise',
      warmup_steps=390,
      boundaries=(num_steps // 2, num_steps * 3 // 4),
      factor=0.1,
    ),
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    clip_norm=config_dict.placeholder(float),
  )
  config.loss = dict(label_smoothing=0.0)
  config.train = dict(
    batch_size=128,
    eval_batch_size=500,
    num_micro=1,
    num_devices=1,
    num_steps=num_steps,
    log_every=100,
    eval_every=2_000,
    checkpoint_every=2_000,
    keep_checkpoints=2,
    on_not_finite='stop',
  )
  config.prune = dict(
    lowest=0.01,
    highest=1.0,
    num_levels=20,
    output_layer=config_dict.placeholder(str),
    output_factor=1.0,
  )
  return config
