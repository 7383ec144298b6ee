"""The step: micro-batches, and figures over steps."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common import classification
from experiments.common import step as step_lib

NETWORK = hk.transform_with_state(lambda x, is_training: hk.nets.MLP([8, 3])(x))
BATCH = step_lib.Batch(
  jax.random.normal(jax.random.key(0), (12, 5)),
  jnp.arange(12, dtype=jnp.int32) % 3,
)


def make_recipe(num_micro=1, smoothing=0.0, augment=None):
  return step_lib.Recipe(
    init=lambda key: NETWORK.init(key, BATCH.inputs, True),
    objective=classification.make_objective(
      network=NETWORK, augment=augment, label_smoothing=smoothing
    ),
    to_weights=lambda phi: phi,
    from_weights=lambda theta: theta,
    see=lambda weights, _: weights,
    density=lambda *_: jnp.ones([]),
    masks=lambda *_: None,
    optimizer=optax.with_extra_args_support(optax.adam(0.1)),
    num_micro=num_micro,
  )


def take_steps(recipe, num=3):
  state = step_lib.init_state(recipe, jax.random.key(1))
  for _ in range(num):
    state, metrics = jax.jit(
      lambda state: step_lib.train_step(recipe, state, BATCH, jax.random.key(2))
    )(state)
  return state, metrics


@pytest.mark.parametrize('num_micro', [2, 3, 12])
def test_micro_batches_equal_the_whole_batch(num_micro):
  whole, parts = take_steps(make_recipe()), take_steps(make_recipe(num_micro))
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_micro_batches_hold_each_example_once():
  parts = step_lib.split_batch(jnp.arange(12), 3)
  assert parts.shape == (3, 4)
  assert sorted(np.ravel(parts)) == list(range(12))


def test_smoothed_labels_are_mixed_with_even_ones():
  recipe = make_recipe(smoothing=0.3)
  weights, state = recipe.init(jax.random.key(1))
  logits, _ = NETWORK.apply(weights, state, None, BATCH.inputs, True)
  targets = 0.7 * jax.nn.one_hot(BATCH.labels, 3) + 0.1
  expected = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), -1))
  loss, _ = recipe.objective(weights, state, jax.random.key(0), BATCH, True)
  plain, _ = recipe.objective(weights, state, jax.random.key(0), BATCH, False)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert loss != plain


def test_inputs_are_augmented_in_training_only():
  recipe = make_recipe(augment=lambda key, x: jnp.zeros_like(x))
  weights, state = recipe.init(jax.random.key(1))
  zeros = BATCH._replace(inputs=jnp.zeros_like(BATCH.inputs))
  key = jax.random.key(0)
  trained, _ = recipe.objective(weights, state, key, BATCH, True)
  tested, _ = recipe.objective(weights, state, key, BATCH, False)
  expected, _ = recipe.objective(weights, state, key, zeros, False)
  assert trained == expected != tested


def test_totals_leave_padding_out():
  weights, state = make_recipe().init(jax.random.key(1))
  counts = jnp.array([1.0] * 7 + [0.0] * 5)
  sums = classification.totals(NETWORK, weights, state, BATCH, counts)
  part = jax.tree.map(lambda x: x[:7], BATCH)
  logits, _ = NETWORK.apply(weights, state, None, part.inputs, False)
  means = classification.means(sums)
  np.testing.assert_allclose(
    means['loss'], classification.cross_entropy(logits, part.labels), rtol=1e-6
  )
  np.testing.assert_allclose(
    means['accuracy'], classification.accuracy(logits, part.labels), rtol=1e-6
  )


def test_the_change_of_masks_is_what_has_left_them():
  rng = np.random.default_rng(0)
  before, after = (
    {'linear': {'w': rng.random((9, 7)) < 0.4, 'b': rng.random(7) < share}}
    for share in (0.2, 0.9)
  )
  recipe = make_recipe()._replace(masks=lambda _, masks: masks)
  state = step_lib.init_state(recipe, jax.random.key(1))
  state = state._replace(opt_state=after)
  losses = {'loss': jnp.ones(4)}
  found = step_lib.summarize(recipe, state, losses, before)
  a, b = before['linear']['w'], after['linear']['w']
  expected = np.sum(a & ~b) / np.sum(a)  # of weights; no bias is counted
  assert 0 < expected < 1
  np.testing.assert_allclose(found['mask_change'], expected, rtol=1e-6)
  assert 'mask_change' not in step_lib.summarize(recipe, state, losses)


def test_parameters_that_are_not_finite_make_the_loss_nan():
  recipe = make_recipe()
  state = step_lib.init_state(recipe, jax.random.key(1))
  bad = state._replace(
    params=jax.tree.map(lambda x: x.at[0].set(jnp.inf), state.params)
  )
  losses = {'loss': jnp.ones(4)}
  assert step_lib.summarize(recipe, state, losses)['loss'] == 1
  assert np.isnan(step_lib.summarize(recipe, bad, losses)['loss'])
