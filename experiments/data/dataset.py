"""Data sets, arrays or a stream of batches, and the order of their examples.

N: examples of a split; B: examples of a batch.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import gzip
import hashlib
import pathlib
from typing import NamedTuple
import zlib

import jax
import numpy as np

# Errors of a gzip file that is truncated or damaged.
BAD_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


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
  skipped: Callable[[], int]  # how often a record did not decode, so far


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
  """Returns the content of a gzip file; ValueError if its SHA-256 differs.

  The digest is that of the content: distributors compress it anew.
  """
  expected = f'expected {path} whose content has the sha256 {sha256}'
  try:
    packed = path.read_bytes()
    content = gzip.decompress(packed)
    found = hashlib.sha256(content).hexdigest()
  except FileNotFoundError as error:
    raise ValueError(f'{expected}; there is no such file') from error
  except BAD_GZIP as error:
    found = str(error)
  if found != sha256:
    raise ValueError(
      f'{expected}; got {found} ({len(packed)} bytes): it is truncated, '
      'altered or another file; replace it'
    )
  return content


def batch_indices(
  seed: int, first_step: int, num_steps: int, batch_size: int, num_examples: int
) -> np.ndarray:
  """Returns the indices of consecutive batches, `(num_steps, batch_size)`.

  A pure function of the seed and the step. Each epoch is a new permutation of
  all examples. A batch may span two epochs, so all have the same size and no
  example is dropped.

  Example:
    >>> batch_indices(
    ...   0, first_step=0, num_steps=2, batch_size=3, num_examples=5)
    array([[4, 1, 2],
           [0, 3, 0]], dtype=int32)
  """
  if not 1 <= batch_size <= num_examples:
    raise ValueError(
      f'expected a batch_size from 1 to {num_examples}, the number of '
      f'examples; got {batch_size}'
    )
  begin = first_step * batch_size  # in the concatenation of all epochs
  end = begin + num_steps * batch_size
  pieces = [np.empty(0, np.int32)]
  for epoch in range(begin // num_examples, -(-end // num_examples)):
    start = epoch * num_examples
    piece = slice(max(begin - start, 0), end - start)
    pieces.append(_permutation(seed, epoch, num_examples)[piece])
  return np.concatenate(pieces).reshape(num_steps, batch_size)


def make_generator(seed: int, stream: int) -> np.random.Generator:
  """Returns one of many independent generators of a seed."""
  return np.random.Generator(np.random.Philox(key=[seed, stream]))


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  return make_generator(seed, epoch).permutation(num_examples).astype(np.int32)
