"""ImageNet (ILSVRC 2012), read while training from tensorflow-datasets' files.

What a batch holds depends on the seed and the step alone, whatever was read
before and however many workers read.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import functools
from typing import Any

from absl import logging
import numpy as np

from experiments.data import batches
from experiments.data import dataset
from experiments.data import images
from experiments.data import order
from experiments.data import tfds_source

NAME = 'imagenet2012'
NUM_CLASSES = 1000
ON_BAD_RECORD = ('stop', 'skip')

# Means and standard deviations of red, green and blue in [0, 1], the values
# that everybody uses; torchvision's documentation has them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_ENDLESS = 2**62  # steps


def imagenet(
  *,
  data_dir: str,
  num_validation: int,
  image_size: int,
  resize: int,
  area: tuple[float, float],
  ratio: tuple[float, float],
  interpolation: str,
  on_bad_record: str,
  num_workers: int,
) -> dataset.Stream:
  """Returns ImageNet; its official validation split is the test split.

  For training, a random crop is resized and flipped half of the time; for
  evaluation, the short side is resized and the center cropped; both are
  normalized by the usual means and deviations. Under `'skip'`, a record that
  does not decode is replaced by the next that does in training and has the
  weight 0 in evaluation; each is named in the log once.

  Args:
    data_dir: The folder of tensorflow-datasets.
    num_validation: How many of the last examples for training are held out as
      the split 'validation'. With 0 that is the test split too, as is the
      custom in publications.
    image_size: The side of what the network sees; 224 in the usual recipe.
    resize: The short side before the central crop; usually 256.
    area: The least and the greatest share of the image that a random crop has;
      usually 0.08 and 1.
    ratio: The least and the greatest ratio of its width to its height; usually
      3/4 and 4/3.
    interpolation: How crops are resized: 'linear' | 'cubic' | 'area'. What is
      to shrink to half or less is halved first, by the decoder.
    on_bad_record: 'stop' with an error, or 'skip', if a record does not decode.
    num_workers: Worker processes that decode; 0: a thread of this process.

  Raises:
    ValueError: If the data set is absent, incomplete or not as it should be, or
      if an argument is out of range.
  """
  recipe = images.Recipe(image_size, resize, area, ratio, interpolation)
  images.check_recipe(recipe)
  if on_bad_record not in ON_BAD_RECORD:
    raise ValueError(
      f'expected on_bad_record among {ON_BAD_RECORD}, got {on_bad_record!r}'
    )
  if num_workers < 0:
    raise ValueError(f'expected num_workers >= 0, got {num_workers}')
  train, test = (
    batches.Split(
      source,
      first=0,
      num=len(source),
      num_classes=NUM_CLASSES,
      recipe=recipe,
      table=images.normalization(MEAN, STD),
      skip=on_bad_record == 'skip',
    )
    for source in _open(data_dir)
  )
  train, validation = _hold_out(train, num_validation)
  splits = {'validation': validation or test, 'test': test}
  bad = collections.Counter()
  return dataset.Stream(
    num_train=train.num,
    num_classes=NUM_CLASSES,
    example_shape=(image_size, image_size, 3),
    train=functools.partial(_train, train, num_workers, bad),
    evaluate=functools.partial(_evaluate, splits, num_workers, bad),
    quarantined=lambda: len(bad),
    skipped=bad.total,
  )


def _open(data_dir: str) -> tuple[Any, Any]:
  """Returns the prepared splits for training and testing, checked."""
  builder = tfds_source.open_builder(NAME, data_dir)
  label = builder.info.features['label']
  if label.num_classes != NUM_CLASSES:
    raise ValueError(
      f'expected {NUM_CLASSES} classes in {builder.info.data_dir}, got '
      f'{label.num_classes}; is it {NAME}?'
    )
  train, test = (
    tfds_source.open_split(builder, split, encoded=('image',))
    for split in ('train', 'validation')
  )
  return train, test


def _hold_out(
  train: batches.Split, num: int
) -> tuple[batches.Split, batches.Split | None]:
  """Returns what is left for training, and the last `num` examples, if any."""
  if not 0 <= num < train.num:
    raise ValueError(
      f'expected num_validation from 0 to {train.num - 1}, one less than there '
      f'are for training; got {num}'
    )
  if not num:
    return train, None
  left = train.num - num
  return train._replace(num=left), train._replace(first=left, num=num)


def _train(
  split: batches.Split,
  num_workers: int,
  bad: collections.Counter,
  *,
  seed: int,
  first_step: int,
  batch_size: int,
  process_index: int,
  process_count: int,
) -> Iterator[dataset.Examples]:
  """Returns this process's share of the batches; see `dataset.Stream`."""
  rows = _rows(batch_size, process_index, process_count)
  # What is out of range is an error now, and not in a worker.
  order.batch_indices(seed, first_step, 1, batch_size, split.num)
  load = functools.partial(batches.train, split, seed, batch_size, rows)
  read = batches.read(load, range(first_step, _ENDLESS), num_workers)
  return _watch(read, split.source, bad, _to_examples)


def _evaluate(
  splits: dict[str, batches.Split],
  num_workers: int,
  bad: collections.Counter,
  *,
  split: str,
  batch_size: int,
  process_index: int,
  process_count: int,
) -> Iterator[tuple[dataset.Examples, np.ndarray]]:
  """Returns this process's share of a split; see `dataset.Stream`."""
  if split not in splits:
    raise ValueError(f'expected a split among {(*splits,)}, got {split!r}')
  chosen = splits[split]
  rows = _rows(batch_size, process_index, process_count)
  load = functools.partial(batches.evaluate, chosen, batch_size, rows)
  num_steps = -(-chosen.num // batch_size)
  # More workers than batches would have nothing to do.
  read = batches.read(load, range(num_steps), min(num_workers, num_steps))
  return _watch(
    read,
    chosen.source,
    bad,
    lambda batch: (_to_examples(batch), batch.weights),
  )


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
  """Returns which rows of a batch are this process's."""
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'expected 0 <= process_index < process_count, got {process_index} and '
      f'{process_count}'
    )
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f'expected a batch_size that the processes, {process_count}, divide; got '
      f'{batch_size}'
    )
  share = batch_size // process_count
  return range(process_index * share, (process_index + 1) * share)


def _to_examples(batch: batches.Batch) -> dataset.Examples:
  return dataset.Examples(batch.inputs, batch.labels)


def _watch(
  read: Iterator[batches.Batch],
  source: Any,
  bad: collections.Counter,
  convert: Callable[[batches.Batch], Any],
) -> Iterator[Any]:
  """Yields every batch converted; counts in `bad` and logs what was skipped."""
  try:
    for batch in read:
      for index in batch.skipped.tolist():
        bad[source.split, index] += 1
        if bad[source.split, index] == 1:
          logging.warning(
            'Skipped %s: it does not decode', tfds_source.locate(source, index)
          )
      yield convert(batch)
  finally:
    read.close()
