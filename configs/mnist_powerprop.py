"""Powerpropagation on MNIST: accuracy against weights kept.

  python launch.py --config=configs/mnist_powerprop.py --workdir=runs/powerprop

The first experiment of Schwarz et al., 2021, https://arxiv.org/abs/2110.00296,
as in the notebook released with it: alpha 1 to 5, then one-shot pruning at 20
levels without retraining. `:quick` trains 600 steps of each network, `:demo`
5,000 steps with two seeds; `data=fashion_mnist` may follow either.

The 15 networks take 22 minutes of one core. Test accuracy at 5.48% of the
weights: alpha 1 58.8%, alpha 2 85.5%, alpha 4 86.5%, alpha 5 87.5%.
"""

import ml_collections

from configs import arguments
from configs import mnist_dense


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument, ('', 'demo', 'quick'), data='mnist'
  )
  base = 'quick' if variant == 'quick' else ''
  config = mnist_dense.get_config(f'{base},data={given["data"]}')
  config.powerprop.alphas = (1.0, 2.0, 3.0, 4.0, 5.0)
  if variant == 'demo':
    config.seeds = (0, 1)
    config.train.update(num_steps=5_000, checkpoint_every=2_500)
  return config
