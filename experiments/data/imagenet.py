"""ImageNet (ILSVRC 2012), read during training from array_record files.

A batch depends on the seed and the step alone, not on the number of workers or
on earlier batches.

B: examples of a batch, of all processes; P: processes; S: image_size.
"""

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import math
import signal
from typing import Any
from typing import NamedTuple

from absl import logging
import cv2
import grain
import numpy as np

from experiments import build
from experiments import interrupt
from experiments.data import dataset
from experiments.data import images
from experiments.data import records

NAME = 'imagenet2012'
NUM_CLASSES = 1000
ON_BAD_RECORD = ('stop', 'skip')

# Red, green and blue in [0, 1]: the usual values, from torchvision.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_NUM_EPOCHS = 2**30  # in effect endless; truly endless ones overflow in grain
_GRACE = 30  # seconds that a worker lives after SIGTERM


class Split(NamedTuple):
  """Consecutive records of a prepared split."""

  source: Any  # from `records.open_splits`, images as bytes
  first: int
  num: int
  image_size: int  # S
  resize: int  # short side before the center crop
  skip: bool  # skip records that do not decode; otherwise an error


class Row(NamedTuple):
  """One example of a batch."""

  image: np.ndarray  # uint8 [S, S, 3]
  label: int
  weight: float  # 0 for padding
  skipped: tuple[int, ...]  # indices of records that did not decode


def imagenet(
  *,
  data_dir: str | None,
  num_validation: int,
  image_size: int,
  resize: int,
  on_bad_record: str,
  num_workers: int,
) -> dataset.Source:
  """Returns ImageNet; its official validation split is the test split.

  Training uses random crops, flipped with probability 1/2; evaluation the
  center crop. In place of a skipped record, training takes the next one that
  decodes, and evaluation gives weight 0; each is logged once.

  Args:
    num_validation: number of training examples, the last, held out; 0 makes
      'validation' the test split, as is common in publications.
    image_size: side of the crop, usually 224.
    resize: short side before the center crop, usually 256.
    num_workers: number of decoding processes; 0: a thread of this process.
  """
  if not 1 <= image_size <= resize:
    raise ValueError(
      f'expected 1 <= image_size <= resize, got image_size {image_size} and '
      f'resize {resize}'
    )
  if on_bad_record not in ON_BAD_RECORD:
    raise ValueError(
      f'expected on_bad_record among {ON_BAD_RECORD}, got {on_bad_record!r}'
    )
  build.check_range(0, math.inf, num_workers=num_workers)
  skip = on_bad_record == 'skip'
  return dataset.Source(
    (image_size, image_size, 3),
    NUM_CLASSES,
    augment=None,
    is_stream=True,
    load=functools.partial(
      _load, data_dir, num_validation, (image_size, resize, skip), num_workers
    ),
  )


def _load(data_dir, num_validation, options, num_workers):
  """Returns the stream of a data set that was found to be whole."""
  sources = records.open_splits(NAME, data_dir, ('train', 'validation'))
  info = sources[0].dataset_info
  num_classes = info.features['label'].num_classes
  if num_classes != NUM_CLASSES:
    raise ValueError(
      f'expected {NUM_CLASSES} classes in {info.data_dir}, got {num_classes}; '
      f'is it {NAME}?'
    )
  train, test = (Split(source, 0, len(source), *options) for source in sources)
  if not 0 <= num_validation < train.num:
    raise ValueError(
      f'expected num_validation from 0 to {train.num - 1}, one less than there '
      f'are for training; got {num_validation}'
    )
  left = train.num - num_validation
  held_out = train._replace(first=left, num=num_validation)
  splits = {'validation': held_out if num_validation else test, 'test': test}
  train, bad = train._replace(num=left), collections.Counter()
  return dataset.Stream(
    num_train=left,
    train=functools.partial(_train, train, num_workers, bad),
    evaluate=functools.partial(_evaluate, splits, num_workers, bad),
    skipped=bad.total,
  )


def _train(
  split, num_workers, bad, *, seed, first_step, batch_size, **process
) -> Iterator[dataset.Examples]:
  rows = grain.MapDataset.range(split.num).seed(seed).shuffle()
  rows = rows.repeat(_NUM_EPOCHS)
  rows = rows.random_map(functools.partial(_make_row, split))
  batches = _batches(rows, batch_size, **process)[first_step:]
  return _read(batches, split, num_workers, bad, is_training=True)


def _evaluate(
  splits, num_workers, bad, *, split, batch_size, **process
) -> Iterator[tuple[dataset.Examples, np.ndarray]]:
  chosen = splits[split]
  num_padded = -(-chosen.num // batch_size) * batch_size
  rows = grain.MapDataset.range(num_padded)
  rows = rows.map(functools.partial(_make_row, chosen))
  batches = _batches(rows, batch_size, **process)
  num_workers = min(num_workers, len(batches))  # others would be idle
  return _read(batches, chosen, num_workers, bad, is_training=False)


def _batches(
  rows: grain.MapDataset,
  batch_size: int,
  process_index: int,
  process_count: int,
) -> grain.MapDataset:
  """Returns a process's share of each batch: every P-th row."""
  rows = rows[process_index::process_count]
  return rows.batch(batch_size // process_count, batch_fn=_stack)


def _read(
  batches: grain.MapDataset,
  split: Split,
  num_workers: int,
  bad: collections.Counter,
  is_training: bool,
) -> Iterator[Any]:
  """Yields batches loaded ahead of time; counts and logs skipped records."""
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  loaded = batches.to_iter_dataset(options)
  if num_workers:
    loaded = loaded.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers),
      worker_init_fn=_init_worker,
    )
  iterator = iter(loaded)
  try:
    for examples, weights, skipped in iterator:
      for index in skipped:
        bad[split.source.split, index] += 1
        if bad[split.source.split, index] == 1:
          where = records.locate(split.source, index)
          logging.warning('Skipped %s: it does not decode', where)
      yield examples if is_training else (examples, weights)
  finally:
    iterator.close()


def _init_worker(worker_index: int, worker_count: int) -> None:
  """Prepares a worker process, which ends with its parent."""
  del worker_index, worker_count
  cv2.setNumThreads(1)  # the workers share the cores
  # On a signal to the process group the main process finishes and saves its
  # step, for which it needs the workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
  interrupt.end_with_parent()


def _make_row(
  split: Split, index: int, rng: np.random.Generator | None = None
) -> Row:
  """Returns a random view of a record or of the next that decodes, with `rng`.

  Otherwise the center, with weight 0 if it is skipped or past the end.
  """
  if rng is None:
    size = {'image_size': split.image_size, 'resize': split.resize}
    view = functools.partial(images.evaluation_view, **size)
    num_attempts = int(index < split.num)
  else:
    size = {'image_size': split.image_size, 'rng': rng}
    view, num_attempts = functools.partial(images.train_view, **size), split.num
  skipped = []
  for attempt in range(num_attempts):
    at = split.first + (index + attempt) % split.num
    try:
      image, label = records.load(split.source, at, NUM_CLASSES, view)
    except records.DecodeError as error:
      if not split.skip:
        message = f"{error}, or set on_bad_record to 'skip'"
        raise dataset.DataError(message) from error
      skipped.append(at)
    else:
      return Row(image, label, 1.0, tuple(skipped))
  if rng is not None:
    raise dataset.DataError(
      f'expected records that decode in the split {split.source.split!r} of '
      f'{split.source.dataset_info.data_dir}, got none among {split.num}'
    )
  image = np.zeros((split.image_size, split.image_size, 3), np.uint8)
  return Row(image, 0, 0.0, tuple(skipped))


def _stack(rows: Sequence[Row]) -> tuple[dataset.Examples, np.ndarray, tuple]:
  """Returns examples, weights, and the records that were skipped."""
  inputs = images.normalize(np.stack([row.image for row in rows]), MEAN, STD)
  labels = np.array([row.label for row in rows], np.int32)
  return (
    dataset.Examples(inputs, labels),
    np.array([row.weight for row in rows], np.float32),
    tuple(index for row in rows for index in row.skipped),
  )
