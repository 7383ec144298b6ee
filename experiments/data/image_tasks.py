"""Streams of tasks that are classes of image data sets.

The data sets are prepared by `experiments.data.prepare`, and read when a stream
is; before that nothing is known of them but what the arguments say.
"""

import functools

import numpy as np

from experiments.data import cifar
from experiments.data import dataset
from experiments.data import tasks as tasks_lib
from experiments.data import views as views_lib

_CIFAR10, _CIFAR100 = 10, 100  # classes; also those of each task


def cifar_tasks(
  *,
  num_tasks: int,
  data_dir: str | None,
  num_validation: int,
  pad: int,
  flip: bool,
) -> tasks_lib.Stream:
  """Returns CIFAR-10, then the classes of CIFAR-100 ten by ten.

  By custom there are six tasks, with the first 50 classes of CIFAR-100. Each of
  the two data sets is normalized by itself.

  Args:
    num_tasks: from 1 to 11.
    data_dir: the folder of tensorflow-datasets.
    num_validation: how many examples are held out of each data set.
    pad: by how many pixels training images are moved at most.
    flip: whether half of them are flipped.

  Raises:
    ValueError: If there are not as many tasks.

  Reference:
    Zenke et al., 2017, "Continual learning through synaptic intelligence".
    https://arxiv.org/abs/1703.04200
  """
  most = 1 + _CIFAR100 // _CIFAR10
  if not 1 <= num_tasks <= most:
    raise ValueError(
      f'expected num_tasks from 1 to {most}, CIFAR-10 and ten tens of '
      f'CIFAR-100, got {num_tasks}'
    )
  classes = np.arange(num_tasks * _CIFAR10).reshape(num_tasks, -1)

  def load():
    options = (
      _given(data_dir, 'cifar10'), num_validation, pad, flip,
    )  # fmt: skip
    first = cifar.load('cifar10', _CIFAR10, cifar.SHAPE, *options)
    if num_tasks == 1:
      return first
    return _together(
      first, cifar.load('cifar100', _CIFAR100, cifar.SHAPE, *options)
    )

  return tasks_lib.Stream(
    tuple(views_lib.Task(tuple(group), None) for group in classes.tolist()),
    _CIFAR10 + _CIFAR100,
    cifar.SHAPE,
    _augment(pad, flip),
    load,
  )


def split_images(
  *,
  data_set: str,
  data_dir: str | None,
  image_shape: tuple[int, ...],
  num_classes: int,
  num_tasks: int,
  classes_per_task: int,
  seed: int | None,
  num_validation: int,
  pad: int,
  flip: bool,
) -> tasks_lib.Stream:
  """Returns the classes of any image data set, some for each task.

  Args:
    data_set: its name in tensorflow-datasets; its examples are an image, all of
      one shape, and a label.
    data_dir: the folder of tensorflow-datasets.
    image_shape: height, width, and channels, 1 or 3.
    num_classes: of the data set.
    num_tasks: how many tasks.
    classes_per_task: how many classes each has.
    seed: of the order of the classes; None for their own.
    num_validation: how many examples are held out.
    pad: by how many pixels training images are moved at most.
    flip: whether half of them are flipped.

  Raises:
    ValueError: If the tasks need more classes than there are, or an argument is
      out of range.
  """
  if len(image_shape) != 3 or image_shape[2] not in (1, 3):
    raise ValueError(
      'expected image_shape as height, width and 1 or 3 channels, got '
      f'{image_shape}'
    )
  groups = tasks_lib.split_classes(
    num_tasks, classes_per_task, num_classes, seed
  )

  def load():
    return cifar.load(
      data_set,
      num_classes,
      image_shape,
      _given(data_dir, data_set),
      num_validation,
      pad,
      flip,
    )

  return tasks_lib.Stream(
    tuple(views_lib.Task(group, None) for group in groups),
    num_classes,
    image_shape,
    _augment(pad, flip),
    load,
  )


def _together(first: dataset.Arrays, second: dataset.Arrays) -> dataset.Arrays:
  """Returns two data sets as one; the classes of the second come after."""

  def join(a, b):
    labels = np.concatenate([a.labels, b.labels + first.num_classes])
    return dataset.Examples(np.concatenate([a.inputs, b.inputs]), labels)

  return dataset.Arrays(
    *(
      join(getattr(first, name), getattr(second, name))
      for name in tasks_lib.SPLITS
    ),
    first.num_classes + second.num_classes,
    first.augment,
  )


def _augment(pad: int, flip: bool):
  augment = functools.partial(cifar.pad_crop_flip, pad=pad, flip=flip)
  return augment if pad or flip else None


def _given(data_dir: str | None, name: str) -> str:
  if data_dir is None:
    raise ValueError(
      f'expected data_dir, the folder with {name}, got none: '
      '--config.tasks.data_dir=DIR'
    )
  return data_dir
