"""CIFAR-10 and CIFAR-100 as arrays, from files of tensorflow-datasets.

B: examples of a batch; H, W: 32, the sides of an image.
"""

import functools
import math

import cv2
import jax
import jax.numpy as jnp

from experiments import build
from experiments.data import dataset
from experiments.data import images as image_lib
from experiments.data import records

SHAPE = (32, 32, 3)
PAD = 4  # pixels on each side


def _cifar(
  num_classes: int,
  *,
  data_dir: str | None,
  num_validation: int,
) -> dataset.Source:
  """Returns CIFAR; each color channel has mean 0 and deviation 1 in training.

  Training images are moved and flipped, see `pad_crop_flip`. The last
  `num_validation` of them, usually 5,000, are held out.
  """
  build.check_range(1, math.inf, num_validation=num_validation)
  return dataset.Source(
    SHAPE,
    num_classes,
    pad_crop_flip,
    is_stream=False,
    load=functools.partial(_load, num_classes, data_dir, num_validation),
  )


cifar10 = functools.partial(_cifar, 10)
cifar100 = functools.partial(_cifar, 100)


def _load(
  num_classes: int, data_dir: str | None, num_validation: int
) -> dataset.Arrays:
  name = f'cifar{num_classes}'
  train, test = (
    records.read(source, num_classes)
    for source in records.open_splits(name, data_dir, ('train', 'test'))
  )
  if num_validation >= len(train.labels):
    raise ValueError(
      f'expected num_validation from 1 to {len(train.labels) - 1}, one less '
      f'than there are for training; got {num_validation}'
    )
  mean, std = cv2.meanStdDev(train.inputs.reshape(-1, *SHAPE[1:]))
  train, test = (
    dataset.Examples(
      image_lib.normalize(inputs, mean[:, 0] / 255, std[:, 0] / 255), labels
    )
    for inputs, labels in (train, test)
  )
  return dataset.hold_out(train, num_validation, test)


def pad_crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
  """Returns images moved by up to 4 pixels, flipped with probability 1/2.

  Padding is 0, the mean of normalized images. Each image has its own draw.

  Reference:
    He et al., 2016, "Deep residual learning for image recognition".
    https://arxiv.org/abs/1512.03385
  """
  batch_size, height, width, channels = images.shape
  offset_key, flip_key = jax.random.split(key)
  offsets = jax.random.randint(offset_key, (batch_size, 2), 0, 2 * PAD + 1)
  padded = jnp.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))

  def crop(image, offset):
    start = (offset[0], offset[1], 0)
    return jax.lax.dynamic_slice(image, start, (height, width, channels))

  moved = jax.vmap(crop)(padded, offsets)
  flipped = jax.random.bernoulli(flip_key, 0.5, (batch_size, 1, 1, 1))
  return jnp.where(flipped, moved[:, :, ::-1], moved)
