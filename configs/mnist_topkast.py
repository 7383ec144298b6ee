"""Top-KAST on MNIST: 10% of the weights forward, 20% backward.

  python launch.py --config=configs/mnist_topkast.py --workdir=runs/topkast

With and without Powerpropagation (alpha 2 and 1), each at its own learning
rate after a warm-up, otherwise trained as `configs/mnist_dense.py`. `:quick`
trains 600 steps of each network; `num_steps`, `distribution`, `density`,
`backward_density`, `pattern`, one of `methods.PATTERNS`, and
`data=fashion_mnist` may follow, the last with --config.data.data_dir=DATA.
Other densities, and training that stores active weights only:

  --config.method.forward_density=0.05 --config.method.backward_density=0.1
  --config.method.storage=compact

The six networks take 11 minutes of one core.

Jayakumar et al., 2020, https://arxiv.org/abs/2106.03517, has no experiment on
MNIST: the method is theirs, the protocol is that of Powerpropagation.
"""

import ml_collections

from configs import arguments
from configs import methods
from configs import mnist_dense
from configs import sections

# Learning rate of each alpha, by the sweep `tune_topkast`.
RATES = {1.0: 0.5, 2.0: 0.5}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument,
    ('', 'quick'),
    data='mnist',
    distribution='erdos_renyi_kernel',
    num_steps=0,  # 0: those of the variant
    density=0.1,
    backward_density=0.2,
    pattern='single',
  )
  config = mnist_dense.get_config(f'{variant},data={given["data"]}')
  if given['num_steps']:
    config.train.num_steps = given['num_steps']
  config.powerprop.alphas = tuple(RATES)
  config.optimizer = sections.sgd(
    learning_rate=tuple(RATES.values()),
    schedule=dict(name='constant', warmup_steps=config.train.num_steps // 50),
    momentum=0.0,
  )
  config.method = methods.section(
    'topkast',
    density=given['density'],
    backward_density=given['backward_density'],
    num_steps=config.train.num_steps,
    refresh_every=100,
    distribution=given['distribution'],
    pattern=given['pattern'],
  )
  return config
