"""A text as batches of consecutive segments, as a model with a memory needs it.

Row b of a batch goes on where row b of the batch before ended. What a step sees
is a pure function of the step: who knows the step knows the position.

B: batch; T: tokens of a segment; N: tokens of a split.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Segments(NamedTuple):
  """One segment of each of B texts."""

  inputs: np.ndarray  # int32 [B, T]
  targets: np.ndarray  # int32 [B, T], the tokens that follow each input
  is_first: np.ndarray  # bool [B]: what the memory holds is of no concern
  weights: np.ndarray  # float32 [B, T]: 0 where nothing is to be predicted


def steps_per_epoch(num_tokens: int, batch_size: int, segment_len: int) -> int:
  """Returns how many steps see the whole text once.

  The text is cut into B rows of equal length; of each at most T - 1 tokens at
  the end are not seen.

  Raises:
    ValueError: If a row is shorter than a segment and the token after it.
  """
  if batch_size < 1 or segment_len < 1:
    raise ValueError(
      'expected batch_size >= 1 and segment_len >= 1, got '
      f'{batch_size} and {segment_len}'
    )
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
  """Returns what a step sees; epochs follow one another without end.

  Example:
    >>> batch = train_batch(np.arange(10), 1, batch_size=2, segment_len=2)
    >>> batch.inputs
    array([[2, 3],
           [7, 8]], dtype=int32)
    >>> batch.targets
    array([[3, 4],
           [8, 9]], dtype=int32)

  Raises:
    ValueError: If the text is too short, see `steps_per_epoch`.
  """
  num_steps = steps_per_epoch(len(tokens), batch_size, segment_len)
  row = len(tokens) // batch_size
  first = step % num_steps * segment_len
  starts = np.arange(batch_size) * row + first
  both = np.stack(
    [tokens[start : start + segment_len + 1] for start in starts]
  ).astype(np.int32)
  return Segments(
    both[:, :-1],
    both[:, 1:],
    np.full(batch_size, step % num_steps == 0),
    np.ones((batch_size, segment_len), np.float32),
  )


def evaluation_batches(
  tokens: np.ndarray, batch_size: int, segment_len: int, num_warm_up: int
) -> Iterator[Segments]:
  """Yields the whole split in order, each target with the weight 1 once.

  The split is one row of segments, whatever the batch: each of the B rows gets
  a part of it, and before it, with the weight 0, the `num_warm_up` segments
  that precede it. If these fill the memory of every layer, results do not
  depend on B.

  Args:
    tokens: [N]; the first is not predicted.
    batch_size: B.
    segment_len: T.
    num_warm_up: see `warm_up`.

  Raises:
    ValueError: If there are less than 2 tokens.
  """
  if len(tokens) < 2:
    raise ValueError(
      f'expected at least 2 tokens to predict one, got {len(tokens)}'
    )
  num_targets = len(tokens) - 1
  num_segments = -(-num_targets // segment_len)
  part = -(-num_segments // batch_size)
  if batch_size == 1:
    num_warm_up = 0
  begin = np.arange(batch_size) * part
  end = np.minimum(begin + part, num_segments)
  for step in range(-num_warm_up, part):
    index = begin + step  # of the segment in the split, [B]
    is_real = (index >= 0) & (index < end)
    starts = np.where(is_real, index, 0) * segment_len
    both = np.stack([_padded(tokens, start, segment_len) for start in starts])
    place = starts[:, None] + np.arange(segment_len)[None]
    counted = (place < num_targets) & (is_real & (step >= 0))[:, None]
    yield Segments(
      both[:, :-1], both[:, 1:], index <= 0, counted.astype(np.float32)
    )


def warm_up(num_layers: int, memory_len: int, segment_len: int) -> int:
  """Returns how many segments fill the memory of every layer exactly.

  A layer's memory is as in one long text once it holds only what was computed
  with such a memory of the layer below.
  """
  return num_layers * -(-memory_len // segment_len)


def _padded(tokens, start: int, segment_len: int) -> np.ndarray:
  """Returns T + 1 tokens, int32; zeros follow the end of the text."""
  piece = np.asarray(tokens[start : start + segment_len + 1], np.int32)
  return np.pad(piece, (0, segment_len + 1 - len(piece)))
