"""Streams of tasks: one data set seen in many ways, one after another.

All tasks of a stream share the examples of one data set, see `views`: a hundred
permutations of MNIST take the memory of one MNIST. What a stream is depends on
its arguments alone, `seed` among them.

Shapes:
  T: number of tasks.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import dataset
from experiments.data import mnist
from experiments.data import views

SPLITS = ('train', 'validation', 'test')

_MNIST_SHAPE = (28, 28, 1)


class Stream(NamedTuple):
  """A stream of tasks, before any data are read."""

  tasks: tuple[views.Task, ...]
  num_base_classes: int  # of the data set
  example_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array] | None
  load: Callable[[], dataset.Arrays]  # the examples of all tasks, each once

  @property
  def num_classes(self) -> int:
    """How many classes one task has."""
    return len(self.tasks[0].classes)


class Tasks(NamedTuple):
  """A stream of tasks with its data."""

  stream: Stream
  examples: dataset.Arrays  # of all tasks, each once
  rows: tuple[dict[str, np.ndarray], ...]  # of each task, int32, by split


def permuted_mnist(
  *, num_tasks: int, seed: int, data_dir: str | None
) -> Stream:
  """Returns MNIST, then MNIST with its pixels in other orders.

  Args:
    num_tasks: T; any number.
    seed: of the orders; at least 0. The order of a task does not depend on T.
    data_dir: as in `mnist.load`.

  Raises:
    ValueError: If an argument is out of range.

  Reference:
    Goodfellow et al., 2013, "An empirical investigation of catastrophic
    forgetting in gradient-based neural networks".
    https://arxiv.org/abs/1312.6211
  """
  _check(num_tasks, seed)
  size = math.prod(_MNIST_SHAPE)
  orders = [np.arange(size, dtype=np.int32)] + [
    _generator(seed, task).permutation(size).astype(np.int32)
    for task in range(1, num_tasks)
  ]
  return _seen(data_dir, [views.Pixels(order[None], None) for order in orders])


def rotated_mnist(
  *, num_tasks: int, seed: int, max_degrees: float, data_dir: str | None
) -> Stream:
  """Returns MNIST, then MNIST rotated by other angles.

  Angles are drawn evenly from 0 up to `max_degrees`; pixels are interpolated.

  Args:
    num_tasks: T; any number.
    seed: of the angles; at least 0. The angle of a task does not depend on T.
    max_degrees: over 0, at most 360; 180 in the reference.
    data_dir: as in `mnist.load`.

  Raises:
    ValueError: If an argument is out of range.

  Reference:
    Lopez-Paz and Ranzato, 2017, "Gradient episodic memory for continual
    learning". https://arxiv.org/abs/1706.08840
  """
  _check(num_tasks, seed)
  if not 0 < max_degrees <= 360:
    raise ValueError(
      f'expected max_degrees over 0, at most 360, got {max_degrees}'
    )
  degrees = [0.0] + [
    _generator(seed, task).uniform(0, max_degrees)
    for task in range(1, num_tasks)
  ]
  side = _MNIST_SHAPE[0]
  return _seen(data_dir, [views.rotation(side, angle) for angle in degrees])


def split_mnist(
  *,
  num_tasks: int,
  classes_per_task: int,
  seed: int | None,
  data_dir: str | None,
) -> Stream:
  """Returns the classes of MNIST, some for each task: 5 x 2 by custom.

  Args:
    num_tasks: T.
    classes_per_task: how many classes each has.
    seed: of the order of the classes; None for 0, 1, 2, ...
    data_dir: as in `mnist.load`.

  Raises:
    ValueError: If the tasks need more classes than there are, or an argument
      is out of range.

  Reference:
    Zenke et al., 2017, "Continual learning through synaptic intelligence".
    https://arxiv.org/abs/1703.04200
  """
  groups = split_classes(num_tasks, classes_per_task, mnist.NUM_CLASSES, seed)
  return _mnist(data_dir, [views.Task(classes, None) for classes in groups])


def split_classes(
  num_tasks: int, classes_per_task: int, num_classes: int, seed: int | None
) -> list[tuple[int, ...]]:
  """Returns the next few classes for each task.

  Example:
    >>> split_classes(2, 3, 10, seed=None)
    [(0, 1, 2), (3, 4, 5)]

  Args:
    num_tasks: T.
    classes_per_task: how many each has.
    num_classes: of the data set.
    seed: of the order of the classes; None for their own.

  Raises:
    ValueError: As `check_classes`.
  """
  check_classes(num_tasks, classes_per_task, num_classes, seed)
  order = np.arange(num_classes)
  if seed is not None:
    order = _generator(seed, 0).permutation(num_classes)
  chosen = order[: num_tasks * classes_per_task].reshape(num_tasks, -1)
  return [tuple(group) for group in chosen.tolist()]


def read(stream: Stream) -> Tasks:
  """Returns a stream with its data.

  Raises:
    ValueError: If the data are not there, or have no example of some task.
  """
  arrays = stream.load()
  found: dict[tuple[int, ...], dict[str, np.ndarray]] = {}
  for task in stream.tasks:
    if task.classes not in found:  # tasks of the same classes share their rows
      found[task.classes] = _rows(arrays, task.classes)
  return Tasks(stream, arrays, tuple(found[t.classes] for t in stream.tasks))


def check_classes(
  num_tasks: int, classes_per_task: int, num_classes: int, seed: int | None
) -> None:
  """Raises unless a data set has classes for all tasks.

  Raises:
    ValueError: If it has not, or an argument is out of range.
  """
  _check(num_tasks, seed or 0)
  if classes_per_task < 2:
    raise ValueError(
      f'expected classes_per_task >= 2, got {classes_per_task}: one class '
      'leaves nothing to tell apart'
    )
  if num_tasks * classes_per_task > num_classes:
    raise ValueError(
      f'expected at most {num_classes // classes_per_task} tasks of '
      f'{classes_per_task} classes, for the data set has {num_classes}; got '
      f'num_tasks={num_tasks}'
    )


def make_views(stream: Stream) -> views.Views:
  """Returns how the tasks of a stream see its data."""
  return views.make_views(stream.tasks, stream.num_base_classes)


def arrays(tasks: Tasks, task: int) -> dataset.Arrays:
  """Returns one task, from 0, as a data set of its own, copied."""
  look = jax.jit(views.see)
  stacked = make_views(tasks.stream)

  def split(name):
    examples = getattr(tasks.examples, name)
    own = jax.tree.map(lambda x: x[tasks.rows[task][name]], examples)
    return jax.tree.map(np.asarray, look(stacked, jnp.int32(task), own))

  return dataset.Arrays(
    *map(split, SPLITS), tasks.stream.num_classes, tasks.stream.augment
  )


def _seen(data_dir: str | None, pixels: Sequence[views.Pixels]) -> Stream:
  """Returns a stream in which every task has all of MNIST, each its own way."""
  classes = tuple(range(mnist.NUM_CLASSES))
  return _mnist(data_dir, [views.Task(classes, p) for p in pixels])


def _mnist(data_dir: str | None, tasks: Sequence[views.Task]) -> Stream:
  load = functools.partial(mnist.load, data_dir=data_dir)
  return Stream(tuple(tasks), mnist.NUM_CLASSES, _MNIST_SHAPE, None, load)


def _rows(arrays: dataset.Arrays, classes: tuple[int, ...]):
  rows = {
    name: np.flatnonzero(np.isin(getattr(arrays, name).labels, classes))
    for name in SPLITS
  }
  for name, found in rows.items():
    if not found.size:
      raise ValueError(
        f'expected {name} examples of the classes {classes}, got none'
      )
  return {name: found.astype(np.int32) for name, found in rows.items()}


def _generator(seed: int, task: int) -> np.random.Generator:
  return np.random.Generator(np.random.Philox(key=[seed, task]))


def _check(num_tasks: int, seed: int) -> None:
  if num_tasks < 1:
    raise ValueError(f'expected num_tasks >= 1, got {num_tasks}')
  if seed < 0:
    raise ValueError(f'expected seed >= 0, got {seed}')
