import numpy as np
import pytest

from experiments.data import order

N = 103


@pytest.mark.parametrize('batch_size', [1, 10, 60, N])
def test_every_example_is_read_once_an_epoch(batch_size):
  num_steps = -(-4 * N // batch_size)
  stream = order.batch_indices(0, 0, num_steps, batch_size, N).reshape(-1)
  epochs = stream[: 4 * N].reshape(4, N)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(N))
  assert len({epoch.tobytes() for epoch in epochs}) == 4


@pytest.mark.parametrize('sizes', [[1] * 40, [7, 0, 33], [39, 1]])
def test_the_stream_does_not_depend_on_how_it_is_cut(sizes):
  whole = order.batch_indices(3, 5, 40, 60, N)
  assert whole.shape == (40, 60)
  assert whole.dtype == np.int32
  firsts = 5 + np.cumsum([0, *sizes[:-1]])
  pieces = [
    order.batch_indices(3, int(first), size, 60, N)
    for first, size in zip(firsts, sizes, strict=True)
  ]
  np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_the_order_follows_the_seed_and_is_a_copy():
  first = order.batch_indices(0, 0, 1, N, N)
  expected = first.copy()
  assert not np.array_equal(order.batch_indices(1, 0, 1, N, N), expected)
  first[:] = 0
  np.testing.assert_array_equal(order.batch_indices(0, 0, 1, N, N), expected)


def test_the_order_is_the_one_of_earlier_versions():
  # NumPy may change its streams; then a resumed run would see other batches.
  indices = order.batch_indices(7, 1, 2, 4, 10)
  assert indices.tolist() == [[2, 0, 5, 7], [8, 4, 1, 9]]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'batch_size': N + 1}, f'batch_size from 1 to {N}'),
    ({'batch_size': 0}, f'batch_size from 1 to {N}'),
    ({'seed': -1}, 'seed >= 0'),
    ({'first_step': -1}, 'first_step >= 0'),
    ({'num_steps': -1}, 'num_steps >= 0'),
  ],
)
def test_numbers_that_make_no_sense_are_errors(change, message):
  arguments = {
    'seed': 0,
    'first_step': 0,
    'num_steps': 1,
    'batch_size': 10,
    'num_examples': N,
  }
  with pytest.raises(ValueError, match=message):
    order.batch_indices(**{**arguments, **change})
