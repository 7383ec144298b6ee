"""Every sparse method on MNIST with a small convolutional network.

  python launch.py --config=configs/mnist_methods.py:METHOD,density=D \
      --workdir=DIR

METHOD is dense, static, set, rigl, magnitude (one shot, half way, then trained
on), gradual, snip or topkast; D the share of weights, of Top-KAST forward, with
twice as many backward; `alpha=2` adds Powerpropagation. Three seeds. All is
this project's choice: neither paper has this experiment.
"""

import ml_collections

from configs import arguments
from configs import methods
from configs import mnist_dense


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  name, given = arguments.parse(
    argument, methods.NAMES, density=0.1, alpha=1.0, num_steps=1_000, quick=0
  )
  config = mnist_dense.get_config('quick' if given['quick'] else '')
  num_steps = 200 if given['quick'] else given['num_steps']
  config.model = dict(name='lenet5', compute_dtype='float32')
  config.powerprop.alphas = (given['alpha'],)
  config.method = methods.section(
    name,
    density=given['density'],
    num_steps=num_steps,
    # Top-KAST at each step, as in its paper: with this learning rate, what is
    # explored unseen for 50 steps can ruin the network when it enters.
    refresh_every=1 if name == 'topkast' else 50,
    # A weight at zero stays there under Powerpropagation; 1e-4 in theta.
    grow_at=0.0 if given['alpha'] == 1 else 1e-4 ** (1 / given['alpha']),
  )
  config.optimizer.update(learning_rate=0.05, momentum=0.9, nesterov=True)
  config.optimizer.schedule = dict(
    name='cosine', warmup_steps=num_steps // 20, num_steps=num_steps, final=0.0
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
