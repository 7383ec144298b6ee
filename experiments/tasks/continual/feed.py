"""Batches of a stream of tasks: rows of one data set on the device.

T: tasks; S: steps of a chunk; B: examples of a batch; N: batches of a split.
"""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mesh as mesh_lib
from experiments.data import dataset
from experiments.data import tasks as tasks_lib
from experiments.tasks import base
from experiments.tasks import classification


class Part(NamedTuple):
  """The rows of one task in a split, padded to the length of the longest."""

  rows: jax.Array  # int32 [N, B]
  counts: jax.Array  # float32 [N, B], 0 for padding
  num: jax.Array  # int32 [], batches that are not only padding


class Data(NamedTuple):
  """The data of a stream; all but `rows` on the devices."""

  rows: list[np.ndarray]  # of the training examples of each task
  views: tasks_lib.Views
  examples: dict[str, dataset.Examples]  # by split
  parts: dict[str, list[Part]]  # by split, of each task


def load(stream: tasks_lib.Stream, training: base.Training) -> Data:
  """Returns the data of a stream, replicated on all devices.

  Raises:
    ValueError: If the data are not there, or a task has no examples.
  """
  tasks = tasks_lib.read(stream)
  rows = {name: [own[name] for own in tasks.rows] for name in tasks_lib.SPLITS}
  examples = {name: getattr(tasks.examples, name) for name in tasks_lib.SPLITS}
  parts = {
    name: make_parts(rows[name], training.sizes['eval_batch_size'])
    for name in ('validation', 'test')
  }
  placed = jax.device_put(
    (tasks_lib.make_views(stream), examples, parts),
    mesh_lib.replicated(training.mesh),
  )
  return Data(rows['train'], *placed)


def make_parts(rows: list[np.ndarray], batch_size: int) -> list[Part]:
  """Returns the part of each task."""
  length = -(-max(map(len, rows)) // batch_size) * batch_size

  def pad(own):
    padded = np.pad(own, (0, length - len(own)))
    counts = (np.arange(length) < len(own)).astype(np.float32)
    num = np.int32(-(-len(own) // batch_size))
    shape = (-1, batch_size)
    return Part(padded.reshape(shape), counts.reshape(shape), num)

  return [pad(own) for own in rows]


def choose_rows(
  rows: list[np.ndarray],
  task: int | None,
  phase: int,
  seed: int,
  first_step: int,
  num_steps: int,
  batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows [S, B] of the batches of some steps, and their tasks.

  The tasks are int32 [S]; [S, B] with task=None, for batches of all tasks
  shuffled together. Each phase of a task has an order of its own.
  """
  own = np.concatenate(rows) if task is None else rows[task]
  sequence = np.random.SeedSequence([seed, task or 0, phase])
  [order_seed] = sequence.generate_state(1)
  indices = dataset.batch_indices(
    int(order_seed), first_step, num_steps, batch_size, len(own)
  )
  if task is not None:
    return own[indices], np.full(num_steps, task, np.int32)
  numbers = np.arange(len(rows), dtype=np.int32)
  return own[indices], np.repeat(numbers, list(map(len, rows)))[indices]


def chunk(
  data: Data, mesh: jax.sharding.Mesh, rows: np.ndarray, tasks: np.ndarray
) -> Any:
  """Returns the inputs of a chunk: each device has its share of the rows."""
  over_data = mesh_lib.over_data(mesh, 1)
  placement = over_data if tasks.ndim == 2 else mesh_lib.replicated(mesh)
  placed = jax.device_put((rows, tasks), (over_data, placement))
  return data.examples['train'], data.views, *placed


def batch_at(inputs: Any, i: jax.Array) -> classification.Batch:
  """Returns batch `i` of a chunk."""
  examples, views, rows, tasks = inputs
  chosen = jax.tree.map(lambda x: x[rows[i]], examples)
  images, labels = tasks_lib.see(views, tasks[i], chosen)
  task = jnp.broadcast_to(tasks[i], labels.shape)
  return classification.Batch(images, labels, task)
