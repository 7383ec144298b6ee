"""Images of ImageNet's size per CPU second, from bytes to batches.

  python -m benchmarks.input [--quick] [--record=DIR]

Photographs of 500 x 375 pixels and about 110 KB, as ImageNet's are, go all the
way from array_record files to normalized batches, against OpenCV's decoding of
the same bytes. Seconds are CPU time of all cores, which other load on the
machine affects little.
"""

from collections.abc import Iterable
import itertools
import tempfile
import time
from typing import Any

import cv2
import numpy as np

from benchmarks import record
from experiments.data import imagenet
from tests import photographs

BATCH_SIZE = 8  # small: one batch is prefetched in the next case's time
SIZE = (375, 500)  # height and width
QUALITY = 98  # of the JPEGs, for ImageNet's file sizes
ONE_PROCESS = {'process_index': 0, 'process_count': 1}


def make_example(index: int) -> dict:
  image = photographs.view(index, *SIZE)
  options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
  return {
    'file_name': f'{index}.JPEG',
    'image': photographs.encode('.jpg', image, options),
    'label': photographs.label(index),
  }


def open_imagenet(data_dir: str):
  return imagenet.imagenet(
    data_dir=data_dir,
    num_validation=0,
    image_size=224,
    resize=256,
    on_bad_record='stop',
    num_workers=0,
  ).load()


def train(data_dir: str, num_batches: int):
  """Returns a function that reads some batches for training."""
  batches = open_imagenet(data_dir).train(
    seed=0, first_step=0, batch_size=BATCH_SIZE, **ONE_PROCESS
  )
  return lambda: exhaust(itertools.islice(batches, num_batches))


def evaluate(data_dir: str):
  """Returns a function that reads the split for testing once."""
  stream = open_imagenet(data_dir)
  return lambda: exhaust(
    stream.evaluate(split='test', batch_size=BATCH_SIZE, **ONE_PROCESS)
  )


def decode(contents: list[bytes]):
  """Returns a function that decodes every image, and nothing else."""
  arrays = [np.frombuffer(content, np.uint8) for content in contents]
  return lambda: exhaust(cv2.imdecode(x, cv2.IMREAD_COLOR) for x in arrays)


def exhaust(iterator: Iterable[Any]) -> None:
  """Takes every item, and keeps none."""
  for _ in iterator:
    pass


def main():
  given, figures = record.start('input', __doc__)
  num_batches, rounds = (8, 3) if given.quick else (32, 9)
  num = num_batches * BATCH_SIZE
  cv2.setNumThreads(1)  # as in a worker process
  contents = [make_example(index)['image'] for index in range(num)]
  with tempfile.TemporaryDirectory() as data_dir:
    photographs.write_imagenet(
      data_dir, num_train=num, num_validation=num, example=make_example
    )
    base = 'OpenCV decodes, nothing else'
    cases = {
      base: decode(contents),
      'training': train(data_dir, num_batches),
      'evaluation': evaluate(data_dir),
    }
    figures.compare(
      cases, rounds, base, per=num, speed='images/s', clock=time.process_time
    )
  figures.write(given.record)


if __name__ == '__main__':
  main()
