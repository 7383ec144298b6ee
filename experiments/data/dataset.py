"""What a data set is to the experiments: arrays, or a stream of batches.

N: examples of a split; B: examples of a batch.
"""

from collections.abc import Callable
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np


class DataError(ValueError):
  """What a file holds is not as it should be; the message names the record."""


class Examples(NamedTuple):
  """Some inputs and their labels."""

  inputs: np.ndarray  # [N, ...]
  labels: np.ndarray  # int32 [N], from 0 to num_classes - 1


class Arrays(NamedTuple):
  """A data set that fits on the device."""

  train: Examples
  validation: Examples
  test: Examples
  num_classes: int
  # augment(key, images) -> images, float32 [B, ...]: random, run on the device,
  # for training only. None where training sees the examples as they are.
  augment: Callable[[jax.Array, jax.Array], jax.Array] | None


class Stream(NamedTuple):
  """A data set that is read while training.

  What a step sees is a pure function of the seed and the step, so there is no
  position in the data to save: who knows the step can go on to the exact
  example. Who stops reading before the end calls `close()` of the iterator, so
  that the processes that read for it end.
  """

  num_train: int
  num_classes: int
  example_shape: tuple[int, ...]  # of one input, float32, normalized
  # train(seed=, first_step=, batch_size=, process_index=, process_count=)
  # yields this process's share of each global batch, `batch_size` being that
  # of all processes together, from step `first_step` on and without end.
  train: Callable[..., Iterator[Examples]]
  # evaluate(split=, batch_size=, process_index=, process_count=) yields this
  # process's share of the split 'validation' or 'test', each example once, in
  # batches of one size and weights, float32 [B]: 0 where the last are padding.
  evaluate: Callable[..., Iterator[tuple[Examples, np.ndarray]]]
  # How many different records were skipped so far as they did not decode ...
  quarantined: Callable[[], int]
  # ... and how many times one was.
  skipped: Callable[[], int] = lambda: 0
