"""Top-KAST on MNIST: 10% of the weights forward, 20% backward.

  python launch.py --config=configs/mnist_topkast.py --workdir=runs/topkast

With and without Powerpropagation (alpha 1 and 2), otherwise trained as
`configs/mnist_dense.py`. `:quick` makes 600 steps of each. Other densities:

  --config.method.forward_density=0.05 --config.method.backward_density=0.1

`--config.method.storage=compact` trains the same on active weights alone.

Jayakumar et al., 2020, https://arxiv.org/abs/2106.03517, has no experiment on
MNIST: the method is theirs, the protocol is that of Powerpropagation.
"""

import ml_collections
from ml_collections import config_dict

from configs import mnist_dense


def get_config(variant: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  config = mnist_dense.get_config(variant)
  config.powerprop.alphas = (1.0, 2.0)
  config.method = dict(
    name='topkast',
    storage='masked',
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=100,
    stop_refresh_at=config_dict.placeholder(int),  # None: never
    distribution='uniform',
    scope='layer',
    dense=(),
    exclude=(),
    exploration='topk',
    penalty=1e-4,
    penalty_kind='l2',
  )
  return config
