"""Data sets of tensorflow-datasets in array_record format."""

from collections.abc import Callable
from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from experiments.data import dataset
from experiments.data import images


class DecodeError(dataset.DataError):
  """A record that does not decode."""


def open_splits(
  name: str,
  data_dir: str | pathlib.Path | None,
  splits: Sequence[str],
) -> list[Any]:
  """Returns splits of the newest version of a prepared data set.

  Each is a picklable sequence of examples, which are dicts; images are the
  bytes of a file. Everything is checked, to the number of records of each file.
  """
  import tensorflow_datasets as tfds  # slow

  if data_dir is None:
    raise ValueError(
      f'expected data_dir, the folder of the data set {name}, got none'
    )
  folder = pathlib.Path(data_dir).expanduser() / name
  build = f'tfds build {name} --data_dir={data_dir} --file_format=array_record'
  found = {
    path.parent.name: path.parent
    for path in folder.glob('*/dataset_info.json')
    if tfds.core.Version.is_valid(path.parent.name)
  }
  if not found:
    raise ValueError(
      f'expected the data set {name} in {data_dir}, got none in {folder}; '
      f'prepare it: {build}'
    )
  newest = found[max(found, key=tfds.core.Version)]
  again = f'move the folder away and prepare it: {build}'
  try:
    builder = tfds.builder_from_directory(str(newest))
  except Exception as error:  # many types, for JSON that is cut or of no use
    raise ValueError(
      f'expected dataset_info.json and features.json in {newest}, but: '
      f'{type(error).__name__}: {error}; {again}'
    ) from error
  if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise ValueError(
      f'expected files of the format array_record in {newest}, got '
      f'{builder.info.file_format.value}; {again}'
    )
  infos = builder.info.splits
  for split in splits:
    if split not in infos or not infos[split].num_examples:
      got = ', '.join(
        f'{key} ({info.num_examples})' for key, info in infos.items()
      )
      raise ValueError(
        f'expected examples in the split {split!r} of {newest}, got the splits '
        f'{got or "(none)"}; {again}'
      )
    _check_files(infos[split], again)
  decoders = {'image': tfds.decode.SkipDecoding()}
  return [builder.as_data_source(s, decoders=decoders) for s in splits]


def read(source: Any, num_classes: int) -> dataset.Examples:
  """Returns images, all of one shape, as uint8 RGB, and labels; see `load`."""
  rows = [
    load(source, i, num_classes, images.decode) for i in range(len(source))
  ]
  inputs = np.stack([image[:, :, ::-1] for image, _ in rows])  # from BGR
  return dataset.Examples(inputs, np.array([y for _, y in rows], np.int32))


def load(
  source: Any,
  index: int,
  num_classes: int,
  view: Callable[[bytes], np.ndarray | None],
) -> tuple[np.ndarray, int]:
  """Returns `view` of the image of an example, and its label.

  Raises DecodeError if the record is damaged or `view` returns None.
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
  """Returns the file and the record of an example."""
  info = source.dataset_info.splits[source.split]
  ends = np.cumsum(info.shard_lengths)
  shard = int(np.searchsorted(ends, index, side='right'))
  record = index - int(ends[shard]) + info.shard_lengths[shard]
  return f'{info.filepaths[shard]}, record {record}'


def _check_files(info: Any, again: str) -> None:
  """Checks that the files of a split hold as many records as were written."""
  from array_record.python import array_record_module

  for file, expected in zip(info.filepaths, info.shard_lengths, strict=True):
    path = pathlib.Path(file)
    if not path.is_file():
      raise ValueError(
        f'expected {len(info.filepaths)} files of the split {info.name!r} in '
        f'{path.parent}, missing {path.name}; copy it there, or {again}'
      )
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
