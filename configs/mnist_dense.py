"""LeNet-300-100 on MNIST, dense: the baseline, and base of other configs.

  python launch.py --config=configs/mnist_dense.py --workdir=runs/mnist_dense

Three seeds, 50,000 steps each; `:quick` trains 600 steps of one seed. Any
variant takes `data=fashion_mnist`, with --config.data.data_dir=DATA. On one
core of a CPU the test accuracy is 98.24 ± 0.02%.
"""

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import sections


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the protocol of Powerpropagation's MNIST experiment.

  Optimizer, initialization, batch and number of steps are those of the
  notebook released with Schwarz et al., 2021, https://arxiv.org/abs/2110.00296.
  """
  variant, given = arguments.parse(argument, ('', 'quick'), data='mnist')
  config = ml_collections.ConfigDict()
  config.experiment = 'image_classification'
  config.seeds = (0, 1, 2)
  config.data = dict(
    name=given['data'],
    data_dir=config_dict.placeholder(str),  # None: the MNIST shipped with this
  )
  config.model = dict(name='lenet', hidden=(300, 100))
  config.powerprop = dict(alphas=(1.0,), optimizer_in='theta')
  config.method = dict(name='dense', storage='masked')
  config.optimizer = sections.sgd(
    learning_rate=0.1,
    schedule=dict(name='constant', warmup_steps=0),
    momentum=0.0,
  )
  config.loss = dict(label_smoothing=0.0)
  config.train = sections.train(
    batch_size=60,
    eval_batch_size=1_000,
    num_steps=50_000,
    log_every=500,
    eval_every=2_500,
    checkpoint_every=2_500,
  )
  config.prune = sections.prune(num_levels=20)
  config.prune.update(output_layer='linear_2/w', output_factor=2.0)
  if variant == 'quick':
    config.seeds = (0,)
    config.train.update(
      num_steps=600, log_every=100, eval_every=300, checkpoint_every=300
    )
    config.prune.num_levels = 5
  return config
