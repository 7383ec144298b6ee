"""Powerpropagation on MNIST: accuracy against weights kept.

  python launch.py --config=configs/mnist_powerprop.py --workdir=runs/powerprop

The first experiment of Schwarz et al., 2021, https://arxiv.org/abs/2110.00296:
alpha 1 to 5, then one-shot pruning at 20 levels without retraining. `:quick`
trains 600 steps of each network, `:demo` 5,000 steps with two seeds;
`data=fashion_mnist` may follow either, with --config.data.data_dir=DATA.

The protocol is that of the notebook released with the paper, except for the
learning rate: each alpha has its own, after a warm-up over 2% of the steps. The
sweep `tune_pruning` found them; one rate for all alphas, such as
--config.optimizer.learning_rate=0.1, favours alpha 1.

The 15 networks take 22 minutes of one core.
"""

import ml_collections

from configs import arguments
from configs import mnist_dense
from configs import sections

# Learning rate of each alpha.
RATES = {1.0: 0.5, 2.0: 1.2, 3.0: 0.5, 4.0: 0.3, 5.0: 0.2}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument, ('', 'demo', 'quick'), data='mnist'
  )
  base = 'quick' if variant == 'quick' else ''
  config = mnist_dense.get_config(f'{base},data={given["data"]}')
  if variant == 'demo':
    config.seeds = (0, 1)
    config.train.update(num_steps=5_000, checkpoint_every=2_500)
  config.powerprop.alphas = tuple(RATES)
  config.optimizer = sections.sgd(
    learning_rate=tuple(RATES.values()),
    schedule=dict(name='constant', warmup_steps=config.train.num_steps // 50),
    momentum=0.0,
  )
  return config
