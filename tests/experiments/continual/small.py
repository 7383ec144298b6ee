"""The sections of a small experiment, for tests."""

from configs import permuted_mnist

EVERYTHING = {'gamma': 0.0, 'densities': (1.0,)}
PACKNET = {
  'name': 'packnet', 'density': 0.4, 'retrain_steps': 20, 'biases': 'per_task',
  'when_exhausted': 'stop', 'keep_optimizer': False,
}  # fmt: skip


def make_sections(strategy=None, **changes):
  config = permuted_mnist.get_config('quick').to_dict()
  config.pop('experiment')
  config['model'].update(hidden=(16, 12))
  config['train'].update(
    num_steps=20, log_every=10, eval_every=10, checkpoint_every=10
  )
  if strategy and 'name' in strategy:
    config['strategy'] = strategy
  elif strategy:
    config['strategy'].update(strategy)
  for name, value in changes.items():
    if isinstance(value, dict):
      config[name].update(value)
    else:
      config[name] = value
  return config
