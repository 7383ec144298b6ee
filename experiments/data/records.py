"""Data sets of tensorflow-datasets in array_record format, without TensorFlow.

Missing or truncated files are an error when a split is opened.
"""

from collections.abc import Callable
import pathlib
from typing import Any

import numpy as np

from experiments.data import dataset


class DecodeError(dataset.DataError):
  """A record that does not decode."""


def build_command(name: str, data_dir: str | pathlib.Path) -> str:
  """Returns the command that prepares a data set.

  Example:
    >>> build_command('cifar10', '/data')
    'tfds build cifar10 --data_dir=/data --file_format=array_record'
  """
  return f'tfds build {name} --data_dir={data_dir} --file_format=array_record'


def open_builder(name: str, data_dir: str | pathlib.Path | None) -> Any:
  """Returns the builder of the newest version of a prepared data set.

  Raises:
    ValueError: If there is none, or its format is not array_record.
  """
  import tensorflow_datasets as tfds  # slow to import, and seldom needed

  if data_dir is None:
    raise ValueError(
      f'expected data_dir, the folder of the data set {name}, got none'
    )
  folder = pathlib.Path(data_dir).expanduser() / name
  prepare = f'prepare it: {build_command(name, data_dir)}'
  found = {
    path.parent.name: path.parent
    for path in folder.glob('*/dataset_info.json')
    if tfds.core.Version.is_valid(path.parent.name)
  }
  if not found:
    raise ValueError(
      f'expected the data set {name} in {data_dir}, got none in {folder}; '
      f'{prepare}'
    )
  newest = found[max(found, key=tfds.core.Version)]
  builder = tfds.builder_from_directory(str(newest))
  file_format = builder.info.file_format
  if file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise ValueError(
      f'expected files of the format array_record in {newest}, got '
      f'{file_format.value}; move the folder away and {prepare}'
    )
  return builder


def open_split(
  builder: Any, split: str, *, encoded: tuple[str, ...] = ()
) -> Any:
  """Returns a picklable sequence of the examples of a split, each a dict.

  Args:
    builder: from `open_builder`.
    split: its name, such as 'train'.
    encoded: features to leave as the bytes of their file.

  Raises:
    ValueError: If the split is absent or empty, or a file is missing, damaged
      or does not hold as many records as were written.
  """
  import tensorflow_datasets as tfds

  info, splits = builder.info, builder.info.splits
  root = pathlib.Path(info.data_dir).parents[1]
  again = (
    f'move the folder away and prepare it: {build_command(info.name, root)}'
  )
  if split not in splits or not splits[split].num_examples:
    got = ', '.join(f'{key} ({splits[key].num_examples})' for key in splits)
    raise ValueError(
      f'expected examples in the split {split!r} of {info.name} in '
      f'{info.data_dir}, got the splits {got or "(none)"}; {again}'
    )
  _check_files(splits[split], again)
  decoders = {feature: tfds.decode.SkipDecoding() for feature in encoded}
  return builder.as_data_source(split, decoders=decoders or None)


def load(
  source: Any,
  index: int,
  num_classes: int,
  view: Callable[[bytes], np.ndarray | None],
) -> tuple[np.ndarray, int]:
  """Returns `view` of the image of an example, and its label.

  Raises:
    DecodeError: If the image does not decode, so that `view` returns None.
    DataError: If the label is out of range.
  """
  image, reason = None, 'the image does not decode'
  try:
    example = source[index]
    image = view(example['image'])
  except RuntimeError as error:  # the record fails its checksum
    reason = str(error)
  if image is None:
    raise DecodeError(
      f'expected a record that decodes, got {locate(source, index)}: {reason}; '
      'copy the file again'
    )
  label = int(example['label'])
  if not 0 <= label < num_classes:
    raise dataset.DataError(
      f'expected a label from 0 to {num_classes - 1}, got {label} in '
      f'{locate(source, index)}; prepare the data set again'
    )
  return image, label


def locate(source: Any, index: int) -> str:
  """Returns the file and the record of an example of `open_split`."""
  info = source.dataset_info.splits[source.split]
  ends = np.cumsum(info.shard_lengths)
  shard = int(np.searchsorted(ends, index, side='right'))
  record = index - int(ends[shard]) + info.shard_lengths[shard]
  return f'{info.filepaths[shard]}, record {record}'


def _check_files(info: Any, again: str) -> None:
  """Checks that the files of a split hold as many records as were written."""
  from array_record.python import array_record_module

  paths = [pathlib.Path(path) for path in info.filepaths]
  if missing := [path.name for path in paths if not path.is_file()]:
    raise ValueError(
      f'expected {len(paths)} files of the split {info.name!r} in '
      f'{paths[0].parent}, got {len(paths) - len(missing)}: missing '
      f'{", ".join(missing[:3])}{" ..." * (len(missing) > 3)}; copy them '
      f'there, or {again}'
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
        f'or {again}'
      )
