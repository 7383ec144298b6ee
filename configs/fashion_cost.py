"""Accuracy against the cost of training: perceptrons on Fashion-MNIST.

  python launch.py --config=configs/fashion_cost.py:dense,hidden=300 \
      --config.data.data_dir=DATA --workdir=DIR
  python launch.py --config=configs/fashion_cost.py:topkast,hidden=1200 \
      --config.data.data_dir=DATA --workdir=DIR

Small dense networks against large ones of which Top-KAST trains a part, in
compact storage: a third as many units in the second hidden layer as in the
first, `hidden`; `density` is the forward density, half the backward one. Three
seeds of 10,000 steps, one learning rate of each method, that of the middle one;
the recipe is this project's choice. The sweep `cost` has all networks, and
`python -m benchmarks.cost` measures the time of a step.
"""

import ml_collections

from configs import arguments
from configs import methods
from configs import mnist_dense
from configs import sections

# The sweep `tune_cost` tries others.
RATES = {'dense': 0.3, 'topkast': 0.3}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  name, given = arguments.parse(
    argument,
    tuple(RATES),
    methods.unused,
    hidden=300,
    density=0.1,
    rate=0.0,  # 0: that of `RATES`
    num_steps=10_000,
    data='fashion_mnist',
  )
  num_steps = given['num_steps']
  config = mnist_dense.get_config(f'data={given["data"]}')
  config.model.hidden = (given['hidden'], given['hidden'] // 3)
  config.method = methods.section(
    name,
    density=given['density'],
    num_steps=num_steps,
    refresh_every=100,
    distribution='erdos_renyi_kernel',
  )
  if name == 'topkast':
    config.method.storage = 'compact'
  config.optimizer = sections.sgd(
    learning_rate=given['rate'] or RATES[name],
    schedule=sections.cosine(num_steps=num_steps, warmup_steps=num_steps // 50),
    momentum=0.0,
  )
  config.train.num_steps = num_steps
  config.prune = sections.prune()
  return config


def cost(add):
  """Dense and compact networks of several widths."""
  for hidden in (75, 150, 300, 600, 1200):
    add({'config': f':dense,hidden={hidden}'})
  for hidden in (600, 1200, 2400):
    for density in (0.2, 0.1, 0.05):
      add({'config': f':topkast,hidden={hidden},density={density}'})


def tune_cost(add):
  """Learning rates of each method, in a network of middle size."""
  for variant in ('dense,hidden=300', 'topkast,hidden=1200,density=0.1'):
    for rate in (0.1, 0.2, 0.3, 0.5, 0.8):
      add({'config': f':{variant},rate={rate}'})
