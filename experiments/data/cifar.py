"""CIFAR-10 and CIFAR-100 as arrays, from the files of tensorflow-datasets.

B: examples of a batch; H, W: 32, the sides of an image.
"""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import dataset
from experiments.data import images as image_lib
from experiments.data import tfds_source

SHAPE = (32, 32, 3)


def cifar10(
  *, data_dir: str, num_validation: int, pad: int, flip: bool
) -> dataset.Arrays:
  """Returns CIFAR-10; see `load`."""
  return load('cifar10', 10, SHAPE, data_dir, num_validation, pad, flip)


def cifar100(
  *, data_dir: str, num_validation: int, pad: int, flip: bool
) -> dataset.Arrays:
  """Returns CIFAR-100 with its 100 fine labels; see `load`."""
  return load('cifar100', 100, SHAPE, data_dir, num_validation, pad, flip)


def load(
  name: str,
  num_classes: int,
  shape: tuple[int, int, int],
  data_dir: str,
  num_validation: int,
  pad: int,
  flip: bool,
) -> dataset.Arrays:
  """Returns one of the two data sets, or another like them, normalized.

  Normalized means that each of red, green and blue has mean 0 and deviation 1
  over all examples for training, those held out among them.

  Args:
    name: 'cifar10' | 'cifar100', or of any other whose examples are images of
      one shape and labels.
    num_classes: Of `name`.
    shape: Of its images: height, width, and channels, 1 or 3.
    data_dir: The folder of tensorflow-datasets.
    num_validation: How many of the last examples for training are held out as
      the validation split; at least 1, and 5,000 is the custom.
    pad: A training image is padded by as many pixels and cropped at random;
      4 is the custom, 0 for none.
    flip: Whether a training image is flipped half of the time.

  Raises:
    ValueError: If the data set is absent, incomplete or not as it should be, or
      if an argument is out of range.
  """
  if not 0 <= pad <= shape[0]:
    raise ValueError(f'expected a pad from 0 to {shape[0]}, got {pad}')
  if num_validation < 1:
    raise ValueError(f'expected num_validation >= 1, got {num_validation}')
  builder = tfds_source.open_builder(name, data_dir)
  train, test = (
    _read(builder, split, num_classes, shape) for split in ('train', 'test')
  )
  if not 1 <= num_validation < len(train.labels):
    raise ValueError(
      f'expected num_validation from 1 to {len(train.labels) - 1}, one less '
      f'than there are for training; got {num_validation}'
    )
  mean, std = mean_and_std(train.inputs)
  train, test = (
    split._replace(inputs=normalize(split.inputs, mean, std))
    for split in (train, test)
  )
  first = len(train.labels) - num_validation
  augment = functools.partial(pad_crop_flip, pad=pad, flip=flip)
  return dataset.Arrays(
    dataset.Examples(train.inputs[:first], train.labels[:first]),
    dataset.Examples(train.inputs[first:], train.labels[first:]),
    test,
    num_classes,
    augment if pad or flip else None,
  )


def mean_and_std(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean and the standard deviation of each channel, in [0, 1].

  Shapes:
    images: uint8 `[N, H, W, 3]`; each of the two returned is float64 `[3]`.
  """
  flat = images.reshape(-1, images.shape[2], images.shape[3])
  mean, std = cv2.meanStdDev(flat)
  return mean[:, 0] / 255, std[:, 0] / 255


def normalize(
  images: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
  """Returns `(images / 255 - mean) / std`.

  Shapes:
    images: uint8 `[N, H, W, 3]`; the result is float32 of this shape.
    mean, std: `[3]`.
  """
  normalized = np.empty(images.shape, np.float32)
  rows = (-1, *images.shape[2:])  # OpenCV's images have three axes
  table = image_lib.normalization(mean, std)
  image_lib.normalize(images.reshape(rows), table, normalized.reshape(rows))
  return normalized


def pad_crop_flip(
  key: jax.Array, images: jax.Array, *, pad: int, flip: bool
) -> jax.Array:
  """Returns images moved by at most `pad` pixels, and maybe flipped.

  What is moved in is 0, the mean of normalized images. Each image has its own
  draw, uniform over all places and both orientations.

  Shapes:
    images: `[B, H, W, C]`; the result has the same shape and dtype.

  Reference:
    He et al., 2016, "Deep residual learning for image recognition".
    https://arxiv.org/abs/1512.03385
  """
  batch_size, height, width, channels = images.shape
  offset_key, flip_key = jax.random.split(key)
  offsets = jax.random.randint(offset_key, (batch_size, 2), 0, 2 * pad + 1)
  padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

  def crop(image, offset):
    start = (offset[0], offset[1], 0)
    return jax.lax.dynamic_slice(image, start, (height, width, channels))

  moved = jax.vmap(crop)(padded, offsets)
  if not flip:
    return moved
  flipped = jax.random.bernoulli(flip_key, 0.5, (batch_size, 1, 1, 1))
  return jnp.where(flipped, moved[:, :, ::-1], moved)


def _read(
  builder, split: str, num_classes: int, shape: tuple[int, int, int]
) -> dataset.Examples:
  """Returns a split with images in 0 ... 255, after checking it."""
  source = tfds_source.open_split(builder, split, encoded=('image',))
  images = np.empty((len(source), *shape), np.uint8)
  color = cv2.IMREAD_COLOR_RGB if shape[2] == 3 else cv2.IMREAD_GRAYSCALE
  labels = np.empty(len(source), np.int32)
  for i in range(len(source)):
    try:
      example = source[i]
      content = np.frombuffer(example['image'], np.uint8)
      image = cv2.imdecode(content, color)
    except (RuntimeError, cv2.error) as error:
      image, reason = None, str(error)
    else:
      reason = 'it does not decode'
    if image is not None and image.ndim == 2:
      image = image[:, :, np.newaxis]
    if image is None or image.shape != shape:
      reason = reason if image is None else f'its shape is {image.shape}'
      raise ValueError(
        f'expected an image of the shape {shape}, got '
        f'{tfds_source.locate(source, i)}: {reason}; prepare the data set again'
      )
    if not 0 <= example['label'] < num_classes:
      raise ValueError(
        f'expected a label from 0 to {num_classes - 1}, got {example["label"]} '
        f'in {tfds_source.locate(source, i)}; prepare the data set again'
      )
    images[i], labels[i] = image, example['label']
  return dataset.Examples(images, labels)
