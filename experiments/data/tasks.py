"""Streams of tasks: views of one data set, learned one after another.

A stream depends on its arguments alone.

T: number of tasks.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from typing import NamedTuple

import jax
import numpy as np

from experiments.data import cifar as cifar_lib
from experiments.data import dataset
from experiments.data import mnist
from experiments.data import views

SPLITS = ('train', 'validation', 'test')


class Stream(NamedTuple):
  """A stream of tasks, before any data is read."""

  tasks: tuple[views.Task, ...]
  num_base_classes: int  # of the data set
  example_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array] | None
  load: Callable[[], dataset.Arrays]  # the examples of all tasks, each once

  @property
  def num_classes(self) -> int:
    """Number of classes of one task."""
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

  The orders depend on the seed alone, not on the number of tasks.

  Reference:
    Goodfellow et al., 2013, "An empirical investigation of catastrophic
    forgetting in gradient-based neural networks".
    https://arxiv.org/abs/1312.6211
  """
  _check(num_tasks, seed)
  size, classes = math.prod(mnist.SHAPE), tuple(range(mnist.NUM_CLASSES))
  orders = [np.arange(size, dtype=np.int32)] + [
    _generator(seed, task).permutation(size).astype(np.int32)
    for task in range(1, num_tasks)
  ]
  return _mnist(data_dir, [views.Task(classes, order) for order in orders])


def split_mnist(
  *,
  num_tasks: int,
  classes_per_task: int,
  seed: int | None,
  data_dir: str | None,
) -> Stream:
  """Returns the classes of MNIST, some for each task, usually 5 x 2.

  `seed` is that of the order of the classes; None for 0, 1, 2, ...

  Reference:
    Zenke et al., 2017, "Continual learning through synaptic intelligence".
    https://arxiv.org/abs/1703.04200
  """
  _check(num_tasks, seed or 0)
  if classes_per_task < 2:
    raise ValueError(
      f'expected classes_per_task >= 2, got {classes_per_task}: one class '
      'leaves nothing to tell apart'
    )
  if num_tasks * classes_per_task > mnist.NUM_CLASSES:
    raise ValueError(
      f'expected at most {mnist.NUM_CLASSES // classes_per_task} tasks of '
      f'{classes_per_task} classes, for the data set has {mnist.NUM_CLASSES}; '
      f'got num_tasks={num_tasks}'
    )
  order = np.arange(mnist.NUM_CLASSES)
  if seed is not None:
    order = _generator(seed, 0).permutation(mnist.NUM_CLASSES)
  groups = order[: num_tasks * classes_per_task].reshape(num_tasks, -1)
  return _mnist(data_dir, [views.Task(tuple(g), None) for g in groups.tolist()])


def cifar(
  *,
  num_tasks: int,
  data_dir: str | None,
  num_validation: int,
  pad: int,
  flip: bool,
) -> Stream:
  """Returns CIFAR-10, then the classes of CIFAR-100 ten by ten.

  Usually six tasks: CIFAR-10 and the first 50 classes of CIFAR-100. Each of the
  two data sets is normalized by itself; T is from 1 to 11. The other arguments
  are those of `cifar.cifar10`, for each data set.

  Reference:
    Zenke et al., 2017, "Continual learning through synaptic intelligence".
    https://arxiv.org/abs/1703.04200
  """
  if not 1 <= num_tasks <= 11:
    raise ValueError(
      'expected num_tasks from 1 to 11, CIFAR-10 and ten tens of CIFAR-100, '
      f'got {num_tasks}'
    )
  ten, hundred = (
    make(data_dir=data_dir, num_validation=num_validation, pad=pad, flip=flip)
    for make in (cifar_lib.cifar10, cifar_lib.cifar100)
  )

  def load():
    if num_tasks == 1:
      return ten.load()
    return dataset.Arrays(
      *(
        dataset.Examples(
          np.concatenate([a.inputs, b.inputs]),
          np.concatenate([a.labels, b.labels + 10]),
        )
        for a, b in zip(ten.load(), hundred.load(), strict=True)
      )
    )

  tasks = tuple(
    views.Task(tuple(range(10 * i, 10 * i + 10)), None)
    for i in range(num_tasks)
  )
  return Stream(tasks, 110, cifar_lib.SHAPE, ten.augment, load)


def read(stream: Stream) -> Tasks:
  """Returns a stream with its data; ValueError if a task has no example."""
  arrays = stream.load()
  # Tasks of the same classes share their rows.
  rows = {classes: {} for classes, _ in stream.tasks}
  for classes, own in rows.items():
    for name in SPLITS:
      labels = getattr(arrays, name).labels
      own[name] = np.flatnonzero(np.isin(labels, classes)).astype(np.int32)
      if not own[name].size:
        raise ValueError(
          f'expected {name} examples of the classes {classes}, got none'
        )
  return Tasks(stream, arrays, tuple(rows[t.classes] for t in stream.tasks))


def make_views(stream: Stream) -> views.Views:
  """Returns the views of all tasks of a stream."""
  return views.make_views(stream.tasks, stream.num_base_classes)


def _mnist(data_dir: str | None, tasks: Sequence[views.Task]) -> Stream:
  load = functools.partial(mnist.load, data_dir=data_dir)
  return Stream(tuple(tasks), mnist.NUM_CLASSES, mnist.SHAPE, None, load)


def _generator(seed: int, task: int) -> np.random.Generator:
  return np.random.Generator(np.random.Philox(key=[seed, task]))


def _check(num_tasks: int, seed: int) -> None:
  if num_tasks < 1:
    raise ValueError(f'expected num_tasks >= 1, got {num_tasks}')
  if seed < 0:
    raise ValueError(f'expected seed >= 0, got {seed}')
