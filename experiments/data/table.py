"""Data sets by name: their shapes, and how they are read."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax

from experiments.data import cifar
from experiments.data import imagenet
from experiments.data import mnist


class Spec(NamedTuple):
  """Facts about a data set, known before it is read."""

  example_shape: tuple[int, ...]
  num_classes: int
  is_stream: bool
  augment: Callable[..., jax.Array] | None


def _mnist(*, data_dir: str | None) -> Spec:
  del data_dir
  return Spec(mnist.SHAPE, mnist.NUM_CLASSES, is_stream=False, augment=None)


def _cifar(
  num_classes: int,
  *,
  data_dir: str | None,
  num_validation: int,
  pad: int,
  flip: bool,
) -> Spec:
  del data_dir, num_validation
  augment = cifar.make_augment(pad, flip)
  return Spec(cifar.SHAPE, num_classes, is_stream=False, augment=augment)


def _imagenet(*, data_dir: str | None, image_size: int, **_) -> Spec:
  del data_dir
  if image_size < 1:
    raise ValueError(f'expected image_size >= 1, got {image_size}')
  shape = (image_size, image_size, 3)
  return Spec(shape, imagenet.NUM_CLASSES, is_stream=True, augment=None)


# Each pair takes the same section.
SPECS = {
  'cifar10': functools.partial(_cifar, 10),
  'cifar100': functools.partial(_cifar, 100),
  'imagenet': _imagenet,
  'mnist': _mnist,
}
DATA = {
  'cifar10': cifar.cifar10,
  'cifar100': cifar.cifar100,
  'imagenet': imagenet.imagenet,
  'mnist': mnist.load,
}
