"""Data sets that tensorflow-datasets prepared, read without TensorFlow.

Everything that can be wrong with the files is an error when a split is opened:
a data set that is not there, an absent or empty split, files that are missing
or shorter than they were written.
"""

import pathlib
from typing import Any

import numpy as np


def prepare_command(name: str, data_dir: str | pathlib.Path) -> str:
  """Returns the command that prepares a data set.

  Example:
    >>> prepare_command('cifar10', '/data')
    'python -m experiments.data.prepare cifar10 --data_dir=/data'
  """
  return f'python -m experiments.data.prepare {name} --data_dir={data_dir}'


def open_builder(name: str, data_dir: str | pathlib.Path) -> Any:
  """Returns the builder of a prepared data set, of its newest version there.

  Raises:
    ValueError: If there is none, or none of array_record files.
  """
  # Slow to import, and not every data set needs it.
  import tensorflow_datasets as tfds

  folder = pathlib.Path(data_dir).expanduser() / name
  found = {
    path.parent.name: path.parent
    for path in folder.glob('*/dataset_info.json')
    if tfds.core.Version.is_valid(path.parent.name)
  }
  if not found:
    raise ValueError(
      f'expected the data set {name} in {data_dir}, got none in {folder}; '
      f'prepare it: {prepare_command(name, data_dir)}'
    )
  newest = max(found, key=tfds.core.Version)
  builder = tfds.builder_from_directory(str(found[newest]))
  file_format = builder.info.file_format
  if file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise ValueError(
      f'expected files of the format array_record in {found[newest]}, got '
      f'{file_format.value}; move the folder away and prepare it: '
      f'{prepare_command(name, data_dir)}'
    )
  return builder


def open_split(
  builder: Any, split: str, *, encoded: tuple[str, ...] = ()
) -> Any:
  """Returns a sequence of all examples of a split, each a dict of features.

  The sequence may be pickled, and then opens its files again.

  Args:
    builder: From `open_builder`.
    split: Its name, for example 'train'.
    encoded: Features that are to be left as the bytes of their file.

  Raises:
    ValueError: If the split is absent or empty, if a file is missing, damaged
      or does not hold as many records as were written.
  """
  import tensorflow_datasets as tfds

  name, data_dir = builder.info.name, builder.info.data_dir
  again = f'prepare it: {prepare_command(name, _root(data_dir))}'
  splits = builder.info.splits
  if split not in splits or not splits[split].num_examples:
    got = ', '.join(f'{key} ({splits[key].num_examples})' for key in splits)
    raise ValueError(
      f'expected examples in the split {split!r} of {name} in {data_dir}, got '
      f'the splits {got or "(none)"}; move the folder away and {again}'
    )
  _check_files(splits[split], again)
  decoders = {feature: tfds.decode.SkipDecoding() for feature in encoded}
  return builder.as_data_source(split, decoders=decoders or None)


def locate(source: Any, index: int) -> str:
  """Returns which record of which file an example of `open_split` is."""
  info = source.dataset_info.splits[source.split]
  ends = np.cumsum(info.shard_lengths)
  shard = int(np.searchsorted(ends, index, side='right'))
  record = index - int(ends[shard]) + info.shard_lengths[shard]
  return f'{info.filepaths[shard]}, record {record}'


def _root(builder_dir: str | pathlib.Path) -> pathlib.Path:
  """Returns the data_dir of `data_dir/name/version`."""
  return pathlib.Path(builder_dir).parents[1]


def _check_files(info: Any, again: str) -> None:
  """Checks that the files of a split are there and hold what was written."""
  from array_record.python import array_record_module

  paths = [pathlib.Path(path) for path in info.filepaths]
  missing = [path.name for path in paths if not path.is_file()]
  if missing:
    more = f' and {len(missing) - 3} more' if len(missing) > 3 else ''
    raise ValueError(
      f'expected {len(paths)} files of the split {info.name!r} in '
      f'{paths[0].parent}, got {len(paths) - len(missing)}: missing '
      f'{", ".join(missing[:3])}{more}; copy them there, or move the folder '
      f'away and {again}'
    )
  for path, expected in zip(paths, info.shard_lengths, strict=True):
    try:
      reader = array_record_module.ArrayRecordReader(str(path))
      found = reader.num_records()
      reader.close()
    except (RuntimeError, ValueError) as error:
      found = f'a damaged file ({error})'
    if found != expected:
      raise ValueError(
        f'expected {expected} records in {path}, got {found}; copy it again, '
        f'or move the folder away and {again}'
      )
