import numpy as np
import pytest

from experiments.data import segments


@pytest.mark.parametrize(
  ('num_tokens', 'batch_size', 'segment_len'),
  [(103, 4, 5), (24, 2, 11), (9, 1, 8), (20, 3, 1)],
)
def test_each_row_reads_its_part_of_the_text_in_order(
  num_tokens, batch_size, segment_len
):
  tokens = np.random.default_rng(0).integers(0, 256, num_tokens, np.uint8)
  num = segments.steps_per_epoch(num_tokens, batch_size, segment_len)
  batches = [
    segments.train_batch(tokens, step, batch_size, segment_len)
    for step in range(3 * num, 4 * num)  # the fourth epoch
  ]
  row = num_tokens // batch_size
  inputs = np.concatenate([batch.inputs for batch in batches], axis=1)
  targets = np.concatenate([batch.targets for batch in batches], axis=1)
  for b in range(batch_size):
    part = tokens[b * row : (b + 1) * row]
    assert inputs[b].tolist() == part[: num * segment_len].tolist()
    assert targets[b].tolist() == part[1 : num * segment_len + 1].tolist()
  assert row - num * segment_len <= segment_len  # no more is left out
  assert [batch.is_first.all() for batch in batches] == [True] + [False] * (
    num - 1
  )


@pytest.mark.parametrize('batch_size', [1, 3, 20])
@pytest.mark.parametrize('num_tokens', [2, 36, 37])
@pytest.mark.parametrize('num_warm_up', [0, 2])
def test_evaluation_counts_every_token_once_after_those_before_it(
  batch_size, num_tokens, num_warm_up
):
  tokens = np.arange(100, 100 + num_tokens, dtype=np.uint8)
  predicted = []
  past = [[] for _ in range(batch_size)]
  for batch in segments.evaluation_batches(tokens, batch_size, 5, num_warm_up):
    assert batch.inputs.shape == batch.weights.shape == (batch_size, 5)
    for b in range(batch_size):
      if batch.is_first[b]:
        past[b] = []
      for x, y, weight in zip(
        batch.inputs[b], batch.targets[b], batch.weights[b], strict=True
      ):
        past[b].append(int(x))
        if weight:
          predicted.append(int(y))
          known = list(range(100, int(y)))
          enough = min(len(known), num_warm_up * 5 + 1)
          assert len(past[b]) >= enough
          assert past[b] == known[-len(past[b]) :]
  assert sorted(predicted) == list(range(101, 100 + num_tokens))
