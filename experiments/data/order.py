"""The order of examples: a pure function of the seed and the step."""

import functools

import numpy as np


def batch_indices(
  seed: int, first_step: int, num_steps: int, batch_size: int, num_examples: int
) -> np.ndarray:
  """Returns the indices of consecutive batches, `(num_steps, batch_size)`.

  Each epoch is a new permutation of all examples. A batch may span two epochs,
  so all have the same size and no example is dropped.

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


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
  return generator.permutation(num_examples).astype(np.int32)
