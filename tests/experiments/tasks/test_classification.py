"""The loss against formulas; examples from arrays or a stream train alike."""

import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import methods
from experiments import storage as storage_lib
from experiments.data import dataset
from experiments.tasks import base
from experiments.tasks import classification
import sparsity
from tests.experiments import small

BATCH_SIZE, SEED = 8, 3
RANDOM = np.random.default_rng(0)


def net(images, is_training):
  x = sparsity.modules.Conv2D(4, 3, with_bias=False)(images)
  x = hk.BatchNorm(True, True, 0.9)(x, is_training)
  return sparsity.modules.Linear(3)(jax.nn.relu(x).mean((1, 2)))


NETWORK = hk.transform_with_state(net)


def make_examples(num):
  return dataset.Examples(
    RANDOM.normal(size=(num, 6, 6, 1)).astype(np.float32),
    RANDOM.integers(0, 3, num).astype(np.int32),
  )


ARRAYS = dataset.Arrays(make_examples(50), make_examples(11), make_examples(13))
BATCH = classification.Batch(*ARRAYS.test)
KEY = jax.random.key(0)
WEIGHTS, STATE = NETWORK.init(KEY, BATCH.inputs, True)


def loss_of(batch, augment=None, label_smoothing=0.0):
  loss = classification.make_loss(
    network=NETWORK, augment=augment, label_smoothing=label_smoothing
  )
  return loss(WEIGHTS, STATE, KEY, batch, True)


def test_smoothed_labels_are_mixed_with_even_ones():
  logits, _ = NETWORK.apply(WEIGHTS, STATE, None, BATCH.inputs, True)
  targets = 0.7 * jax.nn.one_hot(BATCH.labels, 3) + 0.1
  expected = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), -1))
  loss, (metrics, _) = loss_of(BATCH, label_smoothing=0.3)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert loss != loss_of(BATCH)[0]
  right = np.mean(np.argmax(logits, -1) == BATCH.labels)
  np.testing.assert_allclose(metrics['accuracy'], right, rtol=1e-6)


def test_the_loss_is_of_augmented_images():
  loss, _ = loss_of(BATCH, augment=lambda key, x: x[::-1])
  flipped = BATCH._replace(inputs=BATCH.inputs[::-1])
  assert loss == loss_of(flipped)[0] != loss_of(BATCH)[0]


def stream_of(arrays):
  """Returns the examples of arrays as a stream, in the same order."""

  def train(*, seed, first_step, batch_size, process_index, process_count):
    assert (process_index, process_count) == (0, 1)
    for step in itertools.count(first_step):
      [chosen] = dataset.batch_indices(seed, step, 1, batch_size, 50)
      yield jax.tree.map(lambda x, i=chosen: x[i], arrays.train)

  def evaluate(*, split, batch_size, process_index, process_count):
    examples = getattr(arrays, split)
    num = len(examples.labels)
    for start in range(0, num, batch_size):
      chosen = np.arange(start, start + batch_size)
      part = jax.tree.map(lambda x, i=chosen: x[i % num], examples)
      yield part, (chosen < num).astype(np.float32)

  return dataset.Stream(50, train, evaluate, lambda: 2)


def make_feed(kind, num_devices=1):
  training = base.make_training(
    classification.Training,
    {**small.image()['train'], 'batch_size': BATCH_SIZE,
     'eval_batch_size': 4, 'num_devices': num_devices},
  )  # fmt: skip
  make, _ = classification.FEEDS[kind == 'stream']
  source = ARRAYS if kind == 'arrays' else stream_of(ARRAYS)
  return make(NETWORK, source, training), training


def trained(kind, num_devices=1):
  """Returns the state after 5 steps, their metrics, and test metrics."""
  feed, training = make_feed(kind, num_devices)
  config = small.image(method={'refresh_every': 2})

  def init(key):
    return NETWORK.init(key, jnp.zeros((1, 6, 6, 1)), True)

  task = base.make_task(
    title='',
    loss=classification.make_loss(
      network=NETWORK, augment=None, label_smoothing=0.0
    ),
    method=methods.make_method(
      config['method'], config['powerprop'], config['optimizer'], num_devices
    ),
    training=training,
    init=init,
    batch=classification.batch_shapes((6, 6, 1), training),
    batch_at=classification.FEEDS[kind == 'stream'][1],
    in_loop=kind == 'arrays',
    make_stages=lambda begin: begin,
    example=None,
    check_data=None,
  )
  state = task.stages(SEED, None)
  parts = []
  for inputs, num in feed.batches(SEED, 0, 5):
    state, sums = task.steps.advance(
      state, np.uint32(SEED), KEY, inputs, 0, num, True
    )
    parts.append(sums)
  # Theta of one device, as evaluation replicates it.
  metrics = feed.evaluate(state.params, state.net_state, 'test')
  return jax.device_get((state, storage_lib.add_all(parts), metrics))


@pytest.fixture(scope='module')
def one():
  """Arrays on one device, masked."""
  return trained('arrays')


@pytest.mark.parametrize(
  ('kind', 'num_devices'), [('arrays', 4), ('stream', 1), ('stream', 2)]
)
def test_feeds_and_devices_train_alike(one, kind, num_devices):
  other = trained(kind, num_devices)
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def test_a_stream_is_read_on_from_any_step():
  feed, _ = make_feed('stream')
  whole = list(feed.batches(SEED, 0, 8))
  for first_step, num_steps in ((0, 2), (2, 1), (3, 3), (5, 2), (0, 4)):
    parts = list(feed.batches(SEED, first_step, num_steps))
    assert [num for _, num in parts] == [1] * num_steps
    for (a, _), (b, _) in zip(whole[first_step:], parts, strict=False):
      np.testing.assert_array_equal(a.inputs, b.inputs)
  assert feed.counters() == {'quarantined': 2}


@pytest.mark.parametrize('kind', ['arrays', 'stream'])
def test_evaluation_counts_every_example_once(kind):
  feed, _ = make_feed(kind)
  images, labels = ARRAYS.validation
  metrics = feed.evaluate(WEIGHTS, STATE, 'validation')
  logits, _ = NETWORK.apply(WEIGHTS, STATE, None, images, False)
  accuracy = np.mean(np.argmax(logits, -1) == labels)
  np.testing.assert_allclose(metrics['accuracy'], accuracy, rtol=1e-6)
  loss = -jax.nn.log_softmax(logits)[np.arange(11), labels].mean()
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-6)
