import collections
import importlib.util
import io
import pathlib
import shutil
import tarfile

import pytest
import tensorflow_datasets as tfds

from experiments.data import prepare
from experiments.data import tfds_source
from tests import photographs

ARCHIVES = prepare.SOURCES['imagenet2012'].files


def run(capsys, *arguments):
  """Returns the exit code and what was printed to standard error."""
  code = prepare.main([str(argument) for argument in arguments])
  return code, capsys.readouterr().err


@pytest.fixture
def without_tensorflow(monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *more: None if name == 'tensorflow' else find(name, *more),
  )


@pytest.mark.usefixtures('without_tensorflow')
def test_without_tensorflow_it_says_what_to_install(capsys, tmp_path):
  code, message = run(capsys, 'cifar10', f'--data_dir={tmp_path}')
  assert code == 2
  assert message.startswith('prepare: expected TensorFlow')
  assert message.endswith("not installed: pip install -e '.[prepare]'\n")
  assert list(tmp_path.iterdir()) == []


def test_without_a_manual_dir_it_says_where_imagenet_is(capsys, tmp_path):
  code, message = run(capsys, 'imagenet2012', f'--data_dir={tmp_path}')
  assert code == 2
  for part in (*ARCHIVES, '--manual_dir', 'https://image-net.org'):
    assert part in message


def test_archives_that_are_missing_are_named(capsys, tmp_path):
  (tmp_path / ARCHIVES[0]).touch()
  code, message = run(
    capsys,
    'imagenet2012',
    f'--data_dir={tmp_path / "data"}',
    f'--manual_dir={tmp_path}',
  )
  assert code == 2
  assert f'in {tmp_path}, missing {ARCHIVES[1]}; download by hand' in message
  assert not (tmp_path / 'data').exists()


def test_a_disk_too_small_is_an_error_before_work(
  capsys, tmp_path, monkeypatch
):
  for name in ARCHIVES:  # sparse files: they take no space
    with (tmp_path / name).open('wb') as file:
      file.truncate(3_000_000_000)
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(
    shutil, 'disk_usage', lambda _: usage(0, 0, 11_000_000_000)
  )
  code, message = run(
    capsys,
    'imagenet2012',
    f'--data_dir={tmp_path / "data"}',
    f'--manual_dir={tmp_path}',
  )
  assert code == 2
  assert 'expected 12.0 GB of free space' in message
  assert 'got 11.0 GB' in message


@pytest.mark.usefixtures('without_tensorflow')
def test_what_is_prepared_is_checked_and_left_as_it_is(
  capsys, imagenet_dir, tmp_path
):
  shutil.copytree(imagenet_dir, tmp_path, dirs_exist_ok=True)
  arguments = ('imagenet2012', f'--data_dir={tmp_path}')
  assert run(capsys, *arguments) == (0, '')
  folder = tmp_path / 'imagenet2012/5.1.0'
  (folder / 'imagenet2012-train.array_record-00001-of-00003').unlink()
  code, message = run(capsys, *arguments)
  assert code == 2
  assert 'missing imagenet2012-train.array_record-00001-of-00003' in message


def test_an_unknown_name_lists_those_there_are(capsys, tmp_path):
  with pytest.raises(SystemExit):
    run(capsys, 'cifar', f'--data_dir={tmp_path}')
  assert "'cifar10', 'cifar100', 'imagenet2012'" in capsys.readouterr().err


def test_every_source_is_a_data_set_of_tensorflow_datasets():
  assert set(prepare.SOURCES) <= set(
    tfds.list_builders(with_community_datasets=False)
  )


def add(archive, name, content):
  info = tarfile.TarInfo(name)
  info.size = len(content)
  archive.addfile(info, io.BytesIO(content))


def write_archives(folder):
  """Writes ImageNet's two archives with 12 and 5 photographs in them."""
  package = pathlib.Path(tfds.__file__).parent
  names = (package / 'datasets/imagenet2012/labels.txt').read_text().split()
  with tarfile.open(folder / ARCHIVES[0], 'w') as outer:
    for label in (0, 333, 999):
      file = io.BytesIO()
      with tarfile.open(fileobj=file, mode='w') as inner:
        for i in range(4):
          add(inner, f'{names[label]}_{i}.JPEG', photographs.jpeg(label + i))
      add(outer, f'{names[label]}.tar', file.getvalue())
  with tarfile.open(folder / ARCHIVES[1], 'w') as archive:
    for i in range(5):
      add(archive, f'ILSVRC2012_val_{i + 1:08d}.JPEG', photographs.jpeg(i))


@pytest.mark.slow
def test_the_genuine_builder_writes_what_is_read_here(capsys, tmp_path):
  pytest.importorskip('tensorflow', reason='the extra prepare brings it')
  write_archives(tmp_path)
  code = prepare.main(
    [
      'imagenet2012',
      f'--data_dir={tmp_path / "data"}',
      f'--manual_dir={tmp_path}',
    ]
  )
  assert code == 0
  builder = tfds_source.open_builder('imagenet2012', tmp_path / 'data')
  train = tfds_source.open_split(builder, 'train', encoded=('image',))
  assert sorted(e['label'] for e in train) == [0] * 4 + [333] * 4 + [999] * 4
  images = {
    photographs.jpeg(label + i) for label in (0, 333, 999) for i in range(4)
  }
  assert {e['image'] for e in train} == images
  assert len(tfds_source.open_split(builder, 'validation')) == 5
