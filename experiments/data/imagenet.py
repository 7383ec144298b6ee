"""ImageNet (ILSVRC 2012), read while training from tensorflow-datasets' files.

Grain reads ahead in worker processes, each of which makes whole batches. What a
batch holds depends on the seed and the step alone, whatever was read before and
however many workers there are.

B: examples of a batch, all processes together; P: processes.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
from typing import Any
from typing import NamedTuple

from absl import flags
from absl import logging
import cv2
import grain
import numpy as np

from experiments.data import dataset
from experiments.data import images
from experiments.data import order
from experiments.data import tfds_source

NAME = 'imagenet2012'
NUM_CLASSES = 1000
ON_BAD_RECORD = ('stop', 'skip')

_ENDLESS = 2**62  # steps
_SMALL = 2**16  # bytes; what is larger leaves a worker in shared memory


class Split(NamedTuple):
  """Consecutive records of a prepared split, and how they are read."""

  source: Any  # from tfds_source.open_split
  first: int
  num: int
  recipe: images.Recipe
  skip: bool  # records that do not decode; else they are an error


class Batch(NamedTuple):
  """What a worker makes: this process's share of a batch."""

  inputs: np.ndarray  # float32 [B / P, S, S, 3]
  labels: np.ndarray  # int32 [B / P]
  weights: np.ndarray  # float32 [B / P]
  skipped: np.ndarray  # int64 [any]: indices of records that do not decode


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
  normalized by the usual means and deviations. Under `'skip'` a record that
  does not decode is replaced by the next that does in training, and has the
  weight 0 in evaluation; each is named in the log once.

  Args:
    data_dir: The folder of tensorflow-datasets.
    num_validation: How many of the last examples for training are held out as
      the split 'validation'. With 0 that is the test split too, as is the
      custom in publications.
    image_size: The side of what the network sees, 224 in the recipe.
    resize: The short side before the central crop, 256 in the recipe.
    area: The least and the greatest share of the image that a random crop has,
      0.08 and 1 in the recipe.
    ratio: The least and the greatest ratio of its width to its height, 3/4 and
      4/3 in the recipe.
    interpolation: How crops are resized: 'linear' | 'cubic' | 'area'. Images of
      more than twice the size are halved first, by the decoder.
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
  skip = on_bad_record == 'skip'
  train, test = (
    Split(source, 0, len(source), recipe, skip) for source in _open(data_dir)
  )
  validation = test
  if num_validation:
    num_train = train.num - num_validation
    if not 0 < num_train < train.num:
      raise ValueError(
        f'expected num_validation from 0 to {train.num - 1}, one less than '
        f'there are for training; got {num_validation}'
      )
    validation = train._replace(first=num_train, num=num_validation)
    train = train._replace(num=num_train)
  bad = set()
  return dataset.Stream(
    num_train=train.num,
    num_classes=NUM_CLASSES,
    example_shape=(image_size, image_size, 3),
    train=functools.partial(_train, train, num_workers, bad),
    evaluate=functools.partial(
      _evaluate, {'validation': validation, 'test': test}, num_workers, bad
    ),
    quarantined=lambda: len(bad),
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


def _train(
  split: Split,
  num_workers: int,
  bad: set,
  *,
  seed: int,
  first_step: int,
  batch_size: int,
  process_index: int,
  process_count: int,
) -> Iterator[dataset.Examples]:
  rows = _rows(batch_size, process_index, process_count)
  # So that what is out of range is an error now and not in a worker.
  order.batch_indices(seed, first_step, 1, batch_size, split.num)
  load = functools.partial(_load_train, split, seed, batch_size, rows)
  steps = range(first_step, _ENDLESS)
  return _read(load, steps, num_workers, split.source, bad, _to_examples)


def _evaluate(
  splits: dict[str, Split],
  num_workers: int,
  bad: set,
  *,
  split: str,
  batch_size: int,
  process_index: int,
  process_count: int,
) -> Iterator[tuple[dataset.Examples, np.ndarray]]:
  if split not in splits:
    raise ValueError(f'expected a split among {(*splits,)}, got {split!r}')
  chosen = splits[split]
  rows = _rows(batch_size, process_index, process_count)
  load = functools.partial(_load_evaluation, chosen, batch_size, rows)
  steps = range(-(-chosen.num // batch_size))
  return _read(
    load,
    steps,
    num_workers,
    chosen.source,
    bad,
    lambda batch: (_to_examples(batch), batch.weights),
  )


def _to_examples(batch: Batch) -> dataset.Examples:
  return dataset.Examples(batch.inputs, batch.labels)


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
  """Returns which rows of a batch are this process's."""
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'expected 0 <= process_index < process_count, got {process_index} and '
      f'{process_count}'
    )
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f'expected a batch_size that {process_count} processes divide, got '
      f'{batch_size}'
    )
  share = batch_size // process_count
  return range(process_index * share, (process_index + 1) * share)


def _read(
  load: Callable[[int], Batch],
  steps: range,
  num_workers: int,
  source: Any,
  bad: set,
  convert: Callable[[Batch], Any],
) -> Iterator[Any]:
  """Yields `convert(load(step))` of every step, loaded ahead of time."""
  batches = (
    grain.MapDataset.range(steps.start, steps.stop)
    .map(load)
    .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
  )
  batches = grain.experimental.WithOptionsIterDataset(
    batches, grain.experimental.DatasetOptions(min_shm_size=_SMALL)
  )
  if num_workers:
    if not flags.FLAGS.is_parsed():  # Grain reads flags; ours are not absl's.
      flags.FLAGS.mark_as_parsed()
    batches = batches.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers),
      worker_init_fn=_init_worker,
    )
  iterator = iter(batches)
  try:
    for batch in iterator:
      for index in batch.skipped.tolist():
        if (source.split, index) not in bad:
          bad.add((source.split, index))
          logging.warning(
            'Skipped, does not decode: %s', tfds_source.locate(source, index)
          )
      yield convert(batch)
  finally:
    iterator.close()


def _init_worker(worker_index: int, worker_count: int) -> None:
  del worker_index, worker_count
  cv2.setNumThreads(1)  # There are as many workers as cores are to be busy.


def _load_train(
  split: Split, seed: int, batch_size: int, rows: range, step: int
) -> Batch:
  step = int(step)
  indices = order.batch_indices(seed, step, 1, batch_size, split.num)[0]
  batch, skipped = _empty(split, len(rows)), []
  for i, row in enumerate(rows):
    for offset in range(split.num):
      index = split.first + (int(indices[row]) + offset) % split.num
      # The same crop whether or not records before this one were skipped.
      rng = np.random.default_rng((seed, step, row))
      view = functools.partial(images.train_view, rng=rng, recipe=split.recipe)
      if _load(split, index, view, batch, i):
        break
      skipped.append(index)
    else:
      raise ValueError(
        f'expected records that decode in the split {split.source.split!r}, '
        f'got none among {split.num}'
      )
  return batch._replace(skipped=np.array(skipped, np.int64))


def _load_evaluation(
  split: Split, batch_size: int, rows: range, step: int
) -> Batch:
  view = functools.partial(images.evaluation_view, recipe=split.recipe)
  batch, skipped = _empty(split, len(rows)), []
  for i, row in enumerate(rows):
    index = int(step) * batch_size + row
    if index < split.num and not _load(
      split, split.first + index, view, batch, i
    ):
      skipped.append(split.first + index)
  return batch._replace(skipped=np.array(skipped, np.int64))


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
  """Writes a record to row `i` of a batch; returns False if it is bad."""
  try:
    example = split.source[index]
    image, reason = view(example['image']), 'the image does not decode'
  except RuntimeError as error:  # The bytes differ from what was written.
    image, reason = None, str(error)
  if image is None:
    if split.skip:
      return False
    raise ValueError(
      f'expected a record that decodes, got '
      f'{tfds_source.locate(split.source, index)}: {reason}; copy the file '
      "again, or set on_bad_record to 'skip'"
    )
  label = example['label']
  if not 0 <= label < NUM_CLASSES:
    raise ValueError(
      f'expected a label from 0 to {NUM_CLASSES - 1}, got {label} in '
      f'{tfds_source.locate(split.source, index)}; prepare the data set again'
    )
  images.normalize(image, batch.inputs[i])
  batch.labels[i], batch.weights[i] = label, 1
  return True
