"""A task and a trainer that need no data, no device and no time."""

import json
import pathlib
import signal

from experiments import interrupt
from experiments import metrics
from experiments import trainer

CONFIG = """
import ml_collections

def get_config(variant=''):
  if variant not in ('', 'quick'):
    raise ValueError(f"expected variant '' or 'quick', got {variant!r}")
  config = ml_collections.ConfigDict()
  config.experiment = 'fake'
  config.seeds = (0,)
  config.powerprop = dict(alphas=(1.0,), optimizer_in='theta')
  config.train = dict(num_steps=20, learning_rate=0.1, num_devices=1)
  config.data = dict(name='fake')
  return config

def seeds(add):
  for seed in (0, 1):
    add({'seeds': (seed,)})

def mixed(add):
  add({'train.learning_rate': 0.1})
  add({'train.learning_rate': 3.0})  # diverges
  add({'data.name': 'absent'})
  add({'train.learning_rate': 0.2})
"""


class Task:
  """A task whose steps do nothing; counts what is read and trained."""

  trained: list[pathlib.Path] = []  # noqa: RUF012

  def __init__(self, config):
    self.config = config
    self.num_steps = config['train']['num_steps']
    if self.num_steps < 1:
      raise ValueError(
        f'config.train.num_steps: expected >= 1, got {self.num_steps}'
      )

  def check_data(self):
    if self.config['data']['name'] == 'absent':
      raise ValueError('expected data in /nowhere, got none')

  def check_folder(self, workdir):
    path = workdir / 'vocabulary.json'
    if path.exists() and path.read_text() != '"words"':
      raise ValueError('expected the vocabulary of the run')

  def write_folder(self, workdir):
    (workdir / 'vocabulary.json').write_text('"words"')


def train(task, seed, workdir, on_progress) -> trainer.Outcome:
  """Makes steps of ten until a signal comes; resumes where it stopped."""
  Task.trained.append(workdir)
  path, step = workdir / metrics.FILE, 0
  if path.exists():
    step = json.loads(path.read_text().splitlines()[-1])['step']
  rate = task.config['train']['learning_rate']
  with interrupt.Interrupt() as stop, path.open('a') as file:
    if rate == 4.0:
      raise OSError('No space left on device')
    if rate == 5.0:
      raise RuntimeError('a bug')
    if rate == 6.0 and step == 0:
      signal.raise_signal(signal.SIGTERM)
    while step < task.num_steps:
      if rate == 3.0:
        return trainer.Outcome('diverged', step, 1.0, None, 'the loss is nan')
      step += 10
      row = {'step': step, 'split': 'test', 'loss': rate, 'accuracy': 0.5}
      file.write(json.dumps(row) + '\n')
      on_progress(step, {'loss': rate})
      if stop.signal and step < task.num_steps:
        return trainer.Outcome('interrupted', step, 1.0, stop.signal, '')
  if rate == 7.0:
    signal.raise_signal(signal.SIGTERM)
  return trainer.Outcome('done', step, 1.0, None, '')
