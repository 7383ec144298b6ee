import gzip
import hashlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import mnist
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
def test_a_file_is_checked_before_it_is_used(tmp_path, monkeypatch, damage):
  name = 'train-labels-idx1-ubyte.gz'
  for file in mnist.SHA256:
    shutil.copy(mnist.FILES / file, tmp_path / file)
  content = bytearray((mnist.FILES / name).read_bytes())
  content[4] ^= damage == 'altered'  # the time stamp: gzip does not mind
  content = content[:1000] if damage == 'truncated' else content
  (tmp_path / name).write_bytes(content)
  found = hashlib.sha256(content).hexdigest()
  if damage == 'missing':
    (tmp_path / name).unlink()
    found = 'there is no such file'
  monkeypatch.setattr(mnist, 'FILES', tmp_path)
  with pytest.raises(ValueError, match='expected') as error:
    mnist.load(data_dir=None)
  for part in (str(tmp_path / name), mnist.SHA256[name], found):
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
  monkeypatch.setattr(mnist, 'NUM_TRAIN', 20)
  monkeypatch.setattr(mnist, 'NUM_VALIDATION', 4)
  monkeypatch.setattr(mnist, 'NUM_TEST', 5)
  data = mnist.load(data_dir=str(tmp_path))
  assert [len(split.labels) for split in data] == [16, 4, 5]
  found = [np.round(split.inputs[..., 0] * 255).astype(int) for split in data]
  order = np.concatenate(found)[:, 0, 0]
  assert set(order[:20]) == set(range(20))
  np.testing.assert_array_equal(np.concatenate(found), images[order])
  labels = np.concatenate([split.labels for split in data])
  np.testing.assert_array_equal(labels, order % 10)
  assert 'tensorflow' not in sys.modules
