"""The loss against formulas; examples from arrays or a stream train alike."""

import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import dataset
from experiments.data import table as data_table
from experiments.models import table as model_table
from experiments.tasks import classification
import sparsity
from tests import oracles
from tests.experiments import small

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


@pytest.fixture(scope='module', autouse=True)
def tables():
  """Adds the network, and its data as arrays and as a stream."""

  def source_of(data, is_stream):
    source = dataset.Source((6, 6, 1), 3, None, is_stream, lambda: data)
    return lambda: source

  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(model_table.MODELS, 'own', lambda *, num_classes: NETWORK)
    for name, data in (('arrays', ARRAYS), ('stream', stream_of(ARRAYS))):
      source = source_of(data, name == 'stream')
      patch.setitem(data_table.SOURCES, name, source)
    yield


def trained(folder, kind, num_devices=1):
  """Returns a run of 5 steps."""
  train = {
    'batch_size': 8, 'eval_batch_size': 4, 'num_devices': num_devices,
    'num_steps': 5, 'log_every': 5, 'eval_every': 5,
  }  # fmt: skip
  prune = {'output_layer': None}
  config = small.image(method={'refresh_every': 2}, train=train, prune=prune)
  return small.train(
    config | {'data': {'name': kind}, 'model': {'name': 'own'}}, folder
  )


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """Arrays on one device."""
  return trained(tmp_path_factory.mktemp('one'), 'arrays')


@pytest.mark.parametrize(
  ('kind', 'num_devices'), [('arrays', 4), ('stream', 1), ('stream', 2)]
)
def test_feeds_and_devices_train_alike(one, kind, num_devices, tmp_path):
  other = trained(tmp_path, kind, num_devices)
  oracles.assert_close(other.state, one.state, 2e-5, 2e-6)
  for row, expected in zip(other.rows, one.rows, strict=True):
    for name in row.keys() & {'loss', 'accuracy', 'mask_change'}:
      assert row[name] == pytest.approx(expected[name], rel=1e-4)


def test_evaluation_counts_every_example_once(one):
  method, state = one.task.objective.method, one.state
  weights = method.forward_weights(
    method.to_weights(state.params), state.opt_state
  )
  rows = {row['split']: row for row in one.rows}
  for split in ('validation', 'test'):
    images, labels = getattr(ARRAYS, split)
    logits, _ = NETWORK.apply(weights, state.net_state, None, images, False)
    accuracy = float(np.mean(np.argmax(logits, -1) == labels))
    assert rows[split]['accuracy'] == pytest.approx(accuracy, rel=1e-6)
    loss = -jax.nn.log_softmax(logits)[np.arange(len(labels)), labels].mean()
    assert rows[split]['loss'] == pytest.approx(float(loss), rel=1e-5)
