"""MNIST and Fashion-MNIST: 55,000, 5,000 and 10,000 examples.

This package has the four official files of MNIST. A folder with the four files
of either is read, or a data set prepared by tensorflow-datasets, without
TensorFlow.
"""

from collections.abc import Sequence
import functools
import pathlib
import struct

import numpy as np

from experiments.data import dataset
from experiments.data import records

FILES = pathlib.Path(__file__).parent / 'files' / 'mnist'
# Images and labels of the training split, then of the test split.
NAMES = (
  'train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz',
  't10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz',
)  # fmt: skip
# Digests of their unpacked content.
SHA256 = {
  'mnist': (
    'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
  ),
  'fashion_mnist': (
    'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
    'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
    '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
    '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
  ),
}

SHAPE = (28, 28, 1)
NUM_CLASSES = 10
NUM_TRAIN = 60_000  # validation included
NUM_VALIDATION = 5_000
NUM_TEST = 10_000


def mnist(*, data_dir: str | None) -> dataset.Source:
  """Returns MNIST before it is read; see `load`."""
  return _source('mnist', data_dir)


def fashion_mnist(*, data_dir: str | None) -> dataset.Source:
  """Returns Fashion-MNIST, ten kinds of clothes, before it is read.

  Reference:
    Xiao et al., 2017, "Fashion-MNIST: a novel image dataset for benchmarking
    machine learning algorithms". https://arxiv.org/abs/1708.07747
  """
  return _source('fashion_mnist', data_dir)


def load(name: str = 'mnist', *, data_dir: str | None) -> dataset.Arrays:
  """Returns the splits; the last 5,000 training examples are for validation.

  Without `data_dir` MNIST is read from the files of this package. A data set of
  tensorflow-datasets has another order than the official files.
  """
  folder = FILES if data_dir is None and name == 'mnist' else data_dir
  if folder is None:
    raise ValueError(f'expected data_dir, got none: {_origin(name)}')
  folder = pathlib.Path(folder).expanduser()
  if any((folder / file).exists() for file in NAMES):
    train, test = _read_files(folder, SHA256[name])
  elif (folder / name).is_dir():
    splits = records.open_splits(name, folder, ('train', 'test'))
    found = (records.read(source, NUM_CLASSES) for source in splits)
    train, test = ((inputs[..., 0], labels) for inputs, labels in found)
  else:
    raise ValueError(
      f'expected {NAMES[0]} and three more, or the folder {name}, in {folder}, '
      f'got neither: {_origin(name)}'
    )
  train = _to_examples(f'train of {folder}', *train, NUM_TRAIN)
  test = _to_examples(f'test of {folder}', *test, NUM_TEST)
  return dataset.hold_out(train, NUM_VALIDATION, test)


def _source(name: str, data_dir: str | None) -> dataset.Source:
  read = functools.partial(load, name, data_dir=data_dir)
  return dataset.Source(SHAPE, NUM_CLASSES, None, is_stream=False, load=read)


def _origin(name: str) -> str:
  return (
    'give a folder with the four official files (Fashion-MNIST: '
    "/usr/share/datasets/fashion-mnist of Debian's package "
    f'dataset-fashion-mnist), or one prepared by tfds build {name} '
    '--data_dir=DATA --file_format=array_record'
  )


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


def _read_files(folder: pathlib.Path, digests: Sequence[str]):
  """Returns images and labels of the official files, by split."""
  found = []
  for name, sha256 in zip(NAMES, digests, strict=True):
    content = dataset.read_checked(folder / name, sha256)
    rank = content[3]
    shape = struct.unpack_from(f'>{rank}I', content, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    found.append(values.reshape(shape))
  return found[:2], found[2:]
