"""WideResNet-22-2 on CIFAR-10: every method, and pruning afterwards.

  python launch.py --config=configs/cifar10_wrn.py:METHOD,density=D \
      --config.data.data_dir=DATA --workdir=DIR

Data, keys and hardware as in `configs/cifar10_alexnet.py`. The recipe is this
project's choice: 250 epochs of batches of 128, L2 of 5e-4.
"""

import ml_collections

from configs import cifar10_alexnet

NUM_STEPS = 88_000  # 250 epochs of 45,000 / 128


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  config = cifar10_alexnet.get_config(f'{argument},num_steps={NUM_STEPS}')
  config.model = dict(
    name='wide_resnet', depth=22, width=2, dropout=0.0, compute_dtype='float32'
  )
  config.optimizer.schedule = dict(
    name='piecewise',
    warmup_steps=390,
    boundaries=(30_000, 60_000, 80_000),
    factor=0.2,
  )
  return config
