"""The step: micro-batches, and figures over steps."""

import functools

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


def make_recipe(num_micro=1, smoothing=0.0, augment=None, skips=False):
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
    skips=skips,
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


def broken(where):
  """A batch with one number that is not finite."""
  return BATCH._replace(inputs=BATCH.inputs.at[3, 2].set(where))


@pytest.mark.parametrize('where', [jnp.nan, jnp.inf])
def test_a_step_that_is_not_finite_changes_nothing_if_skipped(where):
  recipe = make_recipe(skips=True)
  state, _ = take_steps(recipe, 2)
  step = jax.jit(functools.partial(step_lib.train_step, recipe))
  after, metrics = step(state, broken(where), jax.random.key(2))
  assert metrics == {'loss': 0, 'accuracy': 0, 'skipped': 1}
  assert after.step == state.step + 1
  same = after._replace(step=state.step)
  jax.tree.map(np.testing.assert_array_equal, same, state)


@pytest.mark.parametrize('skips', [False, True])
def test_a_measured_step_gives_gradients_and_leaves_the_parameters(skips):
  recipe = make_recipe(skips=skips)
  state, _ = take_steps(recipe, 2)
  key = jax.random.key(2)
  after, metrics, gradients = step_lib.measure_step(recipe, state, BATCH, key)
  expected, made, _ = step_lib.compute_gradients(
    recipe, state.params, state.net_state, BATCH, key
  )
  assert metrics == {**made, **({'skipped': 0} if skips else {})}
  jax.tree.map(np.testing.assert_array_equal, gradients, expected)
  assert after.step == state.step + 1
  same = after._replace(step=state.step)
  jax.tree.map(np.testing.assert_array_equal, same, state)


def test_nothing_grows_by_a_measured_gradient_that_is_not_finite():
  # A network state that a skipped step must not keep.
  def objective(weights, net_state, key, batch, is_training):
    loss, (metrics, _) = make_recipe().objective(
      weights, {}, key, batch, is_training
    )
    return loss, (metrics, {'seen': net_state['seen'] + 1})

  recipe = make_recipe(skips=True)._replace(objective=objective)
  state, _ = take_steps(make_recipe(), 2)
  state = state._replace(net_state={'seen': jnp.float32(2)})
  key = jax.random.key(2)
  fine, _, _ = step_lib.measure_step(recipe, state, BATCH, key)
  assert fine.net_state['seen'] == 3
  after, metrics, gradients = step_lib.measure_step(
    recipe, state, broken(jnp.nan), key
  )
  assert metrics == {'loss': 0, 'accuracy': 0, 'skipped': 1}
  assert not any(jnp.any(x) for x in jax.tree.leaves(gradients))
  assert after.net_state['seen'] == 2
  assert after.step == state.step + 1


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is():
  def objective(weights, net_state, *_):
    roots = [jnp.sum(jnp.sqrt(0 * x)) for x in jax.tree.leaves(weights)]
    return sum(roots), ({}, net_state)

  recipe = make_recipe(skips=True)._replace(objective=objective)
  state = step_lib.init_state(recipe, jax.random.key(1))
  after, metrics = step_lib.train_step(recipe, state, BATCH, None)
  assert metrics == {'loss': 0, 'skipped': 1}
  jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_steps_that_are_finite_are_the_same_whether_others_are_skipped():
  plain, _ = take_steps(make_recipe())
  skipping, metrics = take_steps(make_recipe(skips=True))
  assert metrics['skipped'] == 0
  jax.tree.map(np.testing.assert_array_equal, plain, skipping)


def test_figures_are_means_over_the_steps_that_were_made():
  recipe = make_recipe(skips=True)
  state = step_lib.init_state(recipe, jax.random.key(1))
  figures = step_lib.summarize(
    recipe,
    state,
    {'loss': jnp.array([3.0, 0.0, 5.0]), 'skipped': jnp.array([0.0, 1.0, 0.0])},
  )
  np.testing.assert_allclose(figures['loss'], 4, rtol=1e-6)
  np.testing.assert_allclose(figures['skipped'], 1 / 3, rtol=1e-6)
  none = {'loss': jnp.zeros(3), 'skipped': jnp.ones(3)}
  assert np.isnan(step_lib.summarize(recipe, state, none)['loss'])


def test_what_to_do_with_what_is_not_finite_is_one_of_two():
  assert step_lib.is_skipping('skip')
  assert not step_lib.is_skipping('stop')
  with pytest.raises(ValueError, match=r"on_not_finite: .* got 'go on'"):
    step_lib.is_skipping('go on')
