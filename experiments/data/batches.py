"""Batches of images from records, made ahead of time by worker processes.

B: examples of a batch, all processes together; P: processes; S: image_size.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import multiprocessing
import os
import signal
import threading
from typing import Any
from typing import NamedTuple

from absl import flags
import cv2
import grain
import numpy as np

from experiments.data import dataset
from experiments.data import images
from experiments.data import order
from experiments.data import tfds_source

_GRACE = 30  # seconds from SIGTERM to the end of a worker
_SMALL = 2**16  # bytes; what is larger leaves a worker in shared memory


class Split(NamedTuple):
  """Consecutive records of a prepared split, and how they are read."""

  source: Any  # from tfds_source.open_split, the images as bytes
  first: int
  num: int
  num_classes: int
  recipe: images.Recipe
  table: np.ndarray  # from images.normalization
  skip: bool  # records that do not decode; else they are an error


class Batch(NamedTuple):
  """A process's share of a batch."""

  inputs: np.ndarray  # float32 [B / P, S, S, 3]
  labels: np.ndarray  # int32 [B / P]
  weights: np.ndarray  # float32 [B / P]; 0 where there is no example
  skipped: np.ndarray  # int64 [any]: indices of records that do not decode


def read(
  load: Callable[[int], Batch], steps: range, num_workers: int
) -> Iterator[Batch]:
  """Yields `load(step)` of every step, in order, loaded ahead of time.

  Each worker makes whole batches, of which it has up to five at a time, so the
  number of workers changes nothing but the speed.

  Args:
    load: A picklable function.
    steps: Consecutive.
    num_workers: Processes; 0: a thread of this one.
  """
  loaded = (
    grain.MapDataset.range(steps.start, steps.stop)
    .map(load)
    .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
  )
  loaded = grain.experimental.WithOptionsIterDataset(
    loaded, grain.experimental.DatasetOptions(min_shm_size=_SMALL)
  )
  if num_workers:
    if not flags.FLAGS.is_parsed():  # Grain reads absl's flags; we have none.
      flags.FLAGS.mark_as_parsed()
    loaded = loaded.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers),
      worker_init_fn=_init_worker,
    )
  iterator = iter(loaded)
  try:
    yield from iterator
  finally:
    iterator.close()


def train(
  split: Split, seed: int, batch_size: int, rows: range, step: int
) -> Batch:
  """Returns some rows of the batch of a step, a pure function of all of these.

  A record that does not decode is replaced by the next that does, or is an
  error.

  Args:
    split: The examples for training.
    seed: Of the order, the crops and the flips.
    batch_size: B.
    rows: Which rows, the share of a process.
    step: From 0, in all epochs.

  Raises:
    DataError: If a record does not decode and none is to be skipped, if none
      decodes, or if a label is out of range.
  """
  step = int(step)
  indices = order.batch_indices(seed, step, 1, batch_size, split.num)[0]
  batch, skipped = _empty(split, len(rows)), []
  for i, row in enumerate(rows):
    for offset in range(split.num):
      index = split.first + (int(indices[row]) + offset) % split.num
      rng = np.random.default_rng((seed, step, row))
      view = functools.partial(images.train_view, rng=rng, recipe=split.recipe)
      if _load(split, index, view, batch, i):
        break
      skipped.append(index)
    else:
      raise dataset.DataError(
        f'expected records that decode in the split {split.source.split!r}, '
        f'got none among {split.num}'
      )
  return batch._replace(skipped=np.array(skipped, np.int64))


def evaluate(split: Split, batch_size: int, rows: range, step: int) -> Batch:
  """Returns some rows of a batch of the examples in their order.

  Rows behind the last example have the weight 0, as have those of records that
  do not decode and are to be skipped.

  Raises:
    DataError: If a record does not decode and none is to be skipped, or if a
      label is out of range.
  """
  view = functools.partial(images.evaluation_view, recipe=split.recipe)
  batch, skipped = _empty(split, len(rows)), []
  for i, row in enumerate(rows):
    offset = int(step) * batch_size + row
    index = split.first + offset
    if offset < split.num and not _load(split, index, view, batch, i):
      skipped.append(index)
  return batch._replace(skipped=np.array(skipped, np.int64))


def _init_worker(worker_index: int, worker_count: int) -> None:
  """Prepares a worker process."""
  del worker_index, worker_count
  cv2.setNumThreads(1)  # There are as many workers as cores are to be busy.
  # Who stops a run often signals all its processes, while the first of them
  # still has a step to finish and to save.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
  threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
  """Ends this process when the one that started it is no more."""
  multiprocessing.parent_process().join()
  os._exit(1)


def _empty(split: Split, num: int) -> Batch:
  size = split.recipe.image_size
  return Batch(
    np.zeros((num, size, size, 3), np.float32),
    np.zeros(num, np.int32),
    np.zeros(num, np.float32),
    np.empty(0, np.int64),
  )


def _load(
  split: Split,
  index: int,
  view: Callable[[bytes], np.ndarray | None],
  batch: Batch,
  i: int,
) -> bool:
  """Writes a record to row `i` of a batch; returns False if it is skipped."""
  image, reason = None, 'the image does not decode'
  try:
    example = split.source[index]
    image = view(example['image'])
  except RuntimeError as error:  # The bytes are not those that were written.
    reason = str(error)
  if image is None:
    if split.skip:
      return False
    raise dataset.DataError(
      'expected a record that decodes, got '
      f'{tfds_source.locate(split.source, index)}: {reason}; copy the file '
      "again, or set on_bad_record to 'skip'"
    )
  if not 0 <= example['label'] < split.num_classes:
    raise dataset.DataError(
      f'expected a label from 0 to {split.num_classes - 1}, got '
      f'{example["label"]} in {tfds_source.locate(split.source, index)}; '
      'prepare the data set again'
    )
  images.normalize(image, split.table, batch.inputs[i])
  batch.labels[i], batch.weights[i] = example['label'], 1
  return True
