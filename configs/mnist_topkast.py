"""Top-KAST on MNIST: 10% of the weights forward, 20% backward.

  python launch.py --config=configs/mnist_topkast.py --workdir=runs/topkast

With and without Powerpropagation (alpha 1 and 2), otherwise trained as
`configs/mnist_dense.py`. `:quick` trains 600 steps of each network;
`distribution` and `data=fashion_mnist` may follow. Other densities, and
training that stores active weights only:

  --config.method.forward_density=0.05 --config.method.backward_density=0.1
  --config.method.storage=compact

The six networks take 11 minutes of one core; the test accuracy is 97.77 ± 0.14%
(alpha 1) and 97.40 ± 0.06% (alpha 2).

Jayakumar et al., 2020, https://arxiv.org/abs/2106.03517, has no experiment on
MNIST: the method is theirs, the protocol is that of Powerpropagation.
"""

import ml_collections

from configs import arguments
from configs import methods
from configs import mnist_dense


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument, ('', 'quick'), data='mnist', distribution='erdos_renyi_kernel'
  )
  config = mnist_dense.get_config(f'{variant},data={given["data"]}')
  config.powerprop.alphas = (1.0, 2.0)
  config.method = methods.section(
    'topkast',
    density=0.1,
    num_steps=config.train.num_steps,
    refresh_every=100,
    distribution=given['distribution'],
  )
  return config
