import collections
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import cifar
from tests import photographs

NUM_TRAIN, NUM_TEST = 120, 30  # of the fixture
LOADERS = {'cifar10': cifar.cifar10, 'cifar100': cifar.cifar100}


def load(data_dir, name='cifar10', **changes):
  arguments = {
    'data_dir': str(data_dir),
    'num_validation': 20,
    'pad': 4,
    'flip': True,
  }
  return LOADERS[name](**arguments | changes)


def decoded(data_dir, name, split):
  """Returns a split as tensorflow-datasets itself decodes it."""
  folder = pathlib.Path(data_dir) / name / '3.0.2'
  source = tfds.builder_from_directory(str(folder)).as_data_source(split)
  images, labels = zip(*((e['image'], e['label']) for e in source), strict=True)
  return np.stack(images), list(labels)


@pytest.mark.parametrize('name', LOADERS)
def test_the_splits_are_the_normalized_examples_in_their_order(cifar_dir, name):
  data = load(cifar_dir, name)
  images, labels = decoded(cifar_dir, name, 'train')
  mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
  test_images, test_labels = decoded(cifar_dir, name, 'test')
  assert data.num_classes == int(name[5:])
  for examples, expected, expected_labels in (
    (data.train, images[:100], labels[:100]),
    (data.validation, images[100:], labels[100:]),
    (data.test, test_images, test_labels),
  ):
    assert examples.inputs.dtype == np.float32
    assert examples.labels.dtype == np.int32
    np.testing.assert_allclose(
      examples.inputs, (expected - mean) / std, rtol=1e-5, atol=1e-5
    )
    assert examples.labels.tolist() == expected_labels


def test_normalized_channels_have_mean_0_and_deviation_1(cifar_dir):
  data = load(cifar_dir)
  inputs = np.concatenate([data.train.inputs, data.validation.inputs])
  np.testing.assert_allclose(inputs.mean((0, 1, 2)), 0, atol=1e-4)
  np.testing.assert_allclose(inputs.std((0, 1, 2)), 1, atol=1e-4)


def test_a_channel_of_one_value_is_only_centered():
  images = np.full((2, 4, 4, 3), 51, np.uint8)
  mean, std = cifar.mean_and_std(images)
  np.testing.assert_allclose(mean, 0.2)
  assert not cifar.normalize(images, mean, std).any()


def test_tensorflow_is_not_loaded(cifar_dir):
  load(cifar_dir)
  assert 'tensorflow' not in sys.modules


def slow_versions(image, pad, flip):
  """Returns every padded, cropped and flipped version of an image."""
  side = image.shape[0]
  padded = np.zeros((side + 2 * pad, side + 2 * pad, 3), np.float32)
  padded[pad : pad + side, pad : pad + side] = image
  found = []
  for top in range(2 * pad + 1):
    for left in range(2 * pad + 1):
      crop = padded[top : top + side, left : left + side]
      found.append(crop)
      if flip:
        found.append(crop[:, ::-1])
  return [version.tobytes() for version in found]


@pytest.mark.parametrize(('pad', 'flip'), [(2, True), (2, False), (0, True)])
def test_augmentation_draws_evenly_from_all_versions(pad, flip):
  image = np.random.default_rng(0).normal(size=(6, 6, 3)).astype(np.float32)
  versions = slow_versions(image, pad, flip)
  assert len(versions) == len(set(versions)) == (2 * pad + 1) ** 2 * (1 + flip)
  num = 200 * len(versions)
  batch = jnp.broadcast_to(image, (num, *image.shape))
  augmented = jax.jit(
    lambda key: cifar.pad_crop_flip(key, batch, pad=pad, flip=flip)
  )(jax.random.key(0))
  assert (augmented.shape, augmented.dtype) == (batch.shape, jnp.float32)
  counts = collections.Counter(
    version.tobytes() for version in np.asarray(augmented)
  )
  assert counts.keys() == set(versions)
  # Chi-squared: its mean is the degrees of freedom, its variance twice that.
  freedom = len(versions) - 1
  statistic = sum((count - 200) ** 2 / 200 for count in counts.values())
  assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_augmentation_is_a_function_of_the_key(cifar_dir):
  data = load(cifar_dir)
  augment, images = jax.jit(data.augment), data.train.inputs
  once, again, other = (
    np.asarray(augment(jax.random.key(seed), images)) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(once, again)
  assert not np.array_equal(once, other)
  padded = slow_versions(images[0], 4, flip=True)
  assert once[0].tobytes() in padded


def test_without_pad_and_flip_nothing_is_augmented(cifar_dir):
  assert load(cifar_dir, pad=0, flip=False).augment is None
  assert load(cifar_dir, pad=1, flip=False).augment is not None
  assert load(cifar_dir, pad=0, flip=True).augment is not None


@pytest.mark.parametrize('name', LOADERS)
def test_an_absent_data_set_says_how_to_prepare_it(tmp_path, name):
  with pytest.raises(
    ValueError,
    match=f'expected the data set {name} in .* python -m '
    f'experiments.data.prepare {name} --data_dir={tmp_path}$',
  ):
    load(tmp_path, name)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_validation': 0}, 'num_validation >= 1, got 0'),
    ({'num_validation': 120}, 'num_validation from 1 to 119, .* got 120'),
    ({'pad': -1}, 'a pad from 0 to 32, got -1'),
  ],
)
def test_arguments_out_of_range_are_an_error(cifar_dir, changes, message):
  with pytest.raises(ValueError, match=message):
    load(cifar_dir, **changes)


def test_a_label_out_of_range_is_named(tmp_path):
  def example(index, num_classes):
    image, label = photographs.cifar_example(index, num_classes)
    return image, -1 if index == 2 else label

  photographs.write_cifar(
    tmp_path, num_classes=10, num_train=4, num_test=1, example=example
  )
  with pytest.raises(
    ValueError,
    match=r'a label from 0 to 9, got -1 in .*train.array_record.*, record \d; ',
  ):
    load(tmp_path, num_validation=1)


def test_bytes_that_changed_are_named(tmp_path):
  photographs.write_cifar(tmp_path, num_classes=10, num_train=30, num_test=1)
  path = tmp_path / 'cifar10/3.0.2/cifar10-train.array_record-00000-of-00001'
  content = bytearray(path.read_bytes())
  where = content.find(b'IDAT') + 20  # within an image
  content[where] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r'record \d+: .*hash mismatch.*; prepa'):
    load(tmp_path)


def test_images_of_another_shape_are_an_error(tmp_path):
  # A data set of that name with the images of another.
  photographs.write_imagenet(
    tmp_path, num_train=4, num_validation=1, num_shards=1
  )
  (tmp_path / 'imagenet2012').rename(tmp_path / 'cifar10')
  with pytest.raises(
    ValueError, match=r'record 0: its shape is \(\d+, \d+, 3\); prepare'
  ):
    load(tmp_path)
