"""HAM against a slow reference, alone and inside sparse methods."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from tests import oracles
import topkast

SHAPES = {'a': {'w': (12, 8), 'b': (8,)}, 'embed': {'w': (4, 3)}}
PARAMS = oracles.normal(SHAPES, 0)
TARGET = oracles.normal(SHAPES, 1)
A, B, RATES = 20.0, 0.5, (0.05, 0.2, 0.1, 0.02)
METHODS = {
  'static': functools.partial(sparsity.static, density=0.5),
  'topkast': functools.partial(
    topkast.topkast,
    forward_density=0.25,
    backward_density=0.5,
    refresh_every=3,
    stop_refresh_at=9,
  ),
  'rigl': functools.partial(
    sparsity.rigl, density=0.5, refresh_every=3, stop_refresh_at=9
  ),
}


def schedule(step):
  return jnp.array(RATES)[step % 4]


def slow_step(w, trace, gradient, rate):
  """Returns weights and momentum after SGD's step and HAM's."""
  trace = 0.9 * trace + gradient
  w = w - rate * trace
  factors = [
    math.exp(max(-5, min(5, -rate * (A * np.sign(x) * g + B))))
    for x, g in zip(w.ravel(), gradient.ravel(), strict=True)
  ]
  return w * np.reshape(factors, w.shape), trace


def test_each_step_is_that_of_the_optimizer_and_then_the_multiplicative_one():
  params = jax.tree.map(lambda x: x.at[0].set(0.0), PARAMS)
  random = np.random.default_rng(0)
  gradients = [
    jax.tree.map(
      # Some are large enough for the clipped exponent; the first row is zero.
      lambda x: jnp.asarray(
        random.choice([0.1, 5.0], x.shape) * random.standard_normal(x.shape),
        jnp.float32,
      ).at[0].set(0.0),
      PARAMS,
    )
    for _ in range(6)
  ]  # fmt: skip
  tx = powerprop.ham(optax.sgd(schedule, momentum=0.9), schedule, A, B)
  found = oracles.train(tx, params, gradients)
  w, trace = np.float64(params['a']['w']), 0
  for i, (gradient, (after, _)) in enumerate(
    zip(gradients, found[1:], strict=True)
  ):
    rate = RATES[i % 4]
    w, trace = slow_step(w, trace, np.float64(gradient['a']['w']), rate)
    np.testing.assert_allclose(after['a']['w'], w, rtol=1e-4, atol=1e-6)
    assert not np.any(after['a']['w'][0])
  plain = oracles.train(optax.sgd(schedule, 0.9), params, gradients)
  for path in (('a', 'b'), ('embed', 'w')):
    new, old = (x[-1][0][path[0]][path[1]] for x in (found, plain))
    np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize('name', METHODS)
def test_updates_stay_on_b_and_training_converges_in_one_program(name):
  inner = powerprop.ham(optax.sgd(0.05, momentum=0.5), 0.05, a=2.0)
  tx = METHODS[name](inner)
  step = jax.jit(oracles.make_step(tx, TARGET))
  params, state = PARAMS, tx.init(PARAMS)
  for _ in range(100):
    old, was = params, state
    params, state = step(params, state)
    inside = was.sets.backward['a']['w'] | state.sets.backward['a']['w']
    before, after = (x['a']['w'][~inside] for x in (old, params))
    assert before.tobytes() == after.tobytes()
  assert step._cache_size() == 1
  found, start, target = (x['a']['w'] for x in (params, PARAMS, TARGET))
  forward = state.sets.forward['a']['w']
  left = np.abs(found - target)[forward].mean()
  assert left < 0.05 * np.abs(start - target)[forward].mean()


def test_small_steps_follow_the_gradient_times_one_plus_a_theta():
  rate, a = 1e-6, 200.0
  w, gradient = PARAMS['a']['w'], TARGET['a']['w']
  tx = powerprop.ham(optax.sgd(rate), rate, a, b=0.0)
  updates, _ = tx.update(gradient, tx.init(w), w)
  np.testing.assert_allclose(
    updates, -rate * (1 + a * np.abs(w)) * gradient, rtol=1e-3
  )


def test_updates_keep_the_dtype_of_the_optimizer():
  params = {'w': jnp.ones((2, 2), jnp.bfloat16)}
  tx = powerprop.ham(optax.sgd(0.1), 0.1)
  updates, state = tx.update(params, tx.init(params), params)
  assert updates['w'].dtype == jnp.bfloat16
  # Weights of 0.9 and an exponent of -20.
  np.testing.assert_allclose(
    np.float32(updates['w']), 0.9 * math.exp(-5) - 1, rtol=1e-2
  )
  assert int(state.count) == 1


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'a': -1.0}, 'a >= 0, got -1'),
    ({'a': float('inf')}, 'finite a .* got inf'),
    ({'b': float('nan')}, 'finite b .* got nan'),
  ],
)
def test_a_bad_strength_is_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    powerprop.ham(optax.sgd(0.1), 0.1, **options)


def test_an_update_without_parameters_is_an_error():
  tx = powerprop.ham(optax.identity(), 0.1)
  with pytest.raises(ValueError, match='expected params, got None'):
    tx.update(PARAMS, tx.init(PARAMS))
