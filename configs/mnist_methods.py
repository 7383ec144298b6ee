"""Every sparse method on MNIST with a small convolutional network, LeNet-5.

  python launch.py --config=configs/mnist_methods.py:METHOD,density=D \
      --workdir=DIR

METHOD is one of `methods.NAMES`; further keys, after a comma each: alpha of
Powerpropagation, `ham=1` for HAM, distribution, num_steps, which scales all
milestones, and `data=fashion_mnist`, with --config.data.data_dir=DATA. Three
seeds of 1,000 steps; the recipe is this project's choice.

Learning rate and HAM's strength are those of `TUNED`, the best on the
validation split in six tries of each method at 5%, found by the sweep
`tune_methods`. Gradients are clipped: without, rates near the best ruin some
seeds, as nothing normalizes this network's layers.
"""

import ml_collections

from configs import arguments
from configs import methods
from configs import mnist_dense
from configs import sections

# Learning rate and `ham_a` of each method, alone, with Powerpropagation
# (alpha 2) and with HAM.
TUNED = {
  ('dense', 'plain'): (0.1, 0.0),
  ('dense', 'powerprop'): (0.15, 0.0),
  ('dense', 'ham'): (0.2, 10.0),
  ('static', 'plain'): (0.2, 0.0),
  ('static', 'powerprop'): (0.1, 0.0),
  ('static', 'ham'): (0.2, 10.0),
  ('set', 'plain'): (0.15, 0.0),
  ('set', 'powerprop'): (0.15, 0.0),
  ('rigl', 'plain'): (0.15, 0.0),
  ('rigl', 'powerprop'): (0.2, 0.0),
  ('rigl', 'ham'): (0.1, 10.0),
  ('magnitude', 'plain'): (0.15, 0.0),
  ('magnitude', 'powerprop'): (0.1, 0.0),
  ('gradual', 'plain'): (0.1, 0.0),
  ('gradual', 'powerprop'): (0.15, 0.0),
  ('gradual', 'ham'): (0.1, 20.0),
  ('acdc', 'plain'): (0.2, 0.0),
  ('acdc', 'powerprop'): (0.15, 0.0),
  ('acdc', 'ham'): (0.2, 10.0),
  ('snip', 'plain'): (0.15, 0.0),
  ('snip', 'powerprop'): (0.1, 0.0),
  ('topkast', 'plain'): (0.15, 0.0),
  ('topkast', 'powerprop'): (0.1, 0.0),
  ('topkast', 'ham'): (0.1, 10.0),
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  name, given = arguments.parse(
    argument,
    methods.NAMES,
    _unused,
    density=0.1,
    distribution='erdos_renyi_kernel',
    alpha=1.0,
    ham=0,
    num_steps=1_000,
    data='mnist',
    quick=0,
  )
  base = 'quick' if given['quick'] else ''
  config = mnist_dense.get_config(f'{base},data={given["data"]}')
  num_steps = 200 if given['quick'] else given['num_steps']
  kind = methods.kind(given['alpha'], given['ham'])
  rate, ham = TUNED[name, kind]
  config.model = dict(name='lenet5')
  config.powerprop.alphas = (given['alpha'],)
  config.method = methods.section(
    name,
    density=given['density'],
    num_steps=num_steps,
    # Top-KAST at each step, as in its paper: at these learning rates, weights
    # explored unseen for 50 steps can ruin the network when they enter.
    refresh_every=1 if name == 'topkast' else 50,
    distribution=given['distribution'],
    alpha=given['alpha'],
  )
  config.optimizer = sections.sgd(
    learning_rate=rate,
    schedule=sections.cosine(num_steps=num_steps, warmup_steps=num_steps // 20),
    clip_norm=1.0,
    ham_a=ham,
  )
  config.train.update(
    batch_size=50,
    num_steps=num_steps,
    log_every=100,
    eval_every=num_steps,
    checkpoint_every=num_steps,
  )
  config.prune.update(num_levels=0, output_layer=None)
  return config


def _unused(name: str) -> list[str]:
  return methods.unused(name) + ['ham'] * ((name, 'ham') not in TUNED)
