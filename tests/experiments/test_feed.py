"""Examples reach the step alike, from arrays or a stream, on any devices."""

import itertools

import haiku as hk
import jax
import numpy as np
import optax
import pytest

from experiments import members
from experiments.common import classification
from experiments.common import distributed
from experiments.common import feed as feed_lib
from experiments.common import methods
from experiments.data import dataset
from experiments.data import order
import sparsity

BATCH_SIZE = 8
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


ARRAYS = dataset.Arrays(
  make_examples(50), make_examples(11), make_examples(13), 3, None
)


def stream_of(arrays):
  """Returns the examples of arrays as a stream, in the same order."""

  def train(*, seed, first_step, batch_size, process_index, process_count):
    assert (process_index, process_count) == (0, 1)
    step = first_step
    while True:
      [chosen] = order.batch_indices(seed, step, 1, batch_size, 50)
      yield jax.tree.map(lambda x, i=chosen: x[i], arrays.train)
      step += 1

  def evaluate(*, split, batch_size, process_index, process_count):
    examples = getattr(arrays, split)
    num = len(examples.labels)
    for start in range(0, num, batch_size):
      chosen = np.arange(start, start + batch_size)
      part = jax.tree.map(lambda x, i=chosen: x[i % num], examples)
      yield part, (chosen < num).astype(np.float32)

  count = itertools.count(0, 2)  # two more are skipped at each look
  return dataset.Stream(
    50, 3, (6, 6, 1), train, evaluate, lambda: 1, lambda: next(count)
  )


def make(make_feed, source, num_devices=1, num_micro=1, storage='masked'):
  mesh = distributed.make_mesh(num_devices)
  recipe = members.make_recipe(
    lambda key: NETWORK.init(key, ARRAYS.train.inputs[:1], True),
    classification.make_objective(
      network=NETWORK, augment=None, label_smoothing=0.0
    ),
    methods.METHODS['topkast'](
      forward_density=0.3, backward_density=0.5, refresh_every=2,
      stop_refresh_at=None, distribution='uniform', scope='layer', dense=(),
      exclude=(), exploration='topk', penalty=1e-3, penalty_kind='l2',
      storage=storage,
    ),
    optax.sgd(0.1, 0.9),
    alpha=2.0,
    optimizer_in='theta',
    num_micro=num_micro,
  )  # fmt: skip

  def totals(weights, net_state, batch, counts):
    return classification.totals(NETWORK, weights, net_state, batch, counts)

  feed = make_feed(
    source,
    feed_lib.Steps(recipe, totals, classification.means),
    feed_lib.Shape(BATCH_SIZE, 4, mesh),
  )
  state = jax.jit(
    lambda: jax.tree.map(lambda x: x[None], members.init_state(recipe, 3)),
    out_shardings=distributed.replicated(mesh),
  )()
  return feed, state, feed_lib.of_members(recipe(3).storage)


def trained(make_feed, source, chunks=((0, 5),), **options):
  feed, state, storage = make(make_feed, source, **options)
  state = storage.pack(state)
  for first_step, num_steps in chunks:
    state, metrics = feed.train(state, (3,), first_step, num_steps)
  state = storage.unpack(state)
  params = jax.tree.map(lambda x: np.asarray(x), state.params)
  figures = feed.evaluate(params, state.net_state, 'test')
  return jax.device_get((state, metrics, figures))


def assert_close(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def test_a_stream_trains_as_arrays_do():
  one = trained(feed_lib.from_arrays, ARRAYS)
  state, metrics, figures = trained(feed_lib.from_stream, stream_of(ARRAYS))
  assert metrics.pop('quarantined') == [2]
  assert_close(one, (state, metrics, figures))


def test_a_stream_is_read_on_from_any_step():
  stream = stream_of(ARRAYS)
  whole = trained(feed_lib.from_stream, stream, ((0, 6),))[0]
  parts = trained(feed_lib.from_stream, stream, ((0, 2), (2, 1), (3, 3)))[0]
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('make_feed', ['arrays', 'stream'])
@pytest.mark.parametrize('num_devices', [2, 4])
def test_several_devices_equal_one(make_feed, num_devices):
  make_feed, source = {
    'arrays': (feed_lib.from_arrays, ARRAYS),
    'stream': (feed_lib.from_stream, stream_of(ARRAYS)),
  }[make_feed]
  one = trained(make_feed, source)
  many = trained(make_feed, source, num_devices=num_devices)
  assert_close(one, many)  # with a batch norm, and the sets


@pytest.mark.parametrize('options', [{'num_micro': 2}, {'num_devices': 2}])
@pytest.mark.parametrize('make_feed', ['arrays', 'stream'])
def test_compact_weights_train_as_masked_ones(make_feed, options):
  make_feed, source = {
    'arrays': (feed_lib.from_arrays, ARRAYS),
    'stream': (feed_lib.from_stream, stream_of(ARRAYS)),
  }[make_feed]
  masked = trained(make_feed, source, **options)
  compact = trained(make_feed, source, storage='compact', **options)
  assert jax.tree.structure(masked) == jax.tree.structure(compact)
  assert_close(masked, compact)


def test_each_device_computes_a_share_of_the_batch():
  feed, state, _ = make(feed_lib.from_arrays, ARRAYS, num_devices=4)
  state, _ = feed.train(state, (3,), 0, 1)
  for x in jax.tree.leaves(state):
    assert x.sharding.is_fully_replicated
    assert len(x.sharding.device_set) == 4


def test_evaluation_counts_every_example_once():
  feed, state, _ = make(feed_lib.from_arrays, ARRAYS)
  figures = feed.evaluate(state.params, state.net_state, 'validation')
  params, net_state = jax.tree.map(lambda x: x[0], state[1:3])
  logits, _ = NETWORK.apply(
    params, net_state, None, ARRAYS.validation.inputs, False
  )
  expected = classification.accuracy(logits, ARRAYS.validation.labels)
  np.testing.assert_allclose(figures['accuracy'], [expected], rtol=1e-6)


def test_first_batches_are_those_of_training():
  arrays_feed, *_ = make(feed_lib.from_arrays, ARRAYS)
  stream_feed, *_ = make(feed_lib.from_stream, stream_of(ARRAYS))
  one, other = (feed.first_batches((3,), 2) for feed in (
    arrays_feed, stream_feed,
  ))  # fmt: skip
  assert one.labels.shape == (1, 2, BATCH_SIZE)
  np.testing.assert_array_equal(one.inputs, other.inputs)


@pytest.mark.parametrize(
  ('num_devices', 'batch_size', 'num_micro', 'message'),
  [
    (3, 8, 1, r'multiple of 3 \(3 device\(s\) times 1 micro'),
    (4, 8, 3, 'multiple of 12'),
  ],
)
def test_a_batch_that_cannot_be_divided_is_refused(
  num_devices, batch_size, num_micro, message
):
  mesh = distributed.make_mesh(num_devices)
  with pytest.raises(ValueError, match=message):
    distributed.check_batch_size(batch_size, mesh, num_micro)


def test_more_devices_than_there_are_is_refused():
  with pytest.raises(ValueError, match=r'num_devices from 1 to 4.*got 5'):
    distributed.make_mesh(5)
