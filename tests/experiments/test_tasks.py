"""Streams of tasks: fixed, of the memory of one data set, exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import dataset
from experiments.data import mnist
from experiments.data import tasks
from experiments.data import views as views_lib


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


def permuted(num_tasks=3, seed=0):
  return tasks.permuted_mnist(num_tasks=num_tasks, seed=seed, data_dir=None)


def rotated(num_tasks=3, seed=0):
  return tasks.rotated_mnist(
    num_tasks=num_tasks, seed=seed, max_degrees=180.0, data_dir=None
  )


def split(num_tasks=5, classes_per_task=2, seed=None):
  return tasks.split_mnist(
    num_tasks=num_tasks,
    classes_per_task=classes_per_task,
    seed=seed,
    data_dir=None,
  )


@pytest.mark.parametrize('make', [permuted, rotated])
def test_the_first_task_is_mnist_itself(make):
  first = tasks.arrays(read(make()), 0)
  assert first.num_classes == 10
  for name in tasks.SPLITS:
    for a, b in zip(
      getattr(first, name), getattr(some_mnist(), name), strict=True
    ):
      np.testing.assert_array_equal(a, b)


def test_later_tasks_have_all_pixels_of_each_image_in_one_other_order():
  second = tasks.arrays(read(permuted()), 1)
  base = some_mnist()
  [order] = permuted().tasks[1].pixels.source
  assert sorted(order) == list(range(784))
  assert not np.array_equal(order, np.arange(784))
  for name in tasks.SPLITS:
    inputs, labels = getattr(second, name)
    expected, expected_labels = getattr(base, name)
    np.testing.assert_array_equal(labels, expected_labels)
    for image, original in list(zip(inputs, expected, strict=True))[:5]:
      flat = original.reshape(-1)
      by_hand = [flat[order[pixel]] for pixel in range(784)]
      np.testing.assert_array_equal(image.reshape(-1), by_hand)


def sources(stream):
  return [task.pixels.source for task in stream.tasks]


@pytest.mark.parametrize('make', [permuted, rotated])
def test_a_stream_is_fixed_by_its_seed_whatever_its_length(make):
  for a, b in zip(sources(make(3)), sources(make(7)), strict=False):
    np.testing.assert_array_equal(a, b)
  others = sources(make(3, seed=1))
  for a, b in zip(sources(make(3))[1:], others[1:], strict=True):
    assert not np.array_equal(a, b)
  assert not np.array_equal(*sources(make(3))[1:])


def test_a_hundred_tasks_take_the_memory_of_one():
  stream = permuted(100)
  many = read(stream)
  arrays = {id(x): x for x in jax.tree.leaves(many.rows)}
  arrays |= {id(x): x for x in jax.tree.leaves(tasks.make_views(stream))}
  assert sum(x.nbytes for x in arrays.values()) < 400_000
  assert many.examples.train.inputs is some_mnist().train.inputs


@pytest.mark.parametrize('side', [4, 5])
@pytest.mark.parametrize('quarters', [0, 1, 2, 3])
def test_rotation_by_quarters_is_exact(side, quarters):
  image = np.random.default_rng(0).normal(size=(side, side))
  pixels = views_lib.rotation(side, 90.0 * quarters)
  found = (image.reshape(-1)[pixels.source] * pixels.weight).sum(0)
  np.testing.assert_allclose(
    found.reshape(side, side), np.rot90(image, quarters), atol=1e-6
  )


def test_rotation_interpolates_between_the_four_pixels_about_a_point():
  side, degrees = 6, 33.0
  image = np.random.default_rng(1).normal(size=(side, side))

  def at(row, column):
    inside = 0 <= row < side and 0 <= column < side
    return image[row, column] if inside else 0.0

  pixels = views_lib.rotation(side, degrees)
  found = (image.reshape(-1)[pixels.source] * pixels.weight).sum(0)
  angle, center = np.deg2rad(degrees), 2.5
  for row in range(side):
    for column in range(side):
      # x to the right, y upwards, and back by the angle.
      x, y = column - center, center - row
      back_x = np.cos(angle) * x + np.sin(angle) * y
      back_y = -np.sin(angle) * x + np.cos(angle) * y
      r, c = center - back_y, back_x + center
      top, left = int(np.floor(r)), int(np.floor(c))
      expected = sum(
        (1 - abs(r - i)) * (1 - abs(c - j)) * at(i, j)
        for i in (top, top + 1)
        for j in (left, left + 1)
      )
      np.testing.assert_allclose(
        found[row * side + column], expected, atol=1e-6
      )


def test_split_tasks_have_their_classes_and_no_others():
  stream = split()
  read_tasks = read(stream)
  seen = []
  for number, task in enumerate(stream.tasks):
    assert task.classes == (2 * number, 2 * number + 1)
    one = tasks.arrays(read_tasks, number)
    assert one.num_classes == 2
    for name in tasks.SPLITS:
      rows = read_tasks.rows[number][name]
      labels = getattr(some_mnist(), name).labels[rows]
      np.testing.assert_array_equal(
        getattr(one, name).labels, labels - 2 * number
      )
      np.testing.assert_array_equal(
        getattr(one, name).inputs, getattr(some_mnist(), name).inputs[rows]
      )
    seen += read_tasks.rows[number]['train'].tolist()
  assert sorted(seen) == list(range(len(some_mnist().train.labels)))


def test_a_seed_mixes_the_classes():
  mixed = split(3, 3, seed=4)
  classes = [c for task in mixed.tasks for c in task.classes]
  assert len(set(classes)) == 9
  assert classes != list(range(9))
  assert classes == [c for t in split(3, 3, seed=4).tasks for c in t.classes]
  one = tasks.arrays(read(mixed), 1)
  rows = read(mixed).rows[1]['test']
  expected = [
    mixed.tasks[1].classes.index(label)
    for label in some_mnist().test.labels[rows]
  ]
  np.testing.assert_array_equal(one.test.labels, expected)


@pytest.mark.parametrize('make', [permuted, rotated, split])
def test_a_mixed_batch_is_what_its_tasks_make_of_each_example(make):
  stream = make()
  views = tasks.make_views(stream)
  look = jax.jit(lambda *args: views_lib.see(*args))
  inputs, labels = jax.tree.map(lambda x: x[:12], some_mnist().train)
  of_task = jnp.arange(12) % len(stream.tasks)
  mixed = look(views, of_task, dataset.Examples(inputs, labels))
  for task in range(len(stream.tasks)):
    alone = look(views, jnp.int32(task), dataset.Examples(inputs, labels))
    chosen = np.flatnonzero(of_task == task)
    np.testing.assert_allclose(
      mixed.inputs[chosen], alone.inputs[chosen], rtol=1e-6
    )
    np.testing.assert_array_equal(mixed.labels[chosen], alone.labels[chosen])
  assert look._cache_size() == 2  # for all tasks one, and one for mixtures


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: permuted(0), 'num_tasks >= 1, got 0'),
    (lambda: permuted(2, -1), 'seed >= 0, got -1'),
    (
      lambda: split(6),
      'at most 5 tasks of 2 classes.* has 10; got num_tasks=6',
    ),
    (lambda: split(5, 1), 'classes_per_task >= 2, got 1'),
    (
      lambda: tasks.rotated_mnist(
        num_tasks=2, seed=0, max_degrees=400.0, data_dir=None
      ),
      'max_degrees over 0, at most 360, got 400',
    ),
  ],
)
def test_what_cannot_be_is_refused_before_data_are_read(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_task_without_examples_is_refused():
  ones = some_mnist().test
  only_zeros = jax.tree.map(lambda x: x[ones.labels == 0], ones)
  stream = split()._replace(load=lambda: some_mnist()._replace(test=only_zeros))
  with pytest.raises(
    ValueError, match=r'test examples of the classes \(2, 3\)'
  ):
    tasks.read(stream)
