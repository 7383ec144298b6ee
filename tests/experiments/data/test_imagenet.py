import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading

import grain
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import imagenet
from experiments.data import images
from tests import oracles
from tests import photographs

REPOSITORY = pathlib.Path(__file__).parents[3]
NUM_TRAIN, NUM_TEST = 40, 21  # of the fixture
SIZE, RESIZE = 32, 36
P1 = {'process_index': 0, 'process_count': 1}


def open_stream(data_dir, **changes):
  arguments = {
    'data_dir': str(data_dir),
    'num_validation': 0,
    'image_size': SIZE,
    'resize': RESIZE,
    'on_bad_record': 'stop',
    'num_workers': 0,
  }
  return imagenet.imagenet(**arguments | changes).load()


def take(stream, num_steps, *, first_step=0, seed=0, batch_size=8, process=P1):
  """Returns the examples of some steps, `[num_steps, ...]`."""
  batches = stream.train(
    seed=seed, first_step=first_step, batch_size=batch_size, **process
  )
  taken = [next(batches) for _ in range(num_steps)]
  batches.close()
  return [np.stack(arrays) for arrays in zip(*taken, strict=True)]


def evaluate(stream, split, *, batch_size=8, process=P1):
  """Returns inputs, labels and weights, `[number of batches, ...]`."""
  taken = [
    (*examples, weights)
    for examples, weights in stream.evaluate(
      split=split, batch_size=batch_size, **process
    )
  ]
  return [np.stack(arrays) for arrays in zip(*taken, strict=True)]


@functools.cache
def read_all(data_dir, split):
  """Returns all examples, with the bytes of their images."""
  folder = pathlib.Path(data_dir) / 'imagenet2012/5.1.0'
  builder = tfds.builder_from_directory(str(folder))
  decoders = {'image': tfds.decode.SkipDecoding()}
  return list(builder.as_data_source(split, decoders=decoders))


@pytest.fixture(scope='module')
def stream(imagenet_dir):
  return open_stream(imagenet_dir)


@pytest.fixture(scope='module')
def whole(stream):
  """Three epochs of 40 examples."""
  return take(stream, 15)


@pytest.fixture(scope='module')
def evaluated(stream):
  return evaluate(stream, 'test')


def test_training_has_random_views_in_the_order_of_grain(stream, imagenet_dir):
  assert stream.num_train == NUM_TRAIN
  train_examples = read_all(imagenet_dir, 'train')
  inputs, labels = take(stream, 3, seed=5, first_step=4)
  assert (inputs.shape, inputs.dtype) == ((3, 8, 32, 32, 3), np.float32)
  assert (labels.shape, labels.dtype) == ((3, 8), np.int32)
  draws = grain.MapDataset.range(NUM_TRAIN).seed(5).shuffle().repeat()
  draws = draws.random_map(lambda index, rng: (index, rng))
  for step, row in np.ndindex(3, 8):
    index, rng = draws[(4 + step) * 8 + row]
    example = train_examples[index]
    assert labels[step, row] == example['label']
    view = images.train_view(example['image'], rng, SIZE)
    expected = images.normalize(view, imagenet.MEAN, imagenet.STD)
    np.testing.assert_array_equal(inputs[step, row], expected)
  assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize('count', [2, 4])
def test_the_shares_of_all_processes_are_the_batch(
  stream, whole, evaluated, count
):
  for index in range(count):
    process = {'process_index': index, 'process_count': count}
    own = take(stream, 2, process=process)
    oracles.assert_same(own, [array[:2, index::count] for array in whole])
    own = evaluate(stream, 'test', process=process)
    oracles.assert_same(own, [array[:, index::count] for array in evaluated])


@pytest.mark.parametrize('batch_size', [7, 30])
def test_evaluation_has_the_center_of_every_example_once(
  stream, imagenet_dir, batch_size
):
  inputs, labels, weights = evaluate(stream, 'test', batch_size=batch_size)
  assert labels.shape == weights.shape == (-(-21 // batch_size), batch_size)
  assert weights.dtype == np.float32
  assert weights.ravel().tolist() == [1] * 21 + [0] * (weights.size - 21)
  validation_examples = read_all(imagenet_dir, 'validation')
  expected = [example['label'] for example in validation_examples]
  assert labels.ravel()[:21].tolist() == expected
  found = inputs.reshape(-1, 32, 32, 3)
  for image, example in zip(found, validation_examples, strict=False):
    view = images.evaluation_view(example['image'], SIZE, RESIZE)
    expected = images.normalize(view, imagenet.MEAN, imagenet.STD)
    np.testing.assert_array_equal(image, expected)


def test_validation_is_held_out_or_else_the_test_split(imagenet_dir, evaluated):
  without = open_stream(imagenet_dir)
  oracles.assert_same(evaluate(without, 'validation'), evaluated)
  stream = open_stream(imagenet_dir, num_validation=9)
  assert stream.num_train == 31
  labels = [example['label'] for example in read_all(imagenet_dir, 'train')]
  _, trained = take(stream, 1, batch_size=31)
  assert sorted(trained[0].tolist()) == sorted(labels[:31])
  _, validated, weights = evaluate(stream, 'validation', batch_size=9)
  assert validated[0].tolist() == labels[31:]
  assert weights.tolist() == [[1.0] * 9]


def test_worker_processes_change_nothing(imagenet_dir, whole):
  batches = open_stream(imagenet_dir, num_workers=2).train(
    seed=0, first_step=3, batch_size=8, **P1
  )
  # More batches than workers hold in shared memory; the device takes them.
  found = [jax.device_put(next(batches)) for _ in range(12)]
  batches.close()
  found = [np.stack(arrays) for arrays in zip(*found, strict=True)]
  oracles.assert_same(found, [array[3:] for array in whole])


READ_ON = """
import signal
import sys

from absl import app
from experiments.data import imagenet

imagenet._GRACE = 3600  # in the workers too, which run this file first


def main(arguments):
  signals = []
  signal.signal(signal.SIGTERM, lambda *_: signals.append(True))
  stream = imagenet.imagenet(
    data_dir=arguments[1], num_validation=0, image_size=32, resize=36,
    on_bad_record='stop', num_workers=2).load()
  batches = stream.train(
    seed=0, first_step=0, batch_size=8, process_index=0, process_count=1)
  for _ in range(2):  # one of each worker: both handle signals now
    next(batches)
  print('reads', flush=True)
  while not signals:
    next(batches)
  for _ in range(30):
    next(batches)
  print('reads on', flush=True)
  signal.pause()


if __name__ == '__main__':
  app.run(main)
"""


@pytest.mark.nightly
def test_workers_live_as_long_as_the_process_that_reads(imagenet_dir, tmp_path):
  script = tmp_path / 'read_on.py'
  script.write_text(READ_ON)
  process = subprocess.Popen(
    [sys.executable, str(script), imagenet_dir],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    start_new_session=True,
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
  )
  stop = threading.Timer(300, os.killpg, (process.pid, signal.SIGKILL))
  stop.start()
  try:
    assert process.stdout.readline() == 'reads\n'
    os.killpg(process.pid, signal.SIGTERM)
    assert process.stdout.readline() == 'reads on\n'
    process.kill()
    # The pipe ends once no worker holds it.
    assert process.stdout.read() == ''
    assert stop.is_alive()
  finally:
    stop.cancel()
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()


def read_labels(data_dir, split):
  """Returns the labels, and the indices of damaged images."""
  examples = read_all(data_dir, split)
  ends = [example['image'].endswith(b'\xff\xd9') for example in examples]
  bad = [index for index, is_whole in enumerate(ends) if not is_whole]
  return [example['label'] for example in examples], bad


def test_a_record_that_is_skipped_is_replaced_by_the_next(damaged_dir, caplog):
  stream = open_stream(damaged_dir, on_bad_record='skip')
  source_labels, bad = read_labels(damaged_dir, 'train')
  assert stream.skipped() == 0
  inputs, labels = take(stream, 3, batch_size=12)
  order = grain.MapDataset.range(12).seed(0).shuffle().repeat()
  for i in range(36):
    index = int(order[i])
    while index in bad:
      index = (index + 1) % 12
    assert labels.ravel()[i] == source_labels[index]
  assert np.abs(inputs).reshape(36, -1).max(1).min() > 0
  assert len(bad) == 2
  assert stream.skipped() >= 6
  assert caplog.text.count('it does not decode') == 2


def test_a_record_that_is_skipped_has_no_weight_in_evaluation(damaged_dir):
  stream = open_stream(damaged_dir, on_bad_record='skip')
  inputs, _, weights = evaluate(stream, 'test', batch_size=8)
  _, bad = read_labels(damaged_dir, 'validation')
  expected = [float(i < 6 and i not in bad) for i in range(8)]
  assert weights[0].tolist() == expected
  assert np.isfinite(inputs).all()
  assert stream.skipped() == len(bad) == 1


def test_records_none_of_which_decodes_are_an_error(tmp_path):
  example = functools.partial(photographs.imagenet_example, damaged=range(6))
  photographs.write_imagenet(
    tmp_path, num_train=3, num_validation=3, example=example
  )
  stream = open_stream(tmp_path, on_bad_record='skip')
  with pytest.raises(
    ValueError, match=f"'train' of {tmp_path}.*, got none among 3"
  ):
    take(stream, 1, batch_size=1)
