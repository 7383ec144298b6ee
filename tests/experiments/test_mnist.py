import gzip
import hashlib
import io
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from experiments.data import mnist

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def splits():
  return mnist.load(data_dir=None)


def copy_files(folder):
  for name in mnist.SHA256:
    shutil.copy(mnist.FILES / name, folder / name)


def test_the_splits_are_those_of_the_protocol(splits):
  assert [len(part.labels) for part in splits[:3]] == [55_000, 5_000, 10_000]
  for images, labels in splits[:3]:
    assert images.shape == (len(labels), 28, 28, 1)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert set(labels.tolist()) == set(range(10))


def test_examples_are_in_the_order_of_the_files(splits):
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


@pytest.mark.parametrize('name', mnist.SHA256)
@pytest.mark.parametrize('damage', ['missing', 'truncated', 'altered'])
def test_a_file_is_checked_before_it_is_used(tmp_path, name, damage):
  copy_files(tmp_path)
  path = tmp_path / name
  content = bytearray(path.read_bytes())
  if damage == 'missing':
    path.unlink()
    found = 'there is no such file'
  else:
    if damage == 'truncated':
      del content[1000:]
    else:
      content[4] ^= 1  # The time stamp: gzip itself does not mind.
      gzip.decompress(content)
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
  with pytest.raises(ValueError, match='expected') as error:
    mnist.load(data_dir=None, directory=tmp_path)
  for part in (str(path), mnist.SHA256[name], found):
    assert part in str(error.value)


def arrays(num: int):
  images = np.arange(num * 784, dtype=np.int64) * 7 % 251
  images = images.astype(np.uint8).reshape(num, 28, 28)
  return images, np.arange(num) % 10


@pytest.mark.parametrize(
  ('num', 'label', 'message'),
  [
    (59_999, 0, r'got \(59999, 28, 28\)'),
    (60_000, 10, 'labels from 0 to 9 in train, got 0 to 10'),
    (60_000, -1, 'labels from 0 to 9 in train, got -1 to 9'),
  ],
)
def test_data_that_is_not_mnist_is_an_error(num, label, message):
  images = np.zeros((num, 28, 28), np.uint8)
  labels = np.arange(num) % 10
  labels[0] = label
  with pytest.raises(ValueError, match=message):
    mnist.make_splits((images, labels), arrays(10_000))


with tfds.core.registered.skip_registration():

  class Mnist(tfds.core.GeneratorBasedBuilder):
    """A small data set of the layout of TensorFlow Datasets' own."""

    VERSION = tfds.core.Version('3.0.1')

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
          {
            'image': tfds.features.Image(shape=(28, 28, 1)),
            'label': tfds.features.ClassLabel(num_classes=10),
          }
        ),
      )

    def _split_generators(self, _):
      return {
        'train': self._generate_examples(20),
        'test': self._generate_examples(5),
      }

    def _generate_examples(self, num):
      for i, (image, label) in enumerate(zip(*arrays(num), strict=True)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, 'PNG')
        file.seek(0)
        yield i, {'image': file, 'label': int(label)}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  builder = Mnist(data_dir=str(folder), file_format='array_record')
  builder.download_and_prepare()
  return folder


@pytest.mark.parametrize(('split', 'num'), [('train', 20), ('test', 5)])
def test_tensorflow_datasets_are_read_without_tensorflow(data_dir, split, num):
  images, labels = mnist.read_tfds(data_dir, split)
  expected_images, expected_labels = arrays(num)
  found = {image.tobytes(): label for image, label in zip(images, labels)}  # noqa: B905
  assert found == {
    image.tobytes(): label
    for image, label in zip(expected_images, expected_labels, strict=True)
  }
  assert len(images) == len(labels) == num
  assert 'tensorflow' not in sys.modules


def test_a_prepared_data_set_of_another_size_is_an_error(data_dir):
  with pytest.raises(ValueError, match=r'in train, got \(20, 28, 28\)'):
    mnist.load(data_dir=str(data_dir))


def test_an_absent_data_set_says_how_to_prepare_it(tmp_path):
  with pytest.raises(
    ValueError, match=r'got none .* experiments.data.prepare mnist'
  ):
    mnist.load(data_dir=str(tmp_path))
  assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_another_format_says_how_to_prepare_it(
  data_dir, tmp_path
):
  shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
  info = tmp_path / 'mnist/3.0.1/dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(ValueError, match='of the format array_record in'):
    mnist.load(data_dir=str(tmp_path))


def test_the_files_are_read_without_tensorflow_datasets():
  code = (
    'import sys\n'
    'from experiments.data import mnist\n'
    'mnist.read_files(mnist.FILES, "test")\n'
    'assert "tensorflow_datasets" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, check=True)
