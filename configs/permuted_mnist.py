"""Permuted MNIST: tasks one after another in one LeNet-300-100.

  python launch.py \
      --config=configs/permuted_mnist.py:strategy=STRATEGY,alpha=A --workdir=DIR

STRATEGY is one of `STRATEGIES`; `alone` trains one network for each task. Ten
tasks of 8,000 steps and three seeds; `:hundred` has a hundred tasks of 2,000
steps and one seed, `:quick` three tasks of 200; keys follow:
`:hundred,alpha=2`.

Further keys: `rate`, the learning rate (0: the tuned one of alpha), and of
EfficientPackNet `gamma`, the share of the accuracy that a task keeps, and
`scope`, the largest weights of each layer or, `global`, of all together. The
rate goes along a cosine for each task. PackNet retrains for as long as it
trains. Ten tasks of one seed take 3.5 minutes of one core.

Network and batches are those of Powerpropagation's MNIST experiment; all else
is this project's choice, as that of Schwarz et al., 2021,
https://arxiv.org/abs/2110.00296, is unknown to us.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import sections

STRATEGIES = (
  'efficient_packnet', 'packnet', 'fine_tuning', 'ewc', 'l2', 'joint', 'alone',
)  # fmt: skip

# EfficientPackNet's, tried from the largest down, while accuracy stays.
DENSITIES = (
  0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3,
  0.26, 0.22, 0.19, 0.16, 0.14, 0.12, 0.1, 0.085, 0.07, 0.06, 0.05, 0.04, 0.03,
  0.02, 0.01,
)  # fmt: skip
GAMMA = 0.98
SCOPES = ('layer', 'global')
NUM_STEPS = {'': 8_000, 'hundred': 2_000, 'quick': 200}
# Learning rate of each alpha, from the sweep `tune_packing`: the best accuracy
# in validation, and for EfficientPackNet the rate that owns least of those
# within half a point of it.
RATES = {1.0: 0.5, 2.0: 2.0, 3.0: 2.0, 4.0: 1.2}
PACKING_RATES = {1.0: 2.0, 2.0: 3.0, 3.0: 3.0, 4.0: 2.0}
# The curvature of a quadratic penalty limits the rate.
PENALTY_RATE = 0.1


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument,
    tuple(NUM_STEPS),
    strategy='efficient_packnet',
    alpha=1.0,
    gamma=GAMMA,
    scope='layer',
    rate=0.0,
    num_steps=0,  # of each task; 0: those of the variant
  )
  num_steps = given['num_steps'] or NUM_STEPS[variant]
  config = ml_collections.ConfigDict()
  config.experiment = 'continual_learning'
  config.seeds = (0, 1, 2)
  config.tasks = dict(
    name='permuted_mnist',
    num_tasks=10,
    seed=0,
    data_dir=config_dict.placeholder(str),  # None: the files shipped with this
  )
  config.model = dict(name='lenet', hidden=(300, 100))
  config.powerprop = dict(alphas=(given['alpha'],), optimizer_in='theta')
  config.strategy = _strategy(
    given['strategy'], num_steps, given['gamma'], given['scope']
  )
  config.optimizer = sections.sgd(
    learning_rate=given['rate'] or _rate(given['strategy'], given['alpha']),
    schedule=sections.cosine(num_steps=num_steps, warmup_steps=num_steps // 80),
    momentum=0.0,
    clip_norm=1.0,
  )
  config.train = sections.train(
    batch_size=60,
    eval_batch_size=1_000,
    num_steps=num_steps,
    log_every=min(500, num_steps),
    eval_every=num_steps,
    checkpoint_every=num_steps,
  )
  config.test = dict(every=1, check_forgetting=True)
  if variant == 'hundred':
    config.seeds = (0,)
    config.tasks.num_tasks = 100
    config.test.every = 10
  if variant == 'quick':
    config.seeds = (0,)
    config.tasks.num_tasks = 3
    config.train.update(log_every=100, eval_every=200, checkpoint_every=200)
  lengthen(config)
  return config


def lengthen(config: ml_collections.ConfigDict) -> None:
  """Gives the cosine the length of all tasks if one stage trains all."""
  if config.strategy.name == 'joint':
    config.optimizer.schedule.num_steps *= config.tasks.num_tasks


def _rate(strategy: str, alpha: float) -> float:
  if strategy in ('ewc', 'l2'):
    return PENALTY_RATE
  rates = PACKING_RATES if strategy == 'efficient_packnet' else RATES
  if alpha not in rates:
    raise ValueError(
      f'expected rate=R with alpha={alpha:g}; rates are known for alpha out of '
      f'{", ".join(f"{known:g}" for known in rates)}'
    )
  return rates[alpha]


def _strategy(
  name: str, num_steps: int, gamma: float, scope: str
) -> dict[str, Any]:
  """Returns the section `config.strategy`, for so many steps a task."""
  if name not in STRATEGIES:
    raise ValueError(f'expected strategy={"|".join(STRATEGIES)}, got {name!r}')
  if scope not in SCOPES:
    raise ValueError(f'expected scope={"|".join(SCOPES)}, got {scope!r}')
  own = {'gamma': gamma != GAMMA, 'scope': scope != SCOPES[0]}
  for key, is_given in own.items():
    if is_given and name != 'efficient_packnet':
      raise ValueError(
        f'expected {key} with strategy=efficient_packnet, got {name!r}, which '
        'does not use it'
      )
  sections = {
    'efficient_packnet': dict(
      biases='frozen', gamma=gamma, densities=DENSITIES, scope=scope
    ),
    'packnet': dict(biases='frozen', retrain_steps=num_steps),
    'fine_tuning': dict(),
    'ewc': dict(strength=30.0, num_examples=500, fisher_batch_size=10),
    'l2': dict(strength=0.001),
    'joint': dict(),
    'alone': dict(),
  }
  return dict(sections[name], name=name)


def packing(add):
  """Accuracy against weights owned, over gamma."""
  for scope, alphas in (('layer', (1.0, 2.0, 3.0)), ('global', (1.0, 2.0))):
    for alpha in alphas:
      for gamma in (0.95, 0.97, 0.98, 0.99, 0.995):
        # In the section: some are the config's own.
        own = {'strategy.gamma': gamma, 'strategy.scope': scope}
        add({'config': f':alpha={alpha:g}', **own})


def tune_packing(add):
  """Learning rates of each alpha, on five tasks."""
  for alpha in (1.0, 2.0, 3.0, 4.0):
    for rate in (0.5, 0.8, 1.2, 2.0, 3.0, 5.0):
      keys = f':alpha={alpha:g},rate={rate}'
      add({'config': keys, 'tasks.num_tasks': 5})


def hundred_tasks(add):
  """A hundred tasks, with the best of the sweep `strategies`."""
  for alpha in (1.0, 2.0):
    for name in ('efficient_packnet', 'packnet'):
      add({'config': f':hundred,strategy={name},alpha={alpha}'})
  for name in ('ewc', 'alone'):
    add({'config': f':hundred,strategy={name}'})
