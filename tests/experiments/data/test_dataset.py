import numpy as np
import pytest

from experiments import build
from experiments.data import dataset
from experiments.data import table
from experiments.tasks.continual import task as continual

N = 103


@pytest.mark.parametrize('batch_size', [1, 60, N])
def test_every_example_is_read_once_an_epoch(batch_size):
  num_steps = -(-4 * N // batch_size)
  stream = dataset.batch_indices(0, 0, num_steps, batch_size, N).reshape(-1)
  epochs = stream[: 4 * N].reshape(4, N)
  for epoch in epochs:
    np.testing.assert_array_equal(np.sort(epoch), np.arange(N))
  assert len({epoch.tobytes() for epoch in epochs}) == 4


@pytest.mark.parametrize('sizes', [[1] * 40, [7, 0, 33]])
def test_the_stream_does_not_depend_on_how_it_is_cut(sizes):
  whole = dataset.batch_indices(3, 5, 40, 60, N)
  assert whole.shape == (40, 60)
  assert whole.dtype == np.int32
  firsts = 5 + np.cumsum([0, *sizes[:-1]])
  pieces = [
    dataset.batch_indices(3, int(first), size, 60, N)
    for first, size in zip(firsts, sizes, strict=True)
  ]
  np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_the_order_is_the_one_of_earlier_versions():
  # NumPy may change its streams; then a resumed run would see other batches.
  indices = dataset.batch_indices(7, 1, 2, 4, 10)
  assert indices.tolist() == [[2, 0, 5, 7], [8, 4, 1, 9]]


IMAGENET = {
  'name': 'imagenet', 'data_dir': None, 'num_validation': 0, 'image_size': 8,
  'resize': 9, 'on_bad_record': 'stop', 'num_workers': 0,
}  # fmt: skip
CIFAR = {'name': 'cifar10', 'data_dir': None, 'num_validation': 1}
PERMUTED = {'name': 'permuted_mnist', 'data_dir': None, 'num_tasks': 1}


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    (IMAGENET | {'on_bad_record': 'ignore'}, r"among \('stop', 'skip'\), got"),
    (IMAGENET | {'image_size': 0}, 'expected 1 <= image_size'),
    (CIFAR | {'num_validation': 0}, r'num_validation in \[1, inf\), got 0'),
    (PERMUTED | {'seed': -1}, r'seed in \[0, inf\), got -1'),
  ],
)
def test_an_argument_out_of_range_is_an_error_before_data_are_read(
  section, message
):
  with pytest.raises(ValueError, match=message):
    build.build(table.SOURCES | continual.TASKS, section)
