import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import imagenet
from experiments.data import images
from experiments.data import order
from tests import photographs

REPOSITORY = pathlib.Path(__file__).parents[2]
NUM_TRAIN, NUM_TEST = 40, 21  # of the fixture
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def open_stream(data_dir, **changes):
  arguments = {
    'data_dir': str(data_dir),
    'num_validation': 0,
    'image_size': 64,
    'resize': 72,
    'area': AREA,
    'ratio': RATIO,
    'interpolation': 'linear',
    'on_bad_record': 'stop',
    'num_workers': 0,
  }
  return imagenet.imagenet(**arguments | changes)


def take(
  stream, num_steps, *, seed=0, first_step=0, batch_size=8, process=(0, 1)
):
  """Returns the examples of some steps, `[num_steps, ...]`."""
  batches = stream.train(
    seed=seed,
    first_step=first_step,
    batch_size=batch_size,
    process_index=process[0],
    process_count=process[1],
  )
  taken = [next(batches) for _ in range(num_steps)]
  batches.close()
  return [np.stack(arrays) for arrays in zip(*taken, strict=True)]


def evaluate(stream, split, *, batch_size=8, process=(0, 1)):
  """Returns inputs, labels and weights, `[number of batches, ...]`."""
  batches = stream.evaluate(
    split=split,
    batch_size=batch_size,
    process_index=process[0],
    process_count=process[1],
  )
  taken = [(*examples, weights) for examples, weights in batches]
  return [np.stack(arrays) for arrays in zip(*taken, strict=True)]


def assert_equal(found, expected):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)


def decoded(data_dir, split):
  """Returns all examples as tensorflow-datasets itself decodes them."""
  folder = pathlib.Path(data_dir) / 'imagenet2012/5.1.0'
  return list(tfds.builder_from_directory(str(folder)).as_data_source(split))


def normalized(image):
  mean, std = np.array(imagenet.MEAN), np.array(imagenet.STD)
  return (image / 255 - mean) / std


@pytest.fixture(scope='module')
def stream(imagenet_dir):
  return open_stream(imagenet_dir)


def test_a_stream_says_what_it_has(stream):
  assert (stream.num_train, stream.num_classes) == (NUM_TRAIN, 1000)
  assert stream.example_shape == (64, 64, 3)
  inputs, labels = take(stream, 1)
  assert (inputs.shape, inputs.dtype) == ((1, 8, 64, 64, 3), np.float32)
  assert (labels.shape, labels.dtype) == ((1, 8), np.int32)


def test_training_sees_crops_of_the_examples_in_the_common_order(
  stream, imagenet_dir
):
  examples = decoded(imagenet_dir, 'train')
  inputs, labels = take(stream, 3, seed=5, first_step=4)
  indices = order.batch_indices(5, 4, 3, 8, NUM_TRAIN)
  num_flipped = 0
  for step, row in np.ndindex(3, 8):
    example = examples[indices[step, row]]
    assert labels[step, row] == example['label']
    image = example['image']
    rng = np.random.default_rng((5, 4 + step, row))
    crop = images.random_crop(rng, *image.shape[:2], AREA, RATIO)
    if min(crop.height, crop.width) >= 128:
      continue  # It was decoded at less than its size.
    part = image[crop.top :, crop.left :][: crop.height, : crop.width]
    expected = cv2.resize(np.ascontiguousarray(part), (64, 64))
    if rng.random() < 0.5:
      num_flipped += 1
      expected = expected[:, ::-1]
    # The two decoders may differ by a rounding.
    error = np.abs(inputs[step, row] - normalized(expected))
    assert error.mean() < 0.01
    assert error.max() < 0.2
  assert num_flipped > 0


def test_training_is_a_function_of_seed_and_step(imagenet_dir, stream):
  expected = take(stream, 4, seed=1)
  assert_equal(take(open_stream(imagenet_dir), 4, seed=1), expected)
  for other in (
    take(stream, 4, seed=2), take(stream, 4, seed=1, first_step=1),
  ):  # fmt: skip
    assert not np.array_equal(other[0], expected[0])


@pytest.mark.parametrize('first_step', [1, 4, 5, 13])
def test_training_resumes_at_the_exact_example(stream, first_step):
  whole = take(stream, 15)  # three epochs of 40 examples
  rest = take(stream, 15 - first_step, first_step=first_step)
  assert_equal(rest, [array[first_step:] for array in whole])


def test_an_epoch_has_every_example_once(stream, imagenet_dir):
  _, labels = take(stream, 10)
  expected = sorted(e['label'] for e in decoded(imagenet_dir, 'train'))
  for epoch in (labels[:5], labels[5:]):
    assert sorted(epoch.ravel().tolist()) == expected
  assert labels[:5].tolist() != labels[5:].tolist()


def test_an_example_has_another_crop_in_another_epoch(stream):
  one, two = (
    take(stream, 1, batch_size=NUM_TRAIN, first_step=step) for step in (0, 1)
  )
  first, second = (order.batch_indices(0, i, 1, 40, 40)[0] for i in (0, 1))
  again = np.argsort(second)[first]  # where the examples of one are in two
  assert one[1][0].tolist() == two[1][0][again].tolist()
  differences = np.abs(one[0][0] - two[0][0][again]).mean((1, 2, 3))
  assert differences.min() > 0


@pytest.mark.parametrize('count', [2, 4])
def test_the_shares_of_all_processes_are_the_batch(stream, count):
  shares = [take(stream, 2, process=(i, count)) for i in range(count)]
  together = [np.concatenate(arrays, 1) for arrays in zip(*shares, strict=True)]
  assert_equal(together, take(stream, 2))


@pytest.mark.parametrize('batch_size', [4, 7, 8, 30])
def test_evaluation_has_every_example_once(stream, imagenet_dir, batch_size):
  _, labels, weights = evaluate(stream, 'test', batch_size=batch_size)
  assert labels.shape == weights.shape == (-(-21 // batch_size), batch_size)
  assert weights.dtype == np.float32
  assert weights.ravel().tolist() == [1] * 21 + [0] * (weights.size - 21)
  expected = [e['label'] for e in decoded(imagenet_dir, 'validation')]
  assert labels.ravel()[:21].tolist() == expected


def test_evaluation_sees_the_center_of_the_examples(imagenet_dir):
  # Images are shrunk to at least half, so they are decoded in full.
  stream = open_stream(imagenet_dir, image_size=224, resize=256)
  inputs, *_ = evaluate(stream, 'test')
  inputs = inputs.reshape(-1, 224, 224, 3)
  num = 0
  for found, example in zip(
    inputs, decoded(imagenet_dir, 'validation'), strict=False
  ):
    height, width = example['image'].shape[:2]
    if min(height, width) >= 512:
      continue
    scale = 256 / min(height, width)
    height, width = round(height * scale), round(width * scale)
    image = cv2.resize(example['image'], (width, height))
    top, left = (height - 224) // 2, (width - 224) // 2
    expected = normalized(image[top : top + 224, left : left + 224])
    assert np.abs(found - expected).mean() < 0.01
    num += 1
  assert num > 10


@pytest.mark.parametrize('count', [2, 4])
def test_the_shares_of_an_evaluation_are_all_of_it(stream, count):
  shares = [evaluate(stream, 'test', process=(i, count)) for i in range(count)]
  together = [np.concatenate(arrays, 1) for arrays in zip(*shares, strict=True)]
  assert_equal(together, evaluate(stream, 'test'))


def test_validation_is_the_last_of_the_examples_for_training(imagenet_dir):
  stream = open_stream(imagenet_dir, num_validation=9)
  assert stream.num_train == 31
  labels = [e['label'] for e in decoded(imagenet_dir, 'train')]
  _, trained = take(stream, 1, batch_size=31)
  assert sorted(trained[0].tolist()) == sorted(labels[:31])
  _, validated, weights = evaluate(stream, 'validation', batch_size=9)
  assert validated[0].tolist() == labels[31:]
  assert weights.tolist() == [[1.0] * 9]
  assert len(evaluate(stream, 'test')[1].ravel()) == 24


def test_without_examples_held_out_validation_is_the_test_split(stream):
  assert_equal(evaluate(stream, 'validation'), evaluate(stream, 'test'))


def test_worker_processes_change_nothing(imagenet_dir, stream):
  batches = open_stream(imagenet_dir, num_workers=2).train(
    seed=0, first_step=3, batch_size=8, process_index=0, process_count=1
  )
  # More batches than workers have in memory; they share it with the device.
  found = [jax.device_put(next(batches)) for _ in range(12)]
  batches.close()
  found = [np.stack(arrays) for arrays in zip(*found, strict=True)]
  assert_equal(found, take(stream, 12, first_step=3))


READ_ON = """
import signal
import sys
from experiments.data import imagenet

def main():
  told = []
  signal.signal(signal.SIGTERM, lambda *_: told.append(True))
  stream = imagenet.imagenet(
    data_dir=sys.argv[1], num_validation=0, image_size=64, resize=72,
    area=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation='linear',
    on_bad_record='stop', num_workers=2)
  batches = stream.train(
    seed=0, first_step=0, batch_size=8, process_index=0, process_count=1)
  next(batches)
  print('reads', flush=True)
  while not told:
    next(batches)
  for _ in range(30):
    next(batches)
  print('reads on', flush=True)
  signal.pause()

if __name__ == '__main__':
  main()
"""


@pytest.mark.slow
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
  stop = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
  stop.start()
  try:
    assert process.stdout.readline() == 'reads\n'
    os.killpg(process.pid, signal.SIGTERM)
    assert process.stdout.readline() == 'reads on\n'
    process.kill()
    # The pipe ends when the last of them has closed it. Those that were told
    # to terminate would do so by themselves, but later than that.
    start = time.monotonic()
    assert process.stdout.read() == ''
    assert time.monotonic() - start < 20
  finally:
    stop.cancel()
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()


def test_tensorflow_is_not_loaded(stream):
  take(stream, 1)
  assert 'tensorflow' not in sys.modules


def write_damaged(folder, damaged):
  """Writes a data set some of whose images are truncated."""

  def example(index):
    made = photographs.imagenet_example(index)
    if index in damaged:
      made['image'] = made['image'][: len(made['image']) // 2]
    return made

  photographs.write_imagenet(
    folder, num_train=12, num_validation=6, example=example
  )


@pytest.fixture(scope='module')
def damaged_dir(tmp_path_factory):
  """Two of twelve images for training, one of six for testing are damaged."""
  folder = tmp_path_factory.mktemp('damaged')
  write_damaged(folder, {3, 7, 14})
  return folder


def damaged_indices(data_dir, split):
  folder = data_dir / 'imagenet2012/5.1.0'
  source = tfds.builder_from_directory(str(folder)).as_data_source(
    split, decoders={'image': tfds.decode.SkipDecoding()}
  )
  return [
    i for i, e in enumerate(source) if not e['image'].endswith(b'\xff\xd9')
  ]


def test_a_record_that_does_not_decode_is_named(damaged_dir):
  stream = open_stream(damaged_dir)
  first = damaged_indices(damaged_dir, 'validation')[0]
  file, record = divmod(first, 2)  # two records a file
  with pytest.raises(
    ValueError,
    match=rf'validation.array_record-0000{file}-of-00003, record {record}: '
    'the image does not decode; copy the file again, or set on_bad_record',
  ):
    evaluate(stream, 'test')
  with pytest.raises(ValueError, match='expected a record that decodes, got'):
    take(stream, 12, batch_size=1)


def test_a_worker_evaluates_up_to_the_record_that_does_not_decode(damaged_dir):
  expected = evaluate(
    open_stream(damaged_dir, on_bad_record='skip'), 'test', batch_size=1
  )
  stream = open_stream(damaged_dir, num_workers=1)
  batches = stream.evaluate(
    split='test', batch_size=1, process_index=0, process_count=1
  )
  first = damaged_indices(damaged_dir, 'validation')[0]
  assert first > 0
  for i in range(first):
    examples, weights = next(batches)
    assert_equal((*examples, weights), [array[i] for array in expected])
  with pytest.raises(ValueError, match=r'record \d: the image does not decode'):
    next(batches)


def test_a_record_that_is_skipped_is_replaced_by_the_next(damaged_dir, caplog):
  stream = open_stream(damaged_dir, on_bad_record='skip')
  bad = damaged_indices(damaged_dir, 'train')
  source = tfds.builder_from_directory(
    str(damaged_dir / 'imagenet2012/5.1.0')
  ).as_data_source('train', decoders={'image': tfds.decode.SkipDecoding()})
  assert stream.quarantined() == 0
  inputs, labels = take(stream, 3, batch_size=12)
  for step in range(3):
    expected = []
    for index in order.batch_indices(0, step, 1, 12, 12)[0].tolist():
      while index in bad:
        index = (index + 1) % 12
      expected.append(source[index]['label'])
    assert labels[step].tolist() == expected
  assert np.abs(inputs).reshape(36, -1).max(1).min() > 0
  assert stream.quarantined() == len(bad) == 2  # each is counted once
  assert caplog.text.count('it does not decode') == 2
  assert_equal(take(stream, 1, first_step=2, batch_size=12)[0], inputs[2:])


def test_a_record_that_is_skipped_has_no_weight_in_evaluation(damaged_dir):
  stream = open_stream(damaged_dir, on_bad_record='skip')
  inputs, _, weights = evaluate(stream, 'test', batch_size=8)
  bad = damaged_indices(damaged_dir, 'validation')
  expected = [float(i < 6 and i not in bad) for i in range(8)]
  assert weights[0].tolist() == expected
  assert not inputs[0, bad].any()
  assert stream.quarantined() == len(bad) == 1


def test_records_none_of_which_decodes_are_an_error(tmp_path):
  write_damaged(tmp_path, set(range(18)))
  stream = open_stream(tmp_path, on_bad_record='skip')
  with pytest.raises(ValueError, match="split 'train', got none among 12"):
    take(stream, 1)


@pytest.fixture
def copied(imagenet_dir, tmp_path):
  """A copy of the data set, to be damaged."""
  shutil.copytree(imagenet_dir, tmp_path, dirs_exist_ok=True)
  return tmp_path / 'imagenet2012/5.1.0'


def test_a_record_whose_bytes_changed_is_named_or_skipped(copied, tmp_path):
  path = copied / 'imagenet2012-train.array_record-00001-of-00003'
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(
    ValueError, match=r'00001-of-00003, record \d+: .*hash mismatch'
  ):
    take(open_stream(tmp_path), 5)
  stream = open_stream(tmp_path, on_bad_record='skip')
  take(stream, 5)
  assert stream.quarantined() == 1


def test_a_label_out_of_range_is_named(tmp_path):
  def example(index):
    made = photographs.imagenet_example(index)
    return made | {'label': -1 if index == 2 else made['label']}

  photographs.write_imagenet(
    tmp_path, num_train=4, num_validation=1, num_shards=1, example=example
  )
  # It is no matter of decoding, so it is never skipped.
  stream = open_stream(tmp_path, on_bad_record='skip')
  with pytest.raises(
    ValueError,
    match=r'label from 0 to 999, got -1 in .*-00000-of-00001, record \d; pre',
  ):
    take(stream, 1, batch_size=4)


def test_an_absent_data_set_says_how_to_prepare_it(tmp_path):
  with pytest.raises(
    ValueError,
    match='expected the data set imagenet2012 .* got none .*: python -m '
    f'experiments.data.prepare imagenet2012 --data_dir={tmp_path}$',
  ):
    open_stream(tmp_path)


def test_an_absent_split_is_an_error(tmp_path):
  photographs.write_imagenet(
    tmp_path, num_train=2, num_validation=0, num_shards=1
  )
  with pytest.raises(
    ValueError, match=r"split 'validation' .* got the splits train \(2\)"
  ):
    open_stream(tmp_path)


def test_a_missing_file_is_named(copied, tmp_path):
  name = 'imagenet2012-validation.array_record-00002-of-00003'
  (copied / name).unlink()
  with pytest.raises(
    ValueError, match=f'expected 3 files .* got 2: missing {name}; copy them'
  ):
    open_stream(tmp_path)


@pytest.mark.parametrize('left', [0, 0.5, 0.99])
def test_a_truncated_file_is_named(copied, tmp_path, left):
  name = 'imagenet2012-train.array_record-00000-of-00003'
  content = (copied / name).read_bytes()
  (copied / name).write_bytes(content[: int(left * len(content))])
  with pytest.raises(
    ValueError, match=rf'records in .*{name}, got a damaged file'
  ):
    open_stream(tmp_path)


def test_a_file_of_another_preparation_is_named(copied, tmp_path):
  names = [
    f'imagenet2012-train.array_record-0000{i}-of-00003' for i in range(3)
  ]
  info = json.loads((copied / 'dataset_info.json').read_text())
  lengths = [int(length) for length in info['splits'][0]['shardLengths']]
  longer, shorter = int(np.argmax(lengths)), int(np.argmin(lengths))
  assert lengths[longer] > lengths[shorter]
  shutil.copy(copied / names[longer], copied / names[shorter])
  with pytest.raises(
    ValueError,
    match=f'expected {lengths[shorter]} records in .*{names[shorter]}, got '
    f'{lengths[longer]}; copy it again',
  ):
    open_stream(tmp_path)


def edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


def test_a_data_set_of_another_format_is_an_error(copied, tmp_path):
  edit(copied / 'dataset_info.json', '"array_record"', '"tfrecord"')
  with pytest.raises(
    ValueError, match=r'format array_record .* got tfrecord; '
  ):
    open_stream(tmp_path)


def test_a_data_set_of_other_classes_is_an_error(copied, tmp_path):
  edit(copied / 'features.json', '"1000"', '"999"')
  with pytest.raises(
    ValueError, match=r'expected 1000 classes .* got 999; is '
  ):
    open_stream(tmp_path)


def test_the_newest_version_is_read(copied, tmp_path):
  old = copied.parent / '5.0.0'
  shutil.copytree(copied, old)
  edit(old / 'dataset_info.json', '"5.1.0"', '"5.0.0"')
  (old / 'imagenet2012-train.array_record-00000-of-00003').unlink()
  assert open_stream(tmp_path).num_train == NUM_TRAIN


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'on_bad_record': 'ignore'}, r"among \('stop', 'skip'\), got 'ignore'"),
    ({'num_workers': -1}, 'num_workers >= 0, got -1'),
    ({'num_validation': 40}, 'num_validation from 0 to 39, .* got 40'),
    ({'num_validation': -1}, 'num_validation from 0 to 39, .* got -1'),
    ({'image_size': 0}, 'expected 1 <= image_size'),
  ],
)
def test_arguments_out_of_range_are_an_error(imagenet_dir, changes, message):
  with pytest.raises(ValueError, match=message):
    open_stream(imagenet_dir, **changes)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'seed': -1}, 'expected seed >= 0'),
    ({'first_step': -1}, 'expected first_step >= 0'),
    ({'batch_size': 41}, 'a batch_size from 1 to 40'),
    ({'batch_size': 6, 'process': (0, 4)}, r'the processes, 4, divide; got 6'),
    ({'process': (2, 2)}, 'process_index < process_count, got 2 and 2'),
  ],
)
def test_steps_out_of_range_are_an_error_at_once(stream, changes, message):
  with pytest.raises(ValueError, match=message):
    take(stream, 0, **changes)


def test_an_unknown_split_is_an_error_at_once(stream):
  with pytest.raises(ValueError, match=r"among .* got 'tset'"):
    stream.evaluate(
      split='tset', batch_size=8, process_index=0, process_count=1
    )
