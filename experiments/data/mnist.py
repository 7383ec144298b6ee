"""MNIST: 55,000 training, 5,000 validation and 10,000 test examples.

The four official files come with this package and are checked before they are
used. A data set prepared by TensorFlow Datasets will do as well; it is read
without TensorFlow.
"""

import gzip
import hashlib
import io
import os
import pathlib
import struct

import numpy as np

from experiments.data import dataset
from experiments.data import tfds_source

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

NUM_CLASSES = 10
NUM_TRAIN = 60_000  # With the examples for validation.
NUM_VALIDATION = 5_000
NUM_TEST = 10_000

_SIDE = 28  # Images are 28 x 28.
_PREFIX = {'train': 'train', 'test': 't10k'}


def load(
  *, data_dir: str | None, directory: str | os.PathLike[str] = FILES
) -> dataset.Arrays:
  """Returns MNIST; the last 5,000 examples for training are the validation.

  TensorFlow Datasets has the examples in an order of its own, so with it the
  validation examples are others.

  Args:
    data_dir: The folder of TensorFlow Datasets; None reads the files that come
      with this package.
    directory: Where those files are, if elsewhere.

  Raises:
    ValueError: If the data is absent, or not MNIST as it should be.
  """
  if data_dir is None:
    train, test = (read_files(directory, split) for split in _PREFIX)
  else:
    train, test = (read_tfds(data_dir, split) for split in _PREFIX)
  return make_splits(train, test)


def read_files(
  directory: str | os.PathLike[str], split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the images and labels of `'train'` or `'test'`, as uint8.

  Raises:
    ValueError: If a file is missing, truncated or altered.
  """
  prefix, directory = _PREFIX[split], pathlib.Path(directory)
  return (
    _read_idx(directory / f'{prefix}-images-idx3-ubyte.gz'),
    _read_idx(directory / f'{prefix}-labels-idx1-ubyte.gz'),
  )


def read_tfds(
  data_dir: str | os.PathLike[str], split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the images and labels that TensorFlow Datasets has in a folder.

  Raises:
    ValueError: If the data set is absent, or not in the format `array_record`.
  """
  source = tfds_source.open_split(
    tfds_source.open_builder('mnist', data_dir), split
  )
  images = np.empty((len(source), _SIDE, _SIDE), np.uint8)
  labels = np.empty(len(source), np.int64)
  for i, example in enumerate(source):
    images[i] = example['image'][..., 0]
    labels[i] = example['label']
  return images, labels


def make_splits(
  train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> dataset.Arrays:
  """Returns the splits of images in 0 ... 255 and labels, after checking them.

  Raises:
    ValueError: If there are not as many as MNIST has, or a label is none.
  """
  train = _to_examples('train', *train, NUM_TRAIN)
  test = _to_examples('test', *test, NUM_TEST)
  first = NUM_TRAIN - NUM_VALIDATION
  return dataset.Arrays(
    dataset.Examples(train.inputs[:first], train.labels[:first]),
    dataset.Examples(train.inputs[first:], train.labels[first:]),
    test,
    NUM_CLASSES,
    augment=None,
  )


def _to_examples(
  split: str, images: np.ndarray, labels: np.ndarray, num: int
) -> dataset.Examples:
  expected = ((num, _SIDE, _SIDE), (num,))
  if (images.shape, labels.shape) != expected:
    raise ValueError(
      f'expected images and labels of the shapes {expected} in {split}, got '
      f'{images.shape} and {labels.shape}'
    )
  if labels.min() < 0 or labels.max() >= NUM_CLASSES:
    raise ValueError(
      f'expected labels from 0 to {NUM_CLASSES - 1} in {split}, got '
      f'{labels.min()} to {labels.max()}'
    )
  scaled = images[..., np.newaxis].astype(np.float32)
  scaled /= np.float32(255)
  return dataset.Examples(scaled, labels.astype(np.int32))


def _read_idx(path: pathlib.Path) -> np.ndarray:
  """Returns the array in a gzipped IDX file, which must be the official one."""
  expected = SHA256[path.name]
  try:
    content = path.read_bytes()
  except FileNotFoundError as error:
    raise ValueError(
      f'expected {path} with sha256 {expected}; there is no such file'
    ) from error
  found = hashlib.sha256(content).hexdigest()
  if found != expected:
    raise ValueError(
      f'expected {path} with sha256 {expected}; got {found} '
      f'({len(content)} bytes): it is truncated or altered, replace it'
    )
  with gzip.open(io.BytesIO(content)) as file:
    # Two zeros, the type (8: unsigned bytes), the rank, and the shape.
    *_, rank = struct.unpack('>4B', file.read(4))
    shape = struct.unpack(f'>{rank}I', file.read(4 * rank))
    return np.frombuffer(file.read(), np.uint8).reshape(shape)
