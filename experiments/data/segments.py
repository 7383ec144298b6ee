"""Batches of consecutive segments of a text, for a model with a memory.

Row b of a batch continues row b of the previous batch. A batch is a pure
function of the step.

B: batch; T: tokens of a segment; N: tokens of a split.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Segments(NamedTuple):
  """One segment of each of B rows of text."""

  inputs: np.ndarray  # int32 [B, T]
  targets: np.ndarray  # int32 [B, T], the next token of each input
  is_first: np.ndarray  # bool [B]: the memory is to be reset
  weights: np.ndarray  # float32 [B, T]: 0 for padding and warm-up


def steps_per_epoch(num_tokens: int, batch_size: int, segment_len: int) -> int:
  """Returns the number of steps of one epoch.

  The text is cut into B rows of equal length; up to T - 1 tokens at the end of
  each row are not used. ValueError if a row is shorter than T + 1.
  """
  row = num_tokens // batch_size
  if row < segment_len + 1:
    raise ValueError(
      f'expected at least {batch_size * (segment_len + 1)} tokens, '
      f'{batch_size} rows of a segment of {segment_len} and one more, got '
      f'{num_tokens}; take a longer text, fewer rows or shorter segments'
    )
  return (row - 1) // segment_len


def train_batch(
  tokens: np.ndarray, step: int, batch_size: int, segment_len: int
) -> Segments:
  """Returns the batch of a step; epochs follow one another without end.

  Example:
    >>> batch = train_batch(np.arange(10), 1, batch_size=2, segment_len=2)
    >>> batch.inputs
    array([[2, 3],
           [7, 8]], dtype=int32)
    >>> batch.targets
    array([[3, 4],
           [8, 9]], dtype=int32)
  """
  num_steps = steps_per_epoch(len(tokens), batch_size, segment_len)
  first = step % num_steps * segment_len
  starts = np.arange(batch_size) * (len(tokens) // batch_size) + first
  rows = _rows(tokens, starts, segment_len)
  return Segments(
    rows[:, :-1],
    rows[:, 1:],
    np.full(batch_size, step % num_steps == 0),
    np.ones((batch_size, segment_len), np.float32),
  )


def evaluation_batches(
  tokens: np.ndarray, batch_size: int, segment_len: int, num_warm_up: int
) -> Iterator[Segments]:
  """Yields the whole split in order, each target with weight 1 exactly once.

  Each of the B rows gets an equal part of the split, preceded by the
  `num_warm_up` segments before it with weight 0. If these fill the memory of
  every layer, see `warm_up`, the result does not depend on B.
  """
  if len(tokens) < 2:
    raise ValueError(
      f'expected at least 2 tokens to predict one, got {len(tokens)}'
    )
  num_targets = len(tokens) - 1
  num_segments = -(-num_targets // segment_len)
  part = -(-num_segments // batch_size)
  num_warm_up = num_warm_up if batch_size > 1 else 0
  begin = np.arange(batch_size) * part
  end = np.minimum(begin + part, num_segments)
  for step in range(-num_warm_up, part):
    index = begin + step  # of the segment in the split, [B]
    is_real = (index >= 0) & (index < end)
    starts = np.where(is_real, index, 0) * segment_len
    rows = _rows(tokens, starts, segment_len)
    place = starts[:, None] + np.arange(segment_len)[None]
    counted = (place < num_targets) & (is_real & (step >= 0))[:, None]
    yield Segments(
      rows[:, :-1], rows[:, 1:], index <= 0, counted.astype(np.float32)
    )


def warm_up(num_layers: int, memory_len: int, segment_len: int) -> int:
  """Returns the number of segments that fill the memory of every layer.

  A layer's memory is exact once computed from an exact one of the layer below.
  """
  return num_layers * -(-memory_len // segment_len)


def _rows(tokens, starts: np.ndarray, segment_len: int) -> np.ndarray:
  """Returns the T + 1 tokens from each start, zero-padded, int32 [B, T + 1]."""
  rows = np.zeros((len(starts), segment_len + 1), np.int32)
  for row, start in zip(rows, starts, strict=True):
    piece = tokens[start : start + segment_len + 1]
    row[: len(piece)] = piece
  return rows
