"""Configs of tiny networks, and a run of one by the trainer."""

import copy
import dataclasses
import json
from typing import Any
from typing import NamedTuple

import jax
import ml_collections

from configs import methods
from experiments import checkpoint
from experiments import initial
from experiments import metrics
from experiments import rundir
from experiments import trainer
from experiments.models import transformer_xl
from experiments.tasks import base
from tests import oracles


def image(name='topkast', storage='masked', **changes):
  """A fully connected network on MNIST: 20 steps in chunks of 5."""
  config = {
    'experiment': 'image_classification',
    'seed': 3,
    'data': {'name': 'mnist', 'data_dir': None},
    'model': {'name': 'lenet', 'hidden': (16,)},
    'powerprop': {'alpha': 2.0, 'optimizer_in': 'theta'},
    'method': method(name, storage),
    'optimizer': {
      'name': 'sgd', 'learning_rate': 0.1,
      'schedule': {'name': 'constant', 'warmup_steps': 0}, 'momentum': 0.9,
      'nesterov': False, 'weight_decay': 0.0, 'clip_norm': None,
      'ham_a': 0.0, 'ham_b': 0.0,
    },
    'loss': {'label_smoothing': 0.0},
    'train': {
      'batch_size': 12, 'eval_batch_size': 1_000, 'num_micro': 1,
      'num_devices': 1, 'num_steps': 20, 'log_every': 5, 'eval_every': 10,
      'checkpoint_every': 5, 'keep_checkpoints': 2, 'on_not_finite': 'stop',
    },
    'prune': {
      'lowest': 0.05, 'highest': 1.0, 'num_levels': 0,
      'output_layer': 'linear_1/w', 'output_factor': 2.0,
    },
  }  # fmt: skip
  return update(config, changes)


def language(path, name='topkast', storage='masked', **changes):
  """A Transformer-XL of one layer on the bytes of a file: 8 steps, by 2."""
  config = {
    'experiment': 'language_modelling',
    'seed': 3,
    'data': {
      'name': 'file', 'path': str(path), 'held_out': 0.15,
    },
    'model': {
      'vocab_size': 256, 'num_layers': 1, 'd_model': 8,
      'num_heads': 2, 'd_head': 3, 'd_inner': 10, 'dropout': 0.0,
      'attention_dropout': 0.0, 'tie_projections': (False,), 'cutoffs': (),
      'div_val': 1, 'compute_dtype': 'float32',
    },
    'powerprop': {'alpha': 1.0, 'optimizer_in': 'theta'},
    'method': method(name, storage, refresh_every=3),
    'optimizer': {
      'name': 'adam', 'learning_rate': 1e-3,
      'schedule': {'name': 'constant', 'warmup_steps': 0},
      'b1': 0.9, 'b2': 0.999, 'eps': 1e-8, 'weight_decay': 0.0,
      'clip_norm': 0.25, 'ham_a': 0.0, 'ham_b': 0.0,
    },
    'train': {
      'batch_size': 4, 'segment_len': 5, 'memory_len': 6, 'num_micro': 1,
      'num_devices': 1, 'num_steps': 8, 'log_every': 2, 'eval_every': 4,
      'checkpoint_every': 2, 'keep_checkpoints': 2, 'on_not_finite': 'stop',
    },
    'evaluation': {
      'batch_size': 4, 'segment_len': 3, 'memory_len': 4, 'clamp_len': None,
      'num_tokens': None,
    },
  }  # fmt: skip
  return update(config, changes)


def method(name, storage='masked', refresh_every=4):
  """The section of a method at density 0.2; weights at zero may grow."""
  section = methods.section(
    name, density=0.2, num_steps=20, refresh_every=refresh_every
  )
  section = ml_collections.ConfigDict({**section, 'storage': storage})
  if 'grow_at' in section:
    section.grow_at = 0.1
  return section.to_dict()


def update(config, changes):
  """Returns a config with the keys of sections changed."""
  config = copy.deepcopy(config)
  for name, value in changes.items():
    if isinstance(value, dict):
      config[name] = {**config[name], **value}
    else:
      config[name] = value
  return config


def transformer(**changes):
  """A Transformer-XL, and parameters with which attention matters."""
  model = transformer_xl.transformer_xl(**language('')['model'] | changes)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return model, jax.tree.map(lambda x: 0.5 * x, oracles.normal(shapes, 0))


def config_flag(folder, config):
  """Writes a config file; returns the flag that reads it."""
  path = folder / 'config.py'
  path.write_text(
    'import json\nimport ml_collections\n\n\ndef get_config():\n'
    f'  config = json.loads({json.dumps(config)!r})\n'
    '  return ml_collections.ConfigDict(config)\n'
  )
  return f'--config={path}'


class Run(NamedTuple):
  """A call of `train`, and what the run left."""

  task: base.Task
  outcome: trainer.Outcome
  state: Any  # newest checkpoint
  rows: list[dict[str, Any]]


def train(
  config, workdir, on_progress=lambda step, metrics: None, **training
) -> Run:
  """Trains a run, or continues it; `training` replaces fields of a task's."""
  task = initial.make_task(config)
  task = task._replace(training=dataclasses.replace(task.training, **training))
  rundir.create(workdir, config)
  task.write_folder(workdir)
  outcome = trainer.train(task, config['seed'], workdir, on_progress)
  checkpoints = checkpoint.Checkpoints(workdir / 'checkpoints', None)
  state, _ = checkpoints.restore(task.state)
  return Run(task, outcome, state, metrics.read(workdir))
