"""Images of ImageNet's size per CPU second, from bytes to batches.

  python -m benchmarks.input [--quick] [--record=DIR]

Photographs of 500 x 375 pixels and about 110 KB, as ImageNet's are, go all the
way from array_record files to normalized batches, against OpenCV's decoding of
the same bytes. Seconds are CPU time of all cores, which other load on the
machine affects little.
"""

import argparse
import statistics
import tempfile
import time

import cv2
import numpy as np

from benchmarks import record
from benchmarks import timing
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


def open_imagenet(data_dir: str, interpolation: str):
  return imagenet.imagenet(
    data_dir=data_dir,
    num_validation=0,
    image_size=224,
    resize=256,
    area=(0.08, 1.0),
    ratio=(3 / 4, 4 / 3),
    interpolation=interpolation,
    on_bad_record='stop',
    num_workers=0,
  ).load()


def train(data_dir: str, num_batches: int, interpolation: str):
  """Returns a function that reads some batches for training."""
  stream = open_imagenet(data_dir, interpolation)
  batches = stream.train(
    seed=0, first_step=0, batch_size=BATCH_SIZE, **ONE_PROCESS
  )

  def run():
    for _ in range(num_batches):
      next(batches)

  return run


def evaluate(data_dir: str, interpolation: str):
  """Returns a function that reads the split for testing once."""
  stream = open_imagenet(data_dir, interpolation)

  def run():
    for _ in stream.evaluate(
      split='test', batch_size=BATCH_SIZE, **ONE_PROCESS
    ):
      pass

  return run


def decode(contents: list[bytes]):
  """Returns a function that decodes every image, and nothing else."""

  def run():
    for content in contents:
      cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)

  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  record.add_argument(parser)
  given = parser.parse_args()
  quick, figures = given.quick, record.Record('input')
  num_batches, repeats = (8, 3) if quick else (32, 9)
  num = num_batches * BATCH_SIZE
  cv2.setNumThreads(1)  # as in a worker process
  contents = [make_example(index)['image'] for index in range(num)]
  with tempfile.TemporaryDirectory() as data_dir:
    photographs.write_imagenet(
      data_dir, num_train=num, num_validation=num, example=make_example
    )
    cases = {'OpenCV decodes, nothing else': decode(contents)}
    for interpolation in ('linear', 'cubic', 'area'):
      cases[f'training, {interpolation}'] = train(
        data_dir, num_batches, interpolation
      )
    cases['evaluation, cubic'] = evaluate(data_dir, 'cubic')
    seconds = timing.interleave(cases, repeats, clock=time.process_time)
  base = seconds['OpenCV decodes, nothing else']
  size = np.mean([len(content) for content in contents]) / 1e3
  print(f'{num} images of {size:.0f} KB, {repeats} rounds')
  for name, times in seconds.items():
    ratio = timing.ratio(times, base)
    speed = num / statistics.median(times)
    print(f'{name:30} {speed:6.0f} images a CPU second {ratio:6.2f} x the time')
    figures.add(name, 'speed', speed, 'images/s', repeats)
    figures.add(name, 'ratio', ratio, rounds=repeats)
  figures.write(given.record)


if __name__ == '__main__':
  main()
