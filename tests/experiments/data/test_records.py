import shutil

import numpy as np
import pytest

from experiments.data import dataset
from experiments.data import images
from experiments.data import records
from tests import photographs

NAMES = [f'cifar10-train.array_record-0000{i}-of-00003' for i in range(3)]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A small cifar10 with one label out of range."""

  def example(index, num_classes):
    image, label = photographs.cifar_example(index, num_classes)
    return image, -1 if index == 2 else label

  folder = tmp_path_factory.mktemp('records')
  photographs.write_cifar(
    folder,
    num_classes=10,
    num_train=31,
    num_test=3,
    num_shards=3,
    example=example,
  )
  return folder


@pytest.fixture
def copied(written, tmp_path):
  """A copy of the data set, to be damaged."""
  shutil.copytree(written, tmp_path, dirs_exist_ok=True)
  return tmp_path / 'cifar10/3.0.2'


def open_train(folder):
  [source] = records.open_splits(
    'cifar10', folder, ('train',), encoded=('image',)
  )
  return source


def decode_error(source, index):
  try:
    records.load(source, index, 10, images.decode)
  except records.DecodeError as error:
    return str(error)
  except dataset.DataError:  # the label
    return None


def edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


def test_a_label_out_of_range_is_named(written):
  source = open_train(written)
  labels = [example['label'] for example in source]
  bad = labels.index(-1)
  image, label = records.load(source, bad - 1, 10, images.decode)
  assert (image.shape, label) == ((32, 32, 3), labels[bad - 1])
  with pytest.raises(
    ValueError,
    match=r'a label from 0 to 9, got -1 in .*train.array_record.*, record \d+;',
  ):
    records.load(source, bad, 10, images.decode)


def test_bytes_that_changed_are_named(copied, tmp_path):
  content = bytearray((copied / NAMES[1]).read_bytes())
  content[content.find(b'IDAT') + 20] ^= 1  # within an image
  (copied / NAMES[1]).write_bytes(content)
  source = open_train(tmp_path)
  [error] = filter(None, (decode_error(source, i) for i in range(31)))
  assert f'{NAMES[1]}, record ' in error
  assert 'hash mismatch' in error


def test_an_absent_data_set_says_how_to_prepare_it(tmp_path):
  with pytest.raises(
    ValueError,
    match='expected the data set cifar10 .* got none .*: tfds build cifar10 '
    f'--data_dir={tmp_path} --file_format=array_record$',
  ):
    open_train(tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_given_is_asked_for():
  with pytest.raises(ValueError, match=r'data_dir, .* cifar10, got none'):
    open_train(None)


def test_an_absent_split_is_an_error(written):
  with pytest.raises(
    ValueError, match=r"split 'validation' .* got the splits .*test \(3\)"
  ):
    records.open_splits('cifar10', written, ('validation',))


def test_a_missing_file_is_named(copied, tmp_path):
  (copied / NAMES[2]).unlink()
  with pytest.raises(
    ValueError, match=f'expected 3 files .* missing {NAMES[2]}; copy it there'
  ):
    open_train(tmp_path)


@pytest.mark.parametrize('left', [0, 0.5, 0.99])
def test_a_truncated_file_is_named(copied, tmp_path, left):
  content = (copied / NAMES[0]).read_bytes()
  (copied / NAMES[0]).write_bytes(content[: int(left * len(content))])
  with pytest.raises(
    ValueError, match=rf'records in .*{NAMES[0]}, got a damaged file'
  ):
    open_train(tmp_path)


def test_a_file_of_another_preparation_is_named(copied, tmp_path):
  info = open_train(tmp_path).dataset_info.splits['train']
  longer, shorter = np.argmax(info.shard_lengths), np.argmin(info.shard_lengths)
  most, least = info.shard_lengths[longer], info.shard_lengths[shorter]
  assert most > least
  shutil.copy(copied / NAMES[longer], copied / NAMES[shorter])
  with pytest.raises(
    ValueError,
    match=f'expected {least} records in .*{NAMES[shorter]}, got {most}; copy',
  ):
    open_train(tmp_path)


def test_a_data_set_of_another_format_is_an_error(copied, tmp_path):
  edit(copied / 'dataset_info.json', '"array_record"', '"tfrecord"')
  with pytest.raises(
    ValueError, match=r'format array_record .* got tfrecord; '
  ):
    open_train(tmp_path)


def test_the_newest_version_is_read(copied, tmp_path):
  old = copied.parent / '3.0.1'
  shutil.copytree(copied, old)
  edit(old / 'dataset_info.json', '"3.0.2"', '"3.0.1"')
  (old / NAMES[0]).unlink()
  assert len(open_train(tmp_path)) == 31
