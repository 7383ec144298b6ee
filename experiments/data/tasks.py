"""Streams of tasks: views of one data set, learned one after another.

A view is some of the classes with the pixels in another order: a few small
arrays, so tasks share the examples in memory and one compiled step.

T: number of tasks; B: examples of a batch; D: entries of one input.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.data import cifar as cifar_lib
from experiments.data import dataset
from experiments.data import mnist

SPLITS = ('train', 'validation', 'test')


class Task(NamedTuple):
  """One task: its classes and the order of its pixels."""

  classes: tuple[int, ...]  # of the data set; the i-th is label i of the task
  source: np.ndarray | None  # int32 [D]: pixel i is source[i] of the input


class Views(NamedTuple):
  """The views of all tasks, stacked."""

  source: jax.Array | None  # int32 [T, D]
  labels: jax.Array  # int32 [T, classes of the data set]


class Stream(NamedTuple):
  """A stream of tasks, before any data is read."""

  tasks: tuple[Task, ...]
  num_base_classes: int  # of the data set
  example_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array] | None
  load: Callable[[], dataset.Arrays]  # the examples of all tasks, each once

  @property
  def num_classes(self) -> int:
    """Number of classes of one task."""
    return len(self.tasks[0].classes)


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
  build.check_range(1, math.inf, num_tasks=num_tasks)
  build.check_range(0, math.inf, seed=seed)
  size, classes = math.prod(mnist.SHAPE), tuple(range(mnist.NUM_CLASSES))
  orders = [np.arange(size, dtype=np.int32)] + [
    dataset.make_generator(seed, task).permutation(size).astype(np.int32)
    for task in range(1, num_tasks)
  ]
  return _mnist(data_dir, [Task(classes, order) for order in orders])


def split_mnist(*, num_tasks: int, data_dir: str | None) -> Stream:
  """Returns the digits of MNIST, two for each task, usually all five pairs.

  Reference:
    Zenke et al., 2017, "Continual learning through synaptic intelligence".
    https://arxiv.org/abs/1703.04200
  """
  build.check_range(1, 6, num_tasks=num_tasks)
  tasks = [Task((2 * i, 2 * i + 1), None) for i in range(num_tasks)]
  return _mnist(data_dir, tasks)


def cifar(
  *,
  num_tasks: int,
  data_dir: str | None,
  num_validation: int,
) -> Stream:
  """Returns CIFAR-10, then the classes of CIFAR-100 ten by ten; T is 1 to 11.

  Usually six tasks: CIFAR-10 and the first 50 classes of CIFAR-100. Each of the
  two data sets is normalized by itself.

  Reference:
    Zenke et al., 2017, "Continual learning through synaptic intelligence".
    https://arxiv.org/abs/1703.04200
  """
  build.check_range(1, 12, num_tasks=num_tasks)
  ten, hundred = (
    make(data_dir=data_dir, num_validation=num_validation)
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
    Task(tuple(range(10 * i, 10 * i + 10)), None) for i in range(num_tasks)
  )
  return Stream(tasks, 110, cifar_lib.SHAPE, ten.augment, load)


def read(stream: Stream) -> tuple[dataset.Arrays, dict[str, list[np.ndarray]]]:
  """Returns all examples, and by split the rows of each task, int32."""
  arrays = stream.load()

  @functools.cache  # tasks of the same classes share their rows
  def find(classes, split):
    labels = getattr(arrays, split).labels
    rows = np.flatnonzero(np.isin(labels, classes)).astype(np.int32)
    if not rows.size:
      raise ValueError(
        f'expected {split} examples of the classes {classes}, got none'
      )
    return rows

  return arrays, {
    split: [find(task.classes, split) for task in stream.tasks]
    for split in SPLITS
  }


def make_views(stream: Stream) -> Views:
  """Returns the stacked views of tasks; all have a source, or none."""
  sources = [task.source for task in stream.tasks]
  labels = np.zeros((len(sources), stream.num_base_classes), np.int32)
  for row, task in zip(labels, stream.tasks, strict=True):
    row[list(task.classes)] = np.arange(len(task.classes))
  return Views(
    None if sources[0] is None else jnp.stack(sources), jnp.asarray(labels)
  )


def see(
  views: Views, task: jax.Array, examples: dataset.Examples
) -> dataset.Examples:
  """Returns examples of the data set as examples of a task, on the device.

  `task` is an int from 0, [] or [B] with one for each example.
  """
  inputs, labels = examples
  labels = views.labels[task, labels]
  if views.source is None:
    return dataset.Examples(inputs, labels)
  flat = jnp.reshape(inputs, (inputs.shape[0], -1))  # [B, D]
  source = views.source[task]  # [D] or [B, D]
  if source.ndim == 1:
    seen = flat.at[:, source[None]].get(mode='clip')[:, 0]
  else:
    seen = jnp.take_along_axis(flat, source, 1, mode='clip')
  return dataset.Examples(jnp.reshape(seen, inputs.shape), labels)


def _mnist(data_dir: str | None, tasks: Sequence[Task]) -> Stream:
  load = functools.partial(mnist.load, data_dir=data_dir)
  return Stream(tuple(tasks), mnist.NUM_CLASSES, mnist.SHAPE, None, load)
