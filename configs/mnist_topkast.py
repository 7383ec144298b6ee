"""Top-KAST on MNIST: 10% of the weights forward, 20% backward.

  python launch.py --config=configs/mnist_topkast.py --workdir=runs/topkast

With and without Powerpropagation (alpha 2 and 1), each at its own learning
rate after a warm-up, otherwise trained as `configs/mnist_dense.py`. `:quick`
trains 600 steps of each network, and `data=fashion_mnist` may follow, with
--config.data.data_dir=DATA. Other densities, and training that stores active
weights only:

  --config.method.forward_density=0.05 --config.method.backward_density=0.1
  --config.method.storage=compact

The six networks take 11 minutes of one core.

Jayakumar et al., 2020, https://arxiv.org/abs/2106.03517, has no experiment on
MNIST: the method is theirs, the protocol is that of Powerpropagation.
"""

import ml_collections

from configs import methods
from configs import mnist_dense
from configs import sections

# Learning rate of each alpha.
RATES = {1.0: 0.3, 2.0: 0.6}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  config = mnist_dense.get_config(argument)
  config.powerprop.alphas = tuple(RATES)
  config.optimizer = sections.sgd(
    learning_rate=tuple(RATES.values()),
    schedule=dict(name='constant', warmup_steps=config.train.num_steps // 50),
    momentum=0.0,
  )
  config.method = methods.section(
    'topkast',
    density=0.1,
    backward_density=0.2,
    num_steps=config.train.num_steps,
    refresh_every=100,
    distribution='erdos_renyi_kernel',
  )
  return config
