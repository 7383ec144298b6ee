import collections
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data import table


def open_source(data_dir, name='cifar10'):
  return table.SOURCES[name](data_dir=data_dir, num_validation=110)


def decoded(data_dir, name, split):
  """Returns a split as tensorflow-datasets itself decodes it."""
  folder = pathlib.Path(data_dir) / name / '3.0.2'
  source = tfds.builder_from_directory(str(folder)).as_data_source(split)
  images, labels = zip(*((e['image'], e['label']) for e in source), strict=True)
  return np.stack(images), list(labels)


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_the_splits_are_the_normalized_examples_in_their_order(cifar_dir, name):
  source = open_source(cifar_dir, name)
  data = source.load()
  images, labels = decoded(cifar_dir, name, 'train')
  mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
  test_images, test_labels = decoded(cifar_dir, name, 'test')
  assert source.num_classes == int(name[5:])
  for examples, expected, expected_labels in (
    (data.train, images[:140], labels[:140]),
    (data.validation, images[140:], labels[140:]),
    (data.test, test_images, test_labels),
  ):
    assert examples.inputs.dtype == np.float32
    assert examples.labels.dtype == np.int32
    np.testing.assert_allclose(
      examples.inputs, (expected - mean) / std, rtol=1e-5, atol=1e-5
    )
    assert examples.labels.tolist() == expected_labels
  assert 'tensorflow' not in sys.modules


def slow_versions(image):
  """Returns every padded, cropped and flipped version of an image."""
  side, pad = image.shape[0], 4
  padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  found = []
  for top in range(2 * pad + 1):
    for left in range(2 * pad + 1):
      crop = padded[top : top + side, left : left + side]
      found += [crop, crop[:, ::-1]]
  return [version.tobytes() for version in found]


def test_augmentation_draws_evenly_from_all_versions():
  image = np.random.default_rng(0).normal(size=(6, 6, 3)).astype(np.float32)
  versions = slow_versions(image)
  assert len(versions) == len(set(versions)) == 9**2 * 2
  num = 100 * len(versions)
  batch = jnp.broadcast_to(image, (num, *image.shape))
  augment = jax.jit(open_source(None).augment)
  augmented = np.asarray(augment(jax.random.key(0), batch))
  assert (augmented.shape, augmented.dtype) == (batch.shape, np.float32)
  counts = collections.Counter(version.tobytes() for version in augmented)
  assert counts.keys() == set(versions)
  # Chi-squared: its mean is the degrees of freedom, its variance twice that.
  freedom = len(versions) - 1
  statistic = sum((count - 100) ** 2 / 100 for count in counts.values())
  assert statistic < freedom + 5 * np.sqrt(2 * freedom)
  other = augment(jax.random.key(1), batch)
  assert not np.array_equal(augmented, other)
