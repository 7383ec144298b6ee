"""A small stream, network and config, and stages without a trainer."""

import functools
import json

import haiku as hk
import jax
import numpy as np

from experiments import build
from experiments.data import dataset
from experiments.data import tasks as tasks_lib
from experiments.tasks.continual import task as task_lib
from tests.experiments import small as networks

NUM_TASKS, NUM_CLASSES, SIZE = 3, 3, 12
EFFICIENT = {
  'name': 'efficient_packnet', 'gamma': 0.9, 'densities': (0.5, 0.3, 0.15),
  'scope': 'layer',
  'biases': 'frozen',
}  # fmt: skip
PACKNET = {
  'name': 'packnet', 'retrain_steps': 20, 'biases': 'per_task',
}  # fmt: skip
EWC = {
  'name': 'ewc', 'strength': 300.0, 'num_examples': 20, 'fisher_batch_size': 5,
}  # fmt: skip
L2 = {'name': 'l2', 'strength': 3.0}
FINE_TUNING = {'name': 'fine_tuning'}
ADAM = networks.language('')['optimizer'] | {
  'learning_rate': 0.01, 'weight_decay': 0.1, 'clip_norm': None,
}  # fmt: skip
SECTIONS = {
  'tasks': {'name': 'small'},
  'model': {'name': 'small', 'norm': False},
  'powerprop': {'alpha': 1.0, 'optimizer_in': 'theta'},
  'strategy': FINE_TUNING,
  'optimizer': networks.image()['optimizer'] | {
    'learning_rate': 0.01, 'weight_decay': 1e-3
  },
  'train': networks.image()['train'] | {
    'batch_size': 10, 'eval_batch_size': 16, 'num_steps': 60, 'log_every': 10,
    'eval_every': 60, 'checkpoint_every': 60, 'keep_checkpoints': 1,
  },
  'test': {'every': 1, 'check_forgetting': True},
}  # fmt: skip


NORMALIZED = {
  'model': {'name': 'small', 'norm': True}, 'powerprop': {'alpha': 2.0}
}  # fmt: skip
CASES = {
  'adam': {'strategy': EFFICIENT, 'optimizer': ADAM},
  'alone': {'strategy': {'name': 'alone'}},
  'efficient': NORMALIZED | {'strategy': EFFICIENT},
  'ewc': {'strategy': EWC},
  'fine_tuning': {'strategy': FINE_TUNING},
  'joint': {'strategy': {'name': 'joint'}},
  'l2': {'strategy': L2},
  'packnet': NORMALIZED | {'strategy': PACKNET},
}


@functools.cache
def make_arrays():
  """Returns nine clusters."""
  random = np.random.default_rng(0)
  num_classes = NUM_TASKS * NUM_CLASSES
  centers = random.normal(size=(num_classes, SIZE))

  def draw(num):
    labels = random.permutation(np.arange(num) % num_classes).astype(np.int32)
    noise = random.normal(size=(num, SIZE))
    inputs = (centers[labels] + 0.5 * noise).astype(np.float32)
    return dataset.Examples(inputs, labels)

  return dataset.Arrays(draw(270), draw(91), draw(112))


def make_stream():
  """Returns three tasks of three clusters each."""
  groups = np.arange(NUM_TASKS * NUM_CLASSES).reshape(NUM_TASKS, -1).tolist()
  return tasks_lib.Stream(
    tuple(tasks_lib.Task(tuple(group), None) for group in groups),
    NUM_TASKS * NUM_CLASSES,
    (SIZE,),
    None,
    make_arrays,
  )


def network(*, norm: bool, num_classes: int):
  """Returns three layers, with batch normalization or without."""

  def forward(x, is_training):
    x = hk.Linear(20, name='first')(x)
    if norm:
      x = hk.BatchNorm(True, True, 0.9, name='batch_norm')(x, is_training)
    x = jax.nn.relu(hk.Linear(15, name='second')(jax.nn.relu(x)))
    return hk.Linear(num_classes, name='out')(x)

  return hk.transform_with_state(forward)


def make_task(**changes):
  """Returns the task of `SECTIONS` with some keys changed, compiled once."""
  sections = dict(SECTIONS)
  for name, change in changes.items():
    is_part = isinstance(change, dict) and 'name' not in change
    sections[name] = SECTIONS[name] | change if is_part else change
  return _make_task(json.dumps(sections))


@functools.cache
def _make_task(sections):
  return build.call(task_lib.continual_learning, json.loads(sections))


def run(task, num_stages=None, seed=0):
  """Yields each stage, its last state and its rows, without a trainer."""
  state, chunk = None, task.training.log_every
  for stage in task.stages[:num_stages]:
    state = stage.begin(seed, state)
    for first in range(0, stage.num_steps, chunk):
      [(inputs, num)] = stage.batches(seed, first, chunk)
      state, _ = task.steps.advance(
        state, np.uint32(seed), stage.key(seed), inputs, 0, num,
        stage.is_training,
      )  # fmt: skip
    state, rows = stage.finish(seed, state)
    rows = rows + stage.report(seed, state)
    # A copy, because the next stage reuses the buffers.
    yield stage, jax.tree.map(np.array, state), rows


@functools.cache
def finished(name):
  """Returns the task of one of the `CASES`, and its finished stages."""
  task = make_task(**CASES[name])
  return task, list(run(task))


def logits_of(task, state, number):
  """Returns bits of the test logits of task `number`, and the accuracy."""
  export = task.exports[min(number, len(task.exports) - 1)]
  weights, _, statistics = export.extract(state)
  num_classes = weights['out']['b'].size
  test = make_arrays().test
  is_own = test.labels // NUM_CLASSES == number
  logits, _ = network(norm=bool(statistics), num_classes=num_classes).apply(
    weights, statistics, None, test.inputs[is_own], False
  )
  first = 0 if num_classes == NUM_CLASSES else NUM_CLASSES * number
  logits = np.asarray(logits)[:, first : first + NUM_CLASSES]
  right = np.argmax(logits, 1) == test.labels[is_own] % NUM_CLASSES
  return np.ascontiguousarray(logits).view(np.uint32), np.mean(right)


def rows_of(rows, split):
  return [row for row in rows if row['split'] == split]
