"""ResNet-50 on ImageNet: every method, with RigL's recipe.

  tfds build imagenet2012 --data_dir=DATA --manual_dir=ARCHIVES \
      --file_format=array_record
  python launch.py --config=configs/imagenet_resnet50.py:METHOD,density=D \
      --config.data.data_dir=DATA --workdir=DIR

METHOD is one of `methods.LARGE`; further keys, after a comma each, are those of
`KEYS`.

The recipe is that of https://github.com/google-research/rigl, with 5 epochs of
warm-up; uniform: the first convolution stays dense and does not count. Compute
is in bfloat16, parameters in float32. Hardware: a TPU or several GPUs (3.2e18
FLOPs); not trained by us.

Published top-1 accuracy at 80% and 90% sparsity, from the README of that
repository: RigL uniform 74.60 and 72.02, RigL ERK 75.12 and 73.07, five times
as long ERK 77.17 and 76.42; dense 76.8. Top-KAST, 90% forward and 80% backward
sparsity: 73.0 (from another project's description of the paper).
"""

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import methods
from configs import sections

NUM_TRAIN = 1_281_167
KEYS = {
  'density': 0.1,  # of Top-KAST: forward
  'backward_density': 0.2,  # of Top-KAST
  'distribution': 'uniform',  # or 'erdos_renyi_kernel'
  'length': 1.0,  # multiplies the training and all milestones
  'batch_size': 4_096,  # scales the learning rate and the number of steps
  'alpha': 1.375,  # of the powerprop_ methods; this project's choice
  'ham': 0.0,  # strength of HAM, its authors' is 200
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument, methods.LARGE, methods.unused_large, **KEYS
  )
  batch_size = given['batch_size']
  scale = given['length'] * 4_096 / batch_size  # of the recipe's steps
  num_steps = round(32_000 * scale)
  epoch = given['length'] * NUM_TRAIN / batch_size
  name, alpha = methods.choose(variant, given['alpha'])
  is_uniform = given['distribution'] == 'uniform'
  config = ml_collections.ConfigDict()
  config.experiment = 'image_classification'
  config.seeds = (0,)
  config.data = dict(
    name='imagenet',
    data_dir=config_dict.placeholder(str),
    num_validation=0,
    image_size=224,
    resize=256,
    on_bad_record='stop',
    num_workers=16,
  )
  config.model = dict(name='resnet50', compute_dtype='bfloat16', remat='none')
  config.powerprop = dict(alphas=(alpha,), optimizer_in='theta')
  config.method = methods.section(
    name,
    density=given['density'],
    backward_density=given['backward_density'],
    num_steps=num_steps,
    refresh_every=100,
    distribution=given['distribution'],
    exclude=(r'^stem/conv/w$',) if is_uniform else (),
  )
  config.optimizer = sections.sgd(
    learning_rate=0.1 * batch_size / 256,
    schedule=dict(
      name='piecewise',
      warmup_steps=round(5 * epoch),
      boundaries=tuple(round(at * epoch) for at in (30, 70, 90)),
      factor=0.1,
    ),
    weight_decay=1e-4,
    ham_a=given['ham'],
  )
  config.loss = dict(label_smoothing=0.1)
  config.train = sections.train(
    batch_size=batch_size,
    eval_batch_size=1_024,
    num_devices=config_dict.placeholder(int),  # None: all
    num_steps=num_steps,
    eval_every=2_500,
    checkpoint_every=1_000,
    **sections.ACCELERATOR,
  )
  config.prune = sections.prune(lowest=0.05)
  return config
