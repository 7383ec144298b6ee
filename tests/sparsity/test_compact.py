"""Compact training is masked training, without what is not active."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from sparsity.compact import layout
import topkast

ALPHA = 2.0
WIDTHS = (13, 24, 5)


def forward(x):
  for width in WIDTHS[1:-1]:
    x = jax.nn.relu(sparsity.modules.Linear(width)(x))
  return sparsity.modules.Linear(WIDTHS[-1], name='last')(x)


NET = hk.without_apply_rng(hk.transform(forward))


def loss(weights, batch):
  inputs, labels = batch
  logits = NET.apply(weights, inputs)
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )


def make_params(seed=0):
  return NET.init(jax.random.key(seed), jnp.zeros((1, WIDTHS[0])))


def make_batches(num, seed=1):
  keys = jax.random.split(jax.random.key(seed), 2 * num)
  teacher = jax.random.normal(jax.random.key(7), (WIDTHS[0], WIDTHS[-1]))
  inputs = [jax.random.normal(key, (9, WIDTHS[0])) for key in keys[:num]]
  return [(x, jnp.argmax(x @ teacher, -1)) for x in inputs]


def plain(weights):
  return weights


def raised(params):
  return powerprop.to_weights(params, ALPHA)


def make_methods():
  penalty = topkast.exploration_penalty(1e-2)
  densities = {'forward_density': 0.2, 'backward_density': 0.4}
  return {
    'topkast': (
      topkast.topkast(optax.adam(1e-2), **densities, refresh_every=7),
      plain,
    ),
    'topkast-penalty-decay': (
      topkast.topkast(
        optax.chain(penalty, optax.adamw(1e-2, mask=_is_matrix)),
        **densities,
        refresh_every=7,
        distribution='erdos_renyi',
      ),
      plain,
    ),
    'topkast-random': (
      topkast.topkast(
        optax.sgd(1e-1, momentum=0.9),
        **densities,
        refresh_every=3,
        exploration='random',
      ),
      plain,
    ),
    'powerprop': (
      topkast.topkast(
        powerprop.powerprop(optax.chain(penalty, optax.adam(1e-2)), ALPHA),
        **densities,
        refresh_every=7,
      ),
      raised,
    ),
    'static': (sparsity.static(optax.adam(1e-2), density=0.3), plain),
    'set': (
      sparsity.set_(optax.adam(1e-2), density=0.3, refresh_every=6),
      plain,
    ),
    'rigl': (
      sparsity.rigl(
        optax.sgd(1e-1, momentum=0.9, nesterov=True),
        density=0.3,
        refresh_every=6,
        stop_refresh_at=90,
        grow_at=0.01,
      ),
      plain,
    ),
  }


def _is_matrix(params):
  return jax.tree.map(lambda x: x.ndim > 1, params)


METHODS = make_methods()


def make_steps(tx, training, see):
  def masked(params, state, batch):
    weights = sparsity.forward_weights(see(params), state)
    value, gradients = jax.value_and_grad(loss)(weights, batch)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  def compact(params, state, batch):
    weights = sparsity.forward_weights(see(params), state)
    value, gradients = sparsity.value_and_grad(loss)(weights, batch)
    updates, state = training.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  def slopes(params, state, batch):
    weights = sparsity.forward_weights(see(params), state)
    return jax.grad(loss)(sparsity.compact.unpack(weights), batch)

  return jax.jit(masked), jax.jit(compact), jax.jit(slopes)


def train_compact(training, steps, carry, batches, first=1):
  """Returns what a training loop does: steps, and refreshes when due."""
  _, step, slopes = steps
  params, state, stored = carry
  losses = []
  for i, batch in enumerate(batches, first):
    due = training.is_due(i)
    if due and training.needs_gradients:
      gradients = slopes(params, state, batch)
      params, state, stored = training.refresh(params, state, stored, gradients)
      continue
    params, state, value = step(params, state, batch)
    losses.append(value)
    if due:
      params, state, stored = training.refresh(params, state, stored)
  return (params, state, stored), np.array(losses)


def train_masked(tx, steps, carry, batches):
  params, state = carry
  losses = []
  for batch in batches:
    params, state, value = steps[0](params, state, batch)
    losses.append(value)
  return (params, state), np.array(losses)


def assert_close(actual, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
    actual,
    expected,
  )


@pytest.mark.parametrize('name', METHODS)
def test_compact_training_is_masked_training_over_refreshes(name):
  tx, see = METHODS[name]
  training = sparsity.compact.compact(tx)
  steps = make_steps(tx, training, see)
  params, batches = make_params(), make_batches(25)
  masked, _ = train_masked(tx, steps, (params, tx.init(params)), batches)
  carry = training.init(params)
  carry, _ = train_compact(training, steps, carry, batches)
  back_params, back_state = training.unpack(*carry)
  tolerance = {'rtol': 1e-4, 'atol': 1e-5}
  if name == 'static':  # what never existed is not kept
    mask = masked[1].sets.backward
    expected = jax.tree.map(lambda m, x: jnp.where(m, x, 0), mask, masked[0])
    masked = expected, masked[1]
  assert jax.tree.structure(back_state) == jax.tree.structure(masked[1])
  assert_close(back_state.sets, masked[1].sets)
  assert_close(back_params, masked[0], **tolerance)
  assert_close(back_state, masked[1], **tolerance)


def test_what_is_outside_of_the_backward_set_stays_bit_for_bit():
  tx, see = METHODS['topkast']
  training = sparsity.compact.compact(tx)
  steps = make_steps(tx, training, see)
  params = make_params()
  carry, _ = train_compact(
    training, steps, training.init(params), make_batches(6)
  )
  back, state = training.unpack(*carry)
  for path, backward in state.sets.backward.items():
    outside = ~backward['w']
    assert outside.any()
    np.testing.assert_array_equal(
      back[path]['w'][outside], params[path]['w'][outside]
    )


@pytest.mark.parametrize('name', ['topkast', 'powerprop', 'rigl'])
def test_a_masked_run_goes_on_as_a_compact_one_and_back(name):
  tx, see = METHODS[name]
  training = sparsity.compact.compact(tx)
  steps = make_steps(tx, training, see)
  params, batches = make_params(), make_batches(30)
  expected, _ = train_masked(tx, steps, (params, tx.init(params)), batches)
  carry, _ = train_masked(tx, steps, (params, tx.init(params)), batches[:10])
  carry = training.pack(*carry)
  carry, _ = train_compact(training, steps, carry, batches[10:20], first=11)
  carry = training.unpack(*carry)
  carry, _ = train_masked(tx, steps, carry, batches[20:])
  assert_close(carry, expected, rtol=1e-4, atol=1e-5)


def test_conversion_to_compact_and_back_changes_nothing():
  tx, see = METHODS['topkast']
  training = sparsity.compact.compact(tx)
  steps = make_steps(tx, training, see)
  params = make_params()
  carry, _ = train_masked(
    tx, steps, (params, tx.init(params)), make_batches(10)
  )
  assert_close(training.unpack(*training.pack(*carry)), carry)


@pytest.mark.parametrize('name', ['topkast', 'rigl'])
def test_a_refresh_under_jit_is_that_on_the_host(name):
  tx, see = METHODS[name]
  training = sparsity.compact.compact(tx)
  steps = make_steps(tx, training, see)
  carry, _ = train_compact(
    training, steps, training.init(make_params()), make_batches(5)
  )
  gradients = None
  if training.needs_gradients:
    gradients = steps[2](*carry[:2], make_batches(1)[0])
  on_host = training.refresh(*carry, gradients)
  before, after = (
    layout.places(entries.structure, entries.shape)
    for entries in (x[1].entries['linear/w'] for x in (carry, on_host))
  )
  assert not np.array_equal(before, after)
  assert_close(jax.jit(training.refresh)(*carry, gradients), on_host)


def test_steps_and_refreshes_do_not_compile_again():
  tx, see = METHODS['topkast']
  training = sparsity.compact.compact(tx)
  steps = make_steps(tx, training, see)
  train_compact(training, steps, training.init(make_params()), make_batches(22))
  assert steps[1]._cache_size() == 1
