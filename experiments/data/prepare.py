"""Prepares a data set, once: runs the builder of tensorflow-datasets.

  python -m experiments.data.prepare cifar10 --data_dir=DIR
  python -m experiments.data.prepare imagenet2012 --data_dir=DIR \\
    --manual_dir=ARCHIVES

The builders need TensorFlow, which nothing else here does: pip install -e
'.[prepare]', or run this in an environment of its own. What they write are
array_record files, in DIR/NAME/VERSION; these may be copied to other machines.
"""

import argparse
from collections.abc import Sequence
import importlib.util
import pathlib
import shutil
import sys
from typing import NamedTuple

from experiments.data import tfds_source


class Source(NamedTuple):
  """Where a data set comes from."""

  files: tuple[str, ...]
  address: str
  by_hand: bool = False  # whether they can only be downloaded by hand


_CIFAR = 'https://www.cs.toronto.edu/~kriz/cifar.html'
SOURCES = {
  'cifar10': Source(('cifar-10-binary.tar.gz',), _CIFAR),
  'cifar100': Source(('cifar-100-binary.tar.gz',), _CIFAR),
  'imagenet2012': Source(
    ('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'),
    'https://image-net.org/download-images (one has to register)',
    by_hand=True,
  ),
  'mnist': Source(
    (
      'train-images-idx3-ubyte.gz',
      'train-labels-idx1-ubyte.gz',
      't10k-images-idx3-ubyte.gz',
      't10k-labels-idx1-ubyte.gz',
    ),
    'experiments/data/files/mnist, where this repository has them',
  ),
}

USER_ERROR = 2  # exit code

# Examples are written twice: to be shuffled, and then to their files.
_COPIES = 2


def main(arguments: Sequence[str]) -> int:
  """Prepares a data set; returns the exit code."""
  parser = argparse.ArgumentParser(
    'python -m experiments.data.prepare',
    description='Writes a data set as array_record files.',
  )
  parser.add_argument('name', choices=sorted(SOURCES))
  parser.add_argument(
    '--data_dir', required=True, help='the folder to write to'
  )
  parser.add_argument(
    '--manual_dir', help='where the files are that were downloaded by hand'
  )
  given = parser.parse_args(arguments)
  try:
    folder = prepare(given.name, given.data_dir, given.manual_dir)
  except (ValueError, OSError) as error:
    print(f'prepare: {error}', file=sys.stderr)
    return USER_ERROR
  print(f'{given.name} is in {folder}')
  return 0


def prepare(name: str, data_dir: str, manual_dir: str | None) -> pathlib.Path:
  """Returns the folder of a data set, which is prepared if it is not there.

  Args:
    name: One of `SOURCES`.
    data_dir: The folder of tensorflow-datasets to write to.
    manual_dir: Where files are that were downloaded by hand. ImageNet's have to
      be; of the others only those are downloaded that are not there.

  Raises:
    ValueError: If something is missing: TensorFlow, files that have to be
      downloaded by hand, space on the disk, a network; or if a file is not what
      it should be.
    OSError: If files cannot be read or written.
  """
  root = pathlib.Path(data_dir).expanduser()
  if any(root.glob(f'{name}/*/dataset_info.json')):
    return _check(name, root)
  manual = pathlib.Path(manual_dir).expanduser() if manual_dir else None
  if SOURCES[name].by_hand:
    _check_by_hand(SOURCES[name], root, manual)
  if importlib.util.find_spec('tensorflow') is None:
    raise ValueError(
      'expected TensorFlow, with which tensorflow-datasets prepares data; it '
      "is not installed: pip install -e '.[prepare]'"
    )
  _run_builder(name, root, manual)
  return _check(name, root)


def _check(name: str, root: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a prepared data set after checking all its files."""
  builder = tfds_source.open_builder(name, root)
  for split in builder.info.splits:
    tfds_source.open_split(builder, split)
  return pathlib.Path(builder.info.data_dir)


def _check_by_hand(
  source: Source, root: pathlib.Path, manual: pathlib.Path | None
) -> None:
  """Checks that the files are there, and space to write what is in them."""
  expected = f'expected {" and ".join(source.files)} in'
  advice = f'download by hand from {source.address}'
  if manual is None:
    raise ValueError(f'{expected} --manual_dir, got none; {advice}')
  missing = [file for file in source.files if not (manual / file).is_file()]
  if missing:
    raise ValueError(
      f'{expected} {manual}, missing {" and ".join(missing)}; {advice}'
    )
  root.mkdir(parents=True, exist_ok=True)
  needed = _COPIES * sum(
    (manual / file).stat().st_size for file in source.files
  )
  free = shutil.disk_usage(root).free
  if free < needed:
    raise ValueError(
      f'expected {needed / 1e9:.1f} GB of free space in {root}, twice the size '
      f'of the archives, for examples are shuffled on disk; got '
      f'{free / 1e9:.1f} GB'
    )


def _run_builder(
  name: str, root: pathlib.Path, manual: pathlib.Path | None
) -> None:
  """Runs the builder of tensorflow-datasets, which downloads what it needs."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import download_manager
  from tensorflow_datasets.core.download import util as download_util

  builder = tfds.builder(
    name, data_dir=str(root), file_format='array_record', try_gcs=False
  )
  config = tfds.download.DownloadConfig(manual_dir=manual and str(manual))
  try:
    builder.download_and_prepare(download_config=config)
  except (
    OSError,  # among them those of requests
    download_manager.NonMatchingChecksumError,
    download_util.DownloadError,
  ) as error:
    source = SOURCES[name]
    raise ValueError(
      f'cannot prepare {name}: {error}; if it is the download that fails, get '
      f'{" and ".join(source.files)} from {source.address}, and pass '
      '--manual_dir=FOLDER'
    ) from error


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
