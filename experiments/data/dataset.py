"""Data sets: arrays that fit on the device, or a stream of batches.

N: examples of a split; B: examples of a batch.
"""

from collections.abc import Callable
from collections.abc import Iterator
import hashlib
import pathlib
from typing import NamedTuple

import jax
import numpy as np


class DataError(ValueError):
  """A damaged record or label; the message names the file and the record."""


class Examples(NamedTuple):
  """Inputs and their labels."""

  inputs: np.ndarray  # [N, ...]
  labels: np.ndarray  # int32 [N], from 0 to num_classes - 1


class Arrays(NamedTuple):
  """A data set that fits on the device."""

  train: Examples
  validation: Examples
  test: Examples


class Stream(NamedTuple):
  """A data set that is read during training.

  A batch is a pure function of the seed and the step, so a checkpoint needs no
  iterator state. Call `close()` on an iterator that is not exhausted: it ends
  the worker processes.
  """

  num_train: int
  # train(seed=, first_step=, batch_size=, process_index=, process_count=)
  # yields this process's share of each global batch of `batch_size` examples,
  # from `first_step` on, without end.
  train: Callable[..., Iterator[Examples]]
  # evaluate(split=, batch_size=, process_index=, process_count=) yields this
  # process's share of 'validation' or 'test', each example once, in batches of
  # one size, with weights, float32 [B]: 0 for padding.
  evaluate: Callable[..., Iterator[tuple[Examples, np.ndarray]]]
  quarantined: Callable[[], int]  # records that did not decode, so far
  skipped: Callable[[], int] = lambda: 0  # how often one of them was met


class Source(NamedTuple):
  """A data set before it is read: the facts that a dry run needs."""

  example_shape: tuple[int, ...]  # of one input, float32, normalized
  num_classes: int
  # augment(key, images) -> images, float32 [B, ...]: random, on the device, in
  # training only. None: no augmentation.
  augment: Callable[[jax.Array, jax.Array], jax.Array] | None
  is_stream: bool
  load: Callable[[], Arrays | Stream]  # Stream if `is_stream`


def hold_out(train: Examples, num: int, test: Examples) -> Arrays:
  """Returns the splits, with the last `num` training examples as validation."""
  return Arrays(
    Examples(train.inputs[:-num], train.labels[:-num]),
    Examples(train.inputs[-num:], train.labels[-num:]),
    test,
  )


def read_checked(path: pathlib.Path, sha256: str) -> bytes:
  """Returns the content of a file; ValueError if its SHA-256 differs."""
  try:
    content = path.read_bytes()
  except FileNotFoundError as error:
    raise ValueError(
      f'expected {path} with sha256 {sha256}; there is no such file'
    ) from error
  found = hashlib.sha256(content).hexdigest()
  if found != sha256:
    raise ValueError(
      f'expected {path} with sha256 {sha256}; got {found} ({len(content)} '
      'bytes): it is truncated or altered, replace it'
    )
  return content
