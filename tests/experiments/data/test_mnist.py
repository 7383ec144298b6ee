import gzip
import hashlib
import shutil
import struct
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import mnist
from experiments.data import table
from tests import photographs


def test_the_splits_are_those_of_the_protocol_in_the_order_of_the_files():
  splits = mnist.load(data_dir=None)
  assert [len(part.labels) for part in splits] == [55_000, 5_000, 10_000]
  for images, labels in splits:
    assert images.shape == (len(labels), 28, 28, 1)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert (images.min(), images.max()) == (0.0, 1.0)
  name = 'train-labels-idx1-ubyte.gz'
  labels = gzip.decompress((mnist.FILES / name).read_bytes())[8:]
  assert splits.train.labels.tolist() == list(labels[:55_000])
  assert splits.validation.labels.tolist() == list(labels[55_000:])
  name = 't10k-images-idx3-ubyte.gz'
  images = gzip.decompress((mnist.FILES / name).read_bytes())[16:]
  last = np.frombuffer(images[-784:], np.uint8).reshape(28, 28)
  np.testing.assert_array_equal(
    splits.test.inputs[-1, :, :, 0], last / np.float32(255)
  )


@pytest.mark.parametrize('damage', ['missing', 'truncated', 'altered'])
def test_a_file_is_checked_before_it_is_used(tmp_path, damage):
  _, name, _, _ = mnist.NAMES
  for file in mnist.NAMES:
    shutil.copy(mnist.FILES / file, tmp_path / file)
  content = gzip.decompress((mnist.FILES / name).read_bytes())
  altered = content[:-1] + b'\0'
  packed = gzip.compress(altered if damage == 'altered' else content)
  packed = packed[:1000] if damage == 'truncated' else packed
  (tmp_path / name).write_bytes(packed)
  if damage == 'missing':
    (tmp_path / name).unlink()
  found = {
    'missing': 'there is no such file',
    'truncated': '1000 bytes',
    'altered': hashlib.sha256(altered).hexdigest(),
  }
  with pytest.raises(ValueError, match='expected') as error:
    mnist.load(data_dir=str(tmp_path))
  for part in (str(tmp_path / name), mnist.SHA256['mnist'][1], found[damage]):
    assert part in str(error.value)


def make_small(monkeypatch):
  """Makes the splits as long as in these tests: 16, 4 and 5 examples."""
  for name, num in (('TRAIN', 20), ('VALIDATION', 4), ('TEST', 5)):
    monkeypatch.setattr(mnist, f'NUM_{name}', num)


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist'])
def test_the_official_files_are_read_from_a_folder(tmp_path, monkeypatch, name):
  rng, digests = np.random.default_rng(0), []
  images = rng.integers(0, 256, (25, 28, 28), np.uint8)
  labels = rng.integers(0, 10, 25).astype(np.uint8)
  parts = (images[:20], labels[:20], images[20:], labels[20:])
  for file, values in zip(mnist.NAMES, parts, strict=True):
    header = struct.pack(
      f'>{values.ndim + 1}I', 8 << 8 | values.ndim, *values.shape
    )
    digests.append(hashlib.sha256(header + values.tobytes()).hexdigest())
    (tmp_path / file).write_bytes(gzip.compress(header + values.tobytes()))
  make_small(monkeypatch)
  monkeypatch.setitem(mnist.SHA256, name, digests)
  source = table.SOURCES[name](data_dir=str(tmp_path))
  assert (source.example_shape, source.num_classes) == ((28, 28, 1), 10)
  data = source.load()
  assert [len(split.labels) for split in data] == [16, 4, 5]
  found = np.concatenate([split.inputs[..., 0] for split in data])
  np.testing.assert_array_equal(found, images / np.float32(255))
  found = np.concatenate([split.labels for split in data])
  np.testing.assert_array_equal(found, labels)


def test_without_its_folder_fashion_mnist_says_where_to_find_it(tmp_path):
  for folder, message in ((None, 'got none'), (tmp_path, 'got neither')):
    with pytest.raises(ValueError, match=message) as error:
      mnist.load('fashion_mnist', data_dir=folder)
    for part in ('dataset-fashion-mnist', 'tfds build fashion_mnist'):
      assert part in str(error.value)


def test_a_prepared_data_set_is_read_without_tensorflow(tmp_path, monkeypatch):
  images = np.random.default_rng(0).integers(0, 256, (25, 28, 28), np.uint8)
  images[:, 0, 0] = np.arange(25)
  photographs.write(
    tmp_path,
    'mnist',
    '3.0.1',
    {
      'image': tfds.features.Image(shape=(28, 28, 1)),
      'label': tfds.features.ClassLabel(num_classes=10),
    },
    {'train': range(20), 'test': range(20, 25)},
    lambda i: {
      'image': photographs.encode('.png', images[i]),
      'label': i % 10,
    },
    num_shards=1,
  )
  with pytest.raises(ValueError, match=f'train of {tmp_path}, got .20, 28, 28'):
    mnist.load(data_dir=str(tmp_path))
  make_small(monkeypatch)
  data = mnist.load(data_dir=str(tmp_path))
  assert [len(split.labels) for split in data] == [16, 4, 5]
  found = [np.round(split.inputs[..., 0] * 255).astype(int) for split in data]
  order = np.concatenate(found)[:, 0, 0]
  assert set(order[:20]) == set(range(20))
  np.testing.assert_array_equal(np.concatenate(found), images[order])
  labels = np.concatenate([split.labels for split in data])
  np.testing.assert_array_equal(labels, order % 10)
  assert 'tensorflow' not in sys.modules
