"""Adam with a count for each entry, warm-up and scale of what enters."""

import jax
import numpy as np
import optax
import pytest

import sparsity
from sparsity import compact
from sparsity.compact import packing
import topkast

RATE = 0.1
PARAMS = {'a': {'w': jax.random.normal(jax.random.key(0), (8, 16))}}


def gradients_at(i):
  key = jax.random.key(100 + i)
  return jax.tree.map(lambda x: jax.random.normal(key, x.shape), PARAMS)


def run(tx, num_updates, params=PARAMS):
  """Yields the state before, the updates and the state after each update."""
  state, update = tx.init(params), jax.jit(tx.update)
  for i in range(num_updates):
    before = state
    updates, state = update(gradients_at(i), state, params)
    yield before, updates['a']['w'], state
    params = optax.apply_updates(params, updates)


def test_without_a_method_it_is_optax_adam():
  ours = run(sparsity.adamw(RATE), 300)
  theirs = run(optax.adamw(RATE), 300)
  for (_, x, _), (_, y, _) in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize('method', ['set', 'rigl', 'topkast'])
def test_each_entry_is_updated_as_by_an_adam_that_begins_when_it_enters(method):
  inner = sparsity.adam(RATE)
  tx = {
    'set': lambda: sparsity.set_(inner, density=0.3, refresh_every=4),
    'rigl': lambda: sparsity.rigl(
      inner, density=0.3, refresh_every=4, stop_refresh_at=1000
    ),
    'topkast': lambda: topkast.topkast(
      inner, forward_density=0.2, backward_density=0.4, refresh_every=3
    ),
  }[method]()
  shape = PARAMS['a']['w'].shape
  mu, nu, steps = np.zeros(shape), np.zeros(shape), np.zeros(shape, int)
  num_entered = 0
  for i, (before, updates, after) in enumerate(run(tx, 40)):
    inside = np.asarray(before.sets.backward['a']['w'])
    stays = np.asarray(after.sets.backward['a']['w']) & inside
    if method == 'rigl' and (i + 1) % 4 == 0:  # no step
      steps[~stays] = 0
      continue
    g = np.asarray(gradients_at(i)['a']['w'], np.float64)
    fresh = inside & (steps == 0)
    mu[fresh], nu[fresh] = 0, 0
    num_entered += fresh.sum() if i else 0
    steps[inside] += 1
    mu = np.where(inside, 0.9 * mu + 0.1 * g, mu)
    nu = np.where(inside, 0.999 * nu + 0.001 * g * g, nu)
    n = np.maximum(steps, 1)
    expected = mu / (1 - 0.9**n) / (np.sqrt(nu / (1 - 0.999**n)) + 1e-8)
    np.testing.assert_allclose(
      updates[stays], -RATE * expected[stays], rtol=1e-3, atol=1e-6
    )
    assert np.abs(updates[fresh & stays]).max(initial=0) <= RATE * 1.0001
    steps[~stays] = 0
  assert num_entered > 20


def test_entering_entries_are_warmed_up():
  options = dict(forward_density=0.2, backward_density=0.4, refresh_every=5)
  tx = topkast.topkast(optax.sgd(RATE), warmup_entering=4, **options)
  age = np.zeros(PARAMS['a']['w'].shape, int)
  for i, (before, updates, after) in enumerate(run(tx, 30)):
    inside = np.asarray(before.sets.backward['a']['w'])
    age[inside] += 1
    plain = -RATE * np.asarray(gradients_at(i)['a']['w'])
    expected = np.where(inside, plain * np.minimum(age / 4, 1), 0)
    np.testing.assert_allclose(updates, expected, rtol=1e-5)
    age[~(inside & np.asarray(after.sets.backward['a']['w']))] = 0


def test_b_without_a_has_its_own_scale():
  options = dict(forward_density=0.2, backward_density=0.4)
  tx = topkast.topkast(optax.sgd(RATE), explore_scale=0.25, **options)
  for i, (before, updates, _) in enumerate(run(tx, 5)):
    a, b = (np.asarray(masks['a']['w']) for masks in before.sets)
    scale = np.where(a, 1, np.where(b, 0.25, 0))
    plain = -RATE * np.asarray(gradients_at(i)['a']['w'])
    np.testing.assert_allclose(updates, scale * plain, rtol=1e-6)


@pytest.mark.parametrize(
  'options', [{'warmup_entering': 256}, {'explore_scale': 1.5}], ids=str
)
def test_a_bad_scale_is_an_error(options):
  with pytest.raises(ValueError, match='expected ' + next(iter(options))):
    topkast.topkast(
      optax.sgd(RATE), forward_density=0.2, backward_density=0.4, **options
    )


def test_compact_training_counts_alike():
  tx = topkast.topkast(
    sparsity.adam(RATE),
    forward_density=0.2,
    backward_density=0.4,
    refresh_every=3,
    warmup_entering=5,
    explore_scale=0.5,
  )
  training = compact.compact(tx)
  params, state, host = training.init(PARAMS)
  update = jax.jit(training.update)
  for i, (_, _, after) in enumerate(run(tx, 12)):
    dense = gradients_at(i)['a']['w']
    gradients = {'a': {'w': packing.row_of(dense, state.entries['a/w'])}}
    updates, state = update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    if training.is_due(i + 1):
      params, state, host = training.refresh(params, state, host)
    _, masked = training.unpack(params, state, host)
    for x, y in zip(
      jax.tree.leaves((masked.sets, masked.inner)),
      jax.tree.leaves((after.sets, after.inner)),
      strict=True,
    ):
      np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7)
