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
from experiments.data import order
from experiments.data import tasks as tasks_lib
from experiments.data import views as views_lib
from experiments.tasks import base


class Batch(NamedTuple):
  """Some examples, each as its task sees it."""

  inputs: jax.Array  # [B, ...]
  labels: jax.Array  # int32 [B]
  task: jax.Array  # int32 [B], from 0


class Part(NamedTuple):
  """The rows of one task in a split, padded to the length of the longest."""

  rows: jax.Array  # int32 [N, B]
  counts: jax.Array  # float32 [N, B], 0 for padding
  num: int  # batches that are not only padding


class Data(NamedTuple):
  """A stream with its data on the devices."""

  tasks: tasks_lib.Tasks
  views: views_lib.Views
  examples: dict[str, dataset.Examples]  # by split
  parts: dict[str, list[Part]]  # by split, of each task


def load(stream: tasks_lib.Stream, training: base.Training) -> Data:
  """Returns the data of a stream, replicated on all devices.

  Raises:
    ValueError: If the data are not there, or a task has no examples.
  """
  tasks = tasks_lib.read(stream)
  replicated = mesh_lib.replicated(training.mesh)
  examples = {name: getattr(tasks.examples, name) for name in tasks_lib.SPLITS}
  parts = {
    name: make_parts(
      [rows[name] for rows in tasks.rows], training.sizes['eval_batch_size']
    )
    for name in ('validation', 'test')
  }
  return Data(
    tasks,
    *jax.device_put((tasks_lib.make_views(stream), examples), replicated),
    parts,
  )


def make_parts(rows: list[np.ndarray], batch_size: int) -> list[Part]:
  """Returns the part of each task; tasks with the same rows share its arrays.

  Args:
    rows: of each task.
    batch_size: B.
  """
  length = -(-max(map(len, rows)) // batch_size) * batch_size
  made: dict[int, Part] = {}
  for own in rows:
    if id(own) not in made:
      padded = np.pad(own, (0, length - len(own)))
      counts = (np.arange(length) < len(own)).astype(np.float32)
      made[id(own)] = Part(
        jnp.asarray(padded.reshape(-1, batch_size)),
        jnp.asarray(counts.reshape(-1, batch_size)),
        -(-len(own) // batch_size),
      )
  return [made[id(own)] for own in rows]


def choose_rows(
  rows: list[np.ndarray],
  *,
  task: int | None,
  seed: int,
  batch_size: int,
  first_step: int,
  num_steps: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows of the batches of some steps, and their tasks.

  Shapes:
    returned: int32 [S, B], and int32 [S], or [S, B] for all tasks.

  Args:
    rows: of each task.
    task: from 0; None: batches of all tasks, shuffled together.
    seed: of the order; see `order_seed`.
    batch_size: B.
    first_step: of the chunk.
    num_steps: S.
  """
  own = np.concatenate(rows) if task is None else rows[task]
  indices = order.batch_indices(
    seed, first_step, num_steps, batch_size, len(own)
  )
  if task is not None:
    return own[indices], np.full(num_steps, task, np.int32)
  numbers = np.arange(len(rows), dtype=np.int32)
  return own[indices], np.repeat(numbers, list(map(len, rows)))[indices]


def order_seed(seed: int, task: int, phase: int) -> int:
  """Returns the seed of the order of a phase of a task."""
  sequence = np.random.SeedSequence([seed, task, phase])
  return int(sequence.generate_state(1)[0])


def chunk(
  data: Data, mesh: jax.sharding.Mesh, chosen: tuple[np.ndarray, np.ndarray]
) -> Any:
  """Returns the inputs of a chunk, from the result of `choose_rows`.

  The rows are divided among the devices, the examples are on each.
  """
  over_data = mesh_lib.over_data(mesh, 1)
  rows, tasks = chosen
  placement = over_data if tasks.ndim == 2 else mesh_lib.replicated(mesh)
  return (
    data.examples['train'],
    data.views,
    mesh_lib.to_devices(rows, over_data),
    mesh_lib.to_devices(tasks, placement),
  )


def batch_at(inputs: Any, i: jax.Array) -> Batch:
  """Returns batch `i` of a chunk."""
  examples, views, rows, tasks = inputs
  chosen = jax.tree.map(lambda x: x[rows[i]], examples)
  images, labels = views_lib.see(views, tasks[i], chosen)
  return Batch(images, labels, jnp.broadcast_to(tasks[i], labels.shape))


def batch_shapes(stream: tasks_lib.Stream, training: base.Training) -> Batch:
  """Returns the shapes of a training batch, with shardings."""
  size = training.batch_size
  shapes = Batch(
    jax.ShapeDtypeStruct((size, *stream.example_shape), jnp.float32),
    jax.ShapeDtypeStruct((size,), jnp.int32),
    jax.ShapeDtypeStruct((size,), jnp.int32),
  )
  return mesh_lib.with_sharding(shapes, mesh_lib.over_data(training.mesh))
