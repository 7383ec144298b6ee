"""Data sets by name: what they hold, and how they are read."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from experiments.data import mnist


class Spec(NamedTuple):
  """What is known of a data set before any of it is read."""

  example_shape: tuple[int, ...]
  num_classes: int
  is_stream: bool
  augment: Callable[..., jax.Array] | None


def _mnist(*, data_dir: str | None) -> Spec:
  del data_dir
  return Spec((28, 28, 1), 10, is_stream=False, augment=None)


# Both take the same section.
SPECS = {'mnist': _mnist}
DATA = {'mnist': mnist.load}
