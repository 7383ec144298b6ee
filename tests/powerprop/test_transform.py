import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
from powerprop import reparam
from tests import oracles


def params():
  rng = np.random.default_rng(0)
  w, w_1 = rng.normal(size=(5, 4)), rng.normal(size=(4, 1))
  w[0, 0] = 0.0
  return {
    'net/linear': {'w': jnp.asarray(w, jnp.float32), 'b': jnp.ones(4)},
    'net/linear_1': {'w': jnp.asarray(w_1, jnp.float32), 'b': jnp.ones(1)},
  }


def loss(weights, inputs):
  hidden = inputs @ weights['net/linear']['w']
  hidden = jnp.tanh(hidden + weights['net/linear']['b'][None])
  outputs = hidden @ weights['net/linear_1']['w']
  outputs = outputs + weights['net/linear_1']['b'][None]
  return jnp.mean((outputs - jnp.sum(inputs, 1, keepdims=True)) ** 2)


INPUTS = np.random.default_rng(1).normal(size=(32, 5)).astype(np.float32)


def make_step(tx, alpha, gets_phi=False):
  """Returns a compiled step; with `gets_phi` the optimizer gets dL/dphi."""

  @jax.jit
  def step(params, state):
    weights, pullback = jax.vjp(
      lambda params: powerprop.to_weights(params, alpha), params
    )
    value, grads = jax.value_and_grad(loss)(weights, INPUTS)
    if gets_phi:
      [grads] = pullback(grads)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  return step


def run(tx, alpha, num_steps, start=None, **options):
  """Returns the parameters and the losses."""
  current = params() if start is None else start
  state = tx.init(current)
  step = make_step(tx, alpha, **options)
  values = []
  for _ in range(num_steps):
    current, state, value = step(current, state)
    values.append(float(value))
  assert step._cache_size() == 1
  return current, values


def test_with_sgd_both_forms_are_the_same():
  tx, alpha = optax.sgd(0.05), 1.3
  start = powerprop.from_weights(params(), alpha)
  found, _ = run(powerprop.powerprop(tx, alpha), alpha, 5, start)
  expected, _ = run(tx, alpha, 5, start, gets_phi=True)
  oracles.assert_close(found, expected, rtol=2e-5)
  w, old = (tree['net/linear']['w'] for tree in (found, start))
  assert jnp.max(jnp.abs(w - old)) > 1e-2


def test_adam_equals_its_updates_times_the_derivative():
  tx, alpha = optax.adam(0.02), 2.5
  actual, _ = run(powerprop.powerprop(tx, alpha), alpha, 4)

  gradient, update = jax.jit(jax.grad(loss)), jax.jit(tx.update)
  phi = params()
  state = tx.init(phi)
  for _ in range(4):
    theta = reparam.to_weights(phi, alpha)
    updates, state = update(gradient(theta, INPUTS), state)
    for module in phi:
      w = phi[module]['w']
      phi[module] = {
        'w': w + updates[module]['w'] * alpha * jnp.abs(w) ** (alpha - 1),
        'b': phi[module]['b'] + updates[module]['b'],
      }
  oracles.assert_close(actual, phi)
  assert actual['net/linear']['w'][0, 0] == 0  # a fixed point


def test_weight_decay_acts_on_theta():
  zeros = jax.tree.map(jnp.zeros_like, params())
  tx = powerprop.powerprop(optax.add_decayed_weights(0.1), 3)
  updates, _ = tx.update(zeros, tx.init(params()), params())
  w = params()['net/linear']['w']
  np.testing.assert_allclose(
    updates['net/linear']['w'], 0.1 * w**3 * 3 * w**2, rtol=1e-5
  )
  link = optax.chain(
    optax.add_decayed_weights(0.1), powerprop.scale_by_powerprop(3)
  )
  updates, _ = link.update(zeros, link.init(params()), params())
  np.testing.assert_allclose(
    updates['net/linear']['w'], 0.1 * w * 3 * w**2, rtol=1e-5
  )


def test_the_inner_optimizer_starts_from_theta_and_gets_extra_arguments():
  def update(updates, state, params=None, *, value, **extra_args):
    del params, extra_args
    return jax.tree.map(lambda x: value * x, updates), state

  inner = optax.GradientTransformationExtraArgs(lambda params: params, update)
  state = powerprop.powerprop(inner, 2).init(params())
  oracles.assert_close(state, powerprop.to_weights(params(), 2))
  tx = powerprop.powerprop(inner, 1)
  updates, _ = tx.update(params(), tx.init(params()), params(), value=3.0)
  oracles.assert_close(updates, jax.tree.map(lambda x: 3 * x, params()))
  plain = powerprop.powerprop(optax.sgd(1.0), 1)
  plain.update(params(), plain.init(params()), params(), value=3.0)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: powerprop.powerprop(optax.sgd(0.1), 0.5), 'at least 1'),
    (
      lambda: powerprop.powerprop(optax.sgd(0.1), 1).update(params(), ()),
      'expected params',
    ),
    (
      lambda: powerprop.scale_by_powerprop(2).update(params(), ()),
      'expected params',
    ),
  ],
)
def test_a_bad_alpha_or_missing_params_are_an_error(make, message):
  with pytest.raises(ValueError, match=message):
    make()
