"""The step: micro-batches, steps that are not finite, and rows of metrics."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from experiments import methods
from experiments import step as step_lib
from experiments.tasks import classification
from tests import oracles
from tests.experiments import small

NETWORK = hk.transform_with_state(lambda x, is_training: hk.nets.MLP([8, 3])(x))
BATCH = classification.Batch(
  jax.random.normal(jax.random.key(0), (12, 5)),
  jnp.arange(12, dtype=jnp.int32) % 3,
)
CONFIG = small.image('dense')
METHOD = methods.make_method(
  CONFIG['method'], CONFIG['powerprop'], CONFIG['optimizer'], 1
)
KEY = jax.random.key(2)
LOSS = classification.make_loss(
  network=NETWORK, augment=None, label_smoothing=0.0
)


def make(skip=False, loss=LOSS, method=METHOD):
  return step_lib.Objective(loss, method, 1, skip)


def first_state():
  return methods.init_state(
    METHOD, lambda key: NETWORK.init(key, BATCH.inputs, True), 1
  )


def test_the_change_of_masks_is_the_share_that_left_them():
  rng = np.random.default_rng(0)
  before, after = (
    {'linear': {'w': rng.random((9, 7)) < 0.4, 'b': rng.random(7) < share}}
    for share in (0.2, 0.9)
  )
  method = METHOD._replace(masks=lambda params, masks: masks)
  params = jax.tree.map(jnp.zeros_like, after)
  state = first_state()._replace(params=params, opt_state=after)
  summarize = functools.partial(
    step_lib.summarize, make(method=method), state, {'loss': jnp.ones([])}
  )
  a, b = before['linear']['w'], after['linear']['w']
  expected = np.sum(a & ~b) / np.sum(a)  # of weights; no bias is counted
  assert 0 < expected < 1
  found = summarize(before)
  np.testing.assert_allclose(found['mask_change'], expected, rtol=1e-6)
  assert found['density'] == 1  # of the dense method
  assert 'mask_change' not in summarize(None)


def test_steps_in_one_dispatch_equal_steps_one_by_one():
  found = []
  for in_loop in (True, False):
    steps = step_lib.compile_steps(
      make(),
      lambda inputs, i: jax.tree.map(lambda x: x[i], inputs),
      state := first_state(),
      jax.tree.leaves(state)[0].sharding,
      in_loop=in_loop,
    )
    batches = jax.tree.map(lambda x: x.reshape(4, 3, *x.shape[1:]), BATCH)
    found.append(steps.advance(state, 1, KEY, batches, 1, 4, True))
  oracles.assert_close(*found)


def broken(value):
  """A batch with one number that is not finite."""
  return BATCH._replace(inputs=BATCH.inputs.at[3, 2].set(value))


def test_a_skipped_step_changes_nothing():
  step = jax.jit(functools.partial(step_lib.train_step, make(skip=True)))
  state, _ = step(first_state(), 1, KEY, BATCH)
  after, metrics = step(state, 1, KEY, broken(jnp.inf))
  assert metrics == {'loss': 0, 'accuracy': 0, 'skipped': 1}
  assert after.step == state.step + 1
  oracles.assert_same(after._replace(step=state.step), state)


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is_finite():
  def loss(weights, net_state, *_):
    roots = [jnp.sum(jnp.sqrt(0 * x)) for x in jax.tree.leaves(weights)]
    return sum(roots), ({}, net_state)

  state = first_state()
  after, metrics = step_lib.train_step(
    make(skip=True, loss=loss), state, 1, KEY, BATCH
  )
  assert metrics == {'loss': 0, 'skipped': 1}
  oracles.assert_same(after.params, state.params)


def test_nothing_grows_by_a_measured_gradient_that_is_not_finite():
  def loss(weights, net_state, key, batch, is_training):
    loss, (metrics, _) = LOSS(weights, {}, key, batch, is_training)
    return loss, (metrics, {'seen': net_state['seen'] + 1})

  objective = make(skip=True, loss=loss)
  state = first_state()._replace(net_state={'seen': jnp.float32(2)})
  fine, _, _ = step_lib.measure_step(objective, state, KEY, BATCH)
  assert fine.net_state['seen'] == 3
  after, metrics, gradients = step_lib.measure_step(
    objective, state, KEY, broken(jnp.nan)
  )
  assert metrics == {'loss': 0, 'accuracy': 0, 'skipped': 1}
  assert not any(jnp.any(x) for x in jax.tree.leaves(gradients))
  assert after.net_state['seen'] == 2  # a skipped step does not keep it
  assert after.step == state.step + 1


def test_metrics_are_means_over_the_steps_that_were_not_skipped():
  objective, state = make(skip=True), first_state()
  means = {'loss': jnp.float32(8 / 3), 'skipped': jnp.float32(1 / 3)}
  row = step_lib.summarize(objective, state, means, None)
  np.testing.assert_allclose(row['loss'], 4, rtol=1e-6)
  np.testing.assert_allclose(row['skipped'], 1 / 3, rtol=1e-6)
  none = {'loss': jnp.zeros([]), 'skipped': jnp.ones([])}
  assert np.isnan(step_lib.summarize(objective, state, none, None)['loss'])
