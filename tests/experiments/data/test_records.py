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
  folder = tmp_path_factory.mktemp('records')
  photographs.write_cifar(
    folder,
    num_classes=10,
    num_train=31,
    num_test=3,
    num_shards=3,
    without_label={2},
  )
  return folder


@pytest.fixture
def copied(written, tmp_path):
  """A copy of the data set, to be damaged."""
  shutil.copytree(written, tmp_path, dirs_exist_ok=True)
  return tmp_path / 'cifar10/3.0.2'


def open_train(folder):
  return records.open_splits('cifar10', folder, ('train',))[0]


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
  shards = source.dataset_info.splits['train'].shard_lengths
  places = [(i, j) for i, num in enumerate(shards) for j in range(num)]
  file, record = places[bad]
  with pytest.raises(
    ValueError,
    match=f'a label from 0 to 9, got -1 in .*{NAMES[file]}, record {record};',
  ):
    records.load(source, bad, 10, images.decode)


def test_bytes_that_changed_are_named(copied, tmp_path):
  content = bytearray((copied / NAMES[1]).read_bytes())
  content[content.find(b'IDAT') + 20] ^= 1  # within an image
  (copied / NAMES[1]).write_bytes(content)
  source, found = open_train(tmp_path), []
  for i in range(31):
    try:
      records.load(source, i, 10, images.decode)
    except records.DecodeError as error:
      found.append(str(error))
    except dataset.DataError:
      pass  # the label
  assert len(found) == 1
  assert f'{NAMES[1]}, record ' in found[0]
  assert 'hash mismatch' in found[0]


def test_an_absent_data_set_says_how_to_prepare_it(tmp_path):
  with pytest.raises(ValueError, match=r'data_dir, .* cifar10, got none'):
    open_train(None)
  with pytest.raises(
    ValueError,
    match='expected the data set cifar10 .* got none .*: tfds build cifar10 '
    f'--data_dir={tmp_path} --file_format=array_record$',
  ):
    open_train(tmp_path)


def test_an_absent_split_is_an_error(written):
  with pytest.raises(
    ValueError, match=r"split 'validation' .* got the splits .*test \(3\)"
  ):
    records.open_splits('cifar10', written, ('validation',))


def truncate(folder):
  path = folder / NAMES[0]
  path.write_bytes(path.read_bytes()[:-99])


def replace_with_longer(folder):
  info = open_train(folder.parents[1]).dataset_info.splits['train']
  longer, shorter = np.argmax(info.shard_lengths), np.argmin(info.shard_lengths)
  assert info.shard_lengths[longer] > info.shard_lengths[shorter]
  shutil.copy(folder / NAMES[longer], folder / NAMES[shorter])


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (
      lambda folder: (folder / NAMES[2]).unlink(),
      f'expected 3 files .* missing {NAMES[2]}; copy it there',
    ),
    (truncate, rf'records in .*{NAMES[0]}, got a damaged file'),
    (replace_with_longer, r'expected \d+ records in .*, got \d+; copy'),
    (
      lambda folder: edit(
        folder / 'dataset_info.json', '"array_record"', '"tfrecord"'
      ),
      r'format array_record .* got tfrecord; ',
    ),
    (
      lambda folder: (folder / 'features.json').unlink(),
      r'expected dataset_info.json .* in .*cifar10/3.0.2, but: ',
    ),
  ],
)
def test_damaged_files_are_named(copied, tmp_path, damage, message):
  damage(copied)
  with pytest.raises(ValueError, match=message):
    open_train(tmp_path)


def test_the_newest_version_is_read(copied, tmp_path):
  old = copied.parent / '3.0.1'
  shutil.copytree(copied, old)
  edit(old / 'dataset_info.json', '"3.0.2"', '"3.0.1"')
  (old / NAMES[0]).unlink()
  assert len(open_train(tmp_path)) == 31
