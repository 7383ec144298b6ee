"""ResNet-50 on forty photographs: four steps of every method, at full size.

  python -m tests.photographs DATA
  python launch.py --config=configs/photographs_resnet50.py \
      --sweep=photographs --config.data.data_dir=DATA --workdir=DIR

A check that every method trains, in float32 and bfloat16, not of accuracy.
METHOD and keys after the colon are those of `imagenet_resnet50.py`. A run takes
minutes on two cores, most of them compilation; the loss falls from 7.0 in steps
1 and 2 to 5.4 (dense) or 6.8 (Top-KAST with Powerpropagation, 10%).
"""

import ml_collections

from configs import imagenet_resnet50

NUM_STEPS = 4


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  words = [word for word in argument.split(',') if word]
  config = imagenet_resnet50.get_config(','.join([*words, 'batch_size=4']))
  config.data.num_workers = 0
  config.optimizer.learning_rate = 0.01
  config.optimizer.schedule.warmup_steps = 0
  config.train.update(
    eval_batch_size=7,
    num_steps=NUM_STEPS,
    log_every=2,
    eval_every=NUM_STEPS,
    checkpoint_every=NUM_STEPS,
  )
  if 'refresh_every' in config.method:
    config.method.refresh_every = 2
  if config.method.name == 'gradual':
    config.method.update(start=0, end=NUM_STEPS, prune_every=1)
  if config.method.name == 'acdc':
    config.method.update(start=1, end=NUM_STEPS - 1, phase_steps=1)
  return config
