"""MNIST: 55,000 training, 5,000 validation and 10,000 test examples.

This package has the four official files. A data set prepared by
tensorflow-datasets is read without TensorFlow.
"""

import functools
import gzip
import pathlib
import struct

import numpy as np

from experiments.data import dataset
from experiments.data import records

FILES = pathlib.Path(__file__).parent / 'files' / 'mnist'

SHA256 = {
  'train-images-idx3-ubyte.gz': (
    '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609'
  ),
  'train-labels-idx1-ubyte.gz': (
    '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c'
  ),
  't10k-images-idx3-ubyte.gz': (
    '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6'
  ),
  't10k-labels-idx1-ubyte.gz': (
    'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6'
  ),
}

SHAPE = (28, 28, 1)
NUM_CLASSES = 10
NUM_TRAIN = 60_000  # validation included
NUM_VALIDATION = 5_000
NUM_TEST = 10_000


def mnist(*, data_dir: str | None) -> dataset.Source:
  """Returns MNIST before it is read; see `load`."""
  read = functools.partial(load, data_dir=data_dir)
  return dataset.Source(SHAPE, NUM_CLASSES, None, is_stream=False, load=read)


def load(*, data_dir: str | None) -> dataset.Arrays:
  """Returns MNIST; the last 5,000 training examples are for validation.

  Without `data_dir` it is read from the files of this package; in a folder of
  tensorflow-datasets it has another order.
  """
  if data_dir is None:
    train, test = (
      (_read_idx(f'{name}-images-idx3'), _read_idx(f'{name}-labels-idx1'))
      for name in ('train', 't10k')
    )
  else:
    splits = records.open_splits('mnist', data_dir, ('train', 'test'))
    found = (records.read(source, NUM_CLASSES) for source in splits)
    train, test = ((inputs[..., 0], labels) for inputs, labels in found)
  place = f'of {data_dir or FILES}'
  train = _to_examples(f'train {place}', *train, NUM_TRAIN)
  test = _to_examples(f'test {place}', *test, NUM_TEST)
  return dataset.hold_out(train, NUM_VALIDATION, test)


def _to_examples(
  split: str, images: np.ndarray, labels: np.ndarray, num: int
) -> dataset.Examples:
  expected = ((num, *SHAPE[:2]), (num,))
  if (images.shape, labels.shape) != expected:
    raise ValueError(
      f'expected images and labels of the shapes {expected} in {split}, got '
      f'{images.shape} and {labels.shape}'
    )
  scaled = images[..., np.newaxis].astype(np.float32)
  scaled /= np.float32(255)
  return dataset.Examples(scaled, labels.astype(np.int32))


def _read_idx(name: str) -> np.ndarray:
  path = FILES / f'{name}-ubyte.gz'
  content = gzip.decompress(dataset.read_checked(path, SHA256[path.name]))
  rank = content[3]
  shape = struct.unpack_from(f'>{rank}I', content, 4)
  return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
