"""WideResNet-16-1 on Fashion-MNIST: ImageNet's recipe in small.

  python launch.py --config=configs/fashion_resnet.py:METHOD,density=D \
      --config.data.data_dir=DATA --workdir=DIR

DATA is /usr/share/datasets/fashion-mnist of Debian's package
dataset-fashion-mnist, or a folder that `tfds build fashion_mnist` prepared.
METHOD is one of `methods.NAMES`; further keys, after a comma each:
distribution, alpha of Powerpropagation, `ham=1` for HAM, and num_steps, which
scales all milestones. Learning rate and HAM's strength are those of `TUNED`,
the best on the validation split in four tries of each method at 10%, eight with
HAM, found by the sweep `tune_residual`; of Top-KAST with Powerpropagation, with
tries within 0.4 points, the best in the mean of two seeds.

Batch normalization, label smoothing, weight decay, a learning rate with
warm-up, and a first convolution of stride 2 that stays dense are as in
`configs/imagenet_resnet50.py`; sizes, the cosine and 3,000 steps of 64 images
(3.5 epochs, without augmentation) are this project's choice. Two seeds. The
network has 173,840 weights; a run takes 2 minutes of one core of a CPU.
"""

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import methods
from configs import sections

# Learning rate and `ham_a` of methods that are not in `TUNED`: alone, with
# Powerpropagation, with HAM.
UNTUNED = {'plain': (0.2, 0.0), 'powerprop': (0.2, 0.0), 'ham': (0.2, 10.0)}
TUNED = {
  ('dense', 'plain'): (0.1, 0.0),
  ('dense', 'powerprop'): (0.2, 0.0),
  ('static', 'plain'): (0.8, 0.0),
  ('static', 'powerprop'): (0.4, 0.0),
  ('rigl', 'plain'): (0.8, 0.0),
  ('rigl', 'powerprop'): (0.4, 0.0),
  ('gradual', 'plain'): (0.2, 0.0),
  ('gradual', 'powerprop'): (0.8, 0.0),
  ('topkast', 'plain'): (0.2, 0.0),
  ('topkast', 'powerprop'): (0.2, 0.0),
  ('acdc', 'plain'): (0.2, 0.0),
  ('acdc', 'ham'): (0.4, 10.0),
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  name, given = arguments.parse(
    argument,
    methods.NAMES,
    methods.unused,
    density=0.1,
    distribution='erdos_renyi_kernel',
    alpha=1.0,
    ham=0,
    num_steps=3_000,
  )
  num_steps = given['num_steps']
  kind = methods.kind(given['alpha'], given['ham'])
  rate, ham = TUNED.get((name, kind), UNTUNED[kind])
  config = ml_collections.ConfigDict()
  config.experiment = 'image_classification'
  config.seeds = (0, 1)
  config.data = dict(
    name='fashion_mnist', data_dir=config_dict.placeholder(str)
  )
  config.model = dict(
    name='wide_resnet', depth=16, width=1, stem_stride=2, dropout=0.0,
    compute_dtype='float32',
  )  # fmt: skip
  config.powerprop = dict(alphas=(given['alpha'],), optimizer_in='theta')
  config.method = methods.section(
    name,
    density=given['density'],
    num_steps=num_steps,
    # As in `configs/mnist_methods.py`.
    refresh_every=1 if name == 'topkast' else 50,
    distribution=given['distribution'],
    exclude=(r'^stem_conv/w$',),
    alpha=given['alpha'],
  )
  config.optimizer = sections.sgd(
    learning_rate=rate,
    schedule=sections.cosine(num_steps=num_steps, warmup_steps=num_steps // 20),
    weight_decay=1e-4,
    ham_a=ham,
  )
  config.loss = dict(label_smoothing=0.1)
  config.train = sections.train(
    batch_size=64,
    eval_batch_size=500,
    num_steps=num_steps,
    eval_every=1_000,
    checkpoint_every=500,
  )
  config.prune = sections.prune()
  return config
