"""Top-KAST on Fashion-MNIST: its choices, and patterns in place of entries.

  python launch.py --config=configs/fashion_topkast.py \
      --config.data.data_dir=DATA --workdir=DIR

LeNet-300-100 with and without Powerpropagation (alpha 2 and 1): 10,000 steps,
clipped gradients, and for each alpha a learning rate of its own that falls
along a cosine. `density`, `backward_density` and `pattern`, one of
`methods.PATTERNS`, may follow: `:density=0.2,pattern=block_4`. The choices are
the sweep `ablations`. Three seeds; a network takes 20 seconds of one core.

The questions are those of Jayakumar et al., 2020,
https://arxiv.org/abs/2106.03517, the recipe is this project's choice.
"""

import ml_collections

from configs import arguments
from configs import methods
from configs import mnist_dense
from configs import sections

NUM_STEPS = 10_000
# Learning rate of each alpha: the lowest within 0.2 points of the best in the
# sweep `tune_topkast`, as other choices and patterns train at it too.
RATES = {1.0: 1.2, 2.0: 1.2}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  _, given = arguments.parse(
    argument, ('',), density=0.1, backward_density=0.2, pattern='single'
  )
  config = mnist_dense.get_config('data=fashion_mnist')
  config.powerprop.alphas = tuple(RATES)
  config.train.num_steps = NUM_STEPS
  config.method = methods.section(
    'topkast',
    **given,
    num_steps=NUM_STEPS,
    refresh_every=100,
    distribution='erdos_renyi_kernel',
  )
  config.optimizer = sections.sgd(
    learning_rate=tuple(RATES.values()),
    schedule=sections.cosine(num_steps=NUM_STEPS, warmup_steps=NUM_STEPS // 50),
    momentum=0.0,
    clip_norm=1.0,
  )
  return config


def tune_topkast(add):
  """Learning rates of each alpha."""
  for alpha in RATES:
    for rate in (0.5, 0.8, 1.2, 2.0, 3.0, 5.0):
      add({'powerprop.alphas': (alpha,), 'optimizer.learning_rate': rate})


def ablations(add):
  """One choice of Top-KAST at a time."""
  for changes in (
    *({'refresh_every': n} for n in (100, 1, 10, 50, 500)),
    *({'backward_density': b} for b in (0.1, 1.0)),
    {'exploration': 'random'},
    *({'penalty': x} for x in (0.0, 1e-5, 1e-3)),
    *({'stop_refresh_at': n} for n in (NUM_STEPS // 10, NUM_STEPS // 2)),
  ):
    add({f'method.{key}': value for key, value in changes.items()})
