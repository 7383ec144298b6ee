"""Split MNIST: five tasks of two digits each, in one LeNet-300-100.

  python launch.py --config=configs/split_mnist.py:strategy=STRATEGY,alpha=A \
      --workdir=DIR

STRATEGY as in `configs/permuted_mnist.py`; `:quick` has 200 steps for each
task. The digits are 0 and 1, 2 and 3, and so on (Zenke et al., 2017,
https://arxiv.org/abs/1703.04200). All else as in `configs/permuted_mnist.py`.
"""

import ml_collections
from ml_collections import config_dict

from configs import permuted_mnist


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  if argument.partition(',')[0] == 'hundred':
    raise ValueError("expected variant '' or 'quick', got 'hundred'")
  config = permuted_mnist.get_config(argument)
  config.tasks = dict(
    name='split_mnist',
    num_tasks=5,
    data_dir=config_dict.placeholder(str),  # None: the files shipped with this
  )
  config.optimizer.schedule.num_steps = config.train.num_steps
  permuted_mnist.lengthen(config)
  return config
