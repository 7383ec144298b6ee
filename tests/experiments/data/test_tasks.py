"""Streams of tasks: fixed, of the memory of one data set, exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import cifar
from experiments.data import dataset
from experiments.data import mnist
from experiments.data import tasks
from tests import oracles

look = jax.jit(tasks.see)


@functools.cache
def some_mnist():
  """Every hundredth example."""
  whole = mnist.load(data_dir=None)
  return whole._replace(
    **{
      name: jax.tree.map(lambda x: x[::100], getattr(whole, name))
      for name in tasks.SPLITS
    }
  )


def read(stream):
  return tasks.read(stream._replace(load=some_mnist))


def examples_of(stream, found, task, name):
  """Returns the examples of a split as a task, from 0, has them."""
  examples, rows = found
  own = jax.tree.map(lambda x: x[rows[name][task]], getattr(examples, name))
  return look(tasks.make_views(stream), jnp.int32(task), own)


def permuted(num_tasks=3, seed=0):
  return tasks.permuted_mnist(num_tasks=num_tasks, seed=seed, data_dir=None)


def split(num_tasks=5):
  return tasks.split_mnist(num_tasks=num_tasks, data_dir=None)


def test_later_tasks_have_all_pixels_of_each_image_in_one_other_order():
  stream, found = permuted(), read(permuted())
  order = stream.tasks[1].source
  assert stream.num_classes == 10
  oracles.assert_same(examples_of(stream, found, 0, 'test'), some_mnist().test)
  assert sorted(order) == list(range(784))
  assert not np.array_equal(order, np.arange(784))
  inputs, labels = examples_of(stream, found, 1, 'test')
  expected, expected_labels = some_mnist().test
  np.testing.assert_array_equal(labels, expected_labels)
  for image, original in zip(inputs[:5], expected[:5], strict=True):
    np.testing.assert_array_equal(image.ravel(), original.ravel()[order])


def test_a_stream_is_fixed_by_its_seed_whatever_its_length():
  short, long, other = (
    [task.source for task in permuted(num, seed).tasks]
    for num, seed in ((3, 0), (7, 0), (3, 1))
  )
  oracles.assert_same(short, long[:3])
  assert not any(map(np.array_equal, short[1:], other[1:]))
  assert not np.array_equal(short[1], short[2])
  # NumPy may change its streams; then earlier results could not be repeated.
  assert short[1][:4].tolist() == [185, 106, 362, 599]


def test_split_tasks_have_their_classes_and_no_others():
  stream, seen = split(), []
  examples, rows = found = read(stream)
  assert stream.num_classes == 2
  for task, (classes, _) in enumerate(stream.tasks):
    assert classes == (2 * task, 2 * task + 1)
    for name in tasks.SPLITS:
      base, own = getattr(examples, name), rows[name][task]
      expected = dataset.Examples(base.inputs[own], base.labels[own] - 2 * task)
      oracles.assert_same(examples_of(stream, found, task, name), expected)
    seen += rows['train'][task].tolist()
  assert sorted(seen) == list(range(len(some_mnist().train.labels)))


@pytest.mark.parametrize('make', [permuted, split])
def test_a_mixed_batch_is_what_its_tasks_make_of_each_example(make):
  stream = make()
  views = tasks.make_views(stream)
  look = jax.jit(lambda *arguments: tasks.see(*arguments))
  batch = jax.tree.map(lambda x: x[:12], some_mnist().train)
  of_task = np.arange(12) % len(stream.tasks)
  mixed = look(views, of_task, batch)
  for task in range(len(stream.tasks)):
    alone = look(views, jnp.int32(task), batch)
    chosen = np.flatnonzero(of_task == task)
    for a, b in zip(mixed, alone, strict=True):
      np.testing.assert_array_equal(a[chosen], b[chosen])
  assert look._cache_size() == 2  # one for all tasks, and one for mixtures


def test_cifar_10_comes_first_then_tens_of_cifar_100(cifar_dir):
  options = {'data_dir': cifar_dir, 'num_validation': 110}
  stream = tasks.cifar(num_tasks=6, **options)
  found = tasks.read(stream)
  assert stream.num_classes == 10
  assert stream.augment is not None
  ten = cifar.cifar10(**options).load()
  hundred = cifar.cifar100(**options).load()
  for task in range(6):
    for name in tasks.SPLITS:
      base = getattr(hundred if task else ten, name)
      first = 10 * (task - 1) if task else 0
      own = (base.labels >= first) & (base.labels < first + 10)
      expected = dataset.Examples(base.inputs[own], base.labels[own] - first)
      oracles.assert_same(examples_of(stream, found, task, name), expected)
  examples, _ = tasks.read(tasks.cifar(num_tasks=1, **options))
  assert len(examples.train.labels) == 140  # CIFAR-10 alone


def test_a_task_without_examples_is_refused():
  zeros = some_mnist().test.labels == 0
  only_zeros = jax.tree.map(lambda x: x[zeros], some_mnist().test)
  stream = split()._replace(load=lambda: some_mnist()._replace(test=only_zeros))
  with pytest.raises(
    ValueError, match=r'test examples of the classes \(2, 3\)'
  ):
    tasks.read(stream)
