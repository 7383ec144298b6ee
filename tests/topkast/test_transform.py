"""Top-KAST's invariants, and a run with Powerpropagation in NumPy."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from tests import oracles
import topkast

OPTIMIZERS = {
  'adamw': lambda: optax.adamw(0.05, weight_decay=0.1),
  'powerprop': lambda: powerprop.powerprop(optax.sgd(0.02, 0.9), 2.0),
}
FORWARD, BACKWARD = 0.1, 0.3


SHAPES = {
  'net/linear': {'w': (20, 15), 'b': (15,)},
  'net/linear_1': {'w': (15, 10), 'b': (10,)},
}


def make_params(seed=0, scale=1.0):
  return jax.tree.map(lambda x: scale * x, oracles.normal(SHAPES, seed))


def make_tx(inner=None, **options):
  options = {'forward_density': FORWARD, 'backward_density': BACKWARD} | options
  return topkast.topkast(inner or optax.sgd(0.1), **options)


def is_equal(a, b):
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize(
  ('optimizer', 'dtype'), [('powerprop', jnp.float32), ('adamw', jnp.bfloat16)]
)
def test_refreshed_every_step_a_is_the_top_of_the_next_parameters(
  optimizer, dtype
):
  # Large enough that entries near the threshold differ by a rounding error.
  arrays = oracles.normal((2, 784, 300), 0, dtype)
  params, target = ({'net/linear': {'w': x}} for x in arrays)
  tx = make_tx(OPTIMIZERS[optimizer]())
  step = jax.jit(oracles.make_step(tx, target))
  state = tx.init(params)
  first = state.sets
  for _ in range(3):
    params, state = step(params, state)
    w = np.abs(params['net/linear']['w'])
    for sets, k in zip(state.sets, (23_520, 70_560), strict=True):
      np.testing.assert_array_equal(
        sets['net/linear']['w'], sparsity.topk_mask(w, k)
      )
  assert not is_equal(first, state.sets)


def by_hand(phi, x, y, alpha, learning_rate, num_steps, refresh_every):
  """Trains the network in float64 with NumPy."""
  phi = [{k: np.asarray(v, np.float64) for k, v in p.items()} for p in phi]
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)

  def top(w, density):
    return oracles.largest(w, round(density * w.size))

  losses = []
  for t in range(num_steps):
    if t % refresh_every == 0:
      forward = [top(p['w'], 0.25) for p in phi]
      backward = [top(p['w'], 0.5) for p in phi]
    theta = [p['w'] * np.abs(p['w']) ** (alpha - 1) for p in phi]
    a, b = (w * mask for w, mask in zip(theta, forward, strict=True))
    h = np.tanh(x @ a + phi[0]['b'])
    out = h @ b + phi[1]['b']
    losses.append(0.5 * np.mean(np.sum((out - y) ** 2, -1)))
    d_out = (out - y) / len(x)
    d_h = (d_out @ b.T) * (1 - h**2)
    slopes = [(x.T @ d_h, d_h.sum(0)), (h.T @ d_out, d_out.sum(0))]
    for p, mask, (d_w, d_b) in zip(phi, backward, slopes, strict=True):
      p['w'] -= (
        learning_rate * mask * d_w * alpha * np.abs(p['w']) ** (alpha - 1)
      )
      p['b'] -= learning_rate * d_b
  return phi, losses


def test_training_with_powerprop_equals_numpy():
  alpha, learning_rate, num_steps, refresh_every = 2.0, 0.2, 40, 4
  random = np.random.default_rng(0)
  x = jnp.asarray(random.standard_normal((32, 8)), jnp.float32)
  y = jnp.asarray(np.sin(x[:, :4] * 2), jnp.float32)
  net = hk.without_apply_rng(
    hk.transform(lambda x: hk.nets.MLP([16, 4], activation=jnp.tanh)(x))
  )
  params = powerprop.from_weights(net.init(jax.random.key(0), x), alpha)
  first = params

  def loss(weights, x, y):
    return 0.5 * jnp.mean(jnp.sum((net.apply(weights, x) - y) ** 2, -1))

  tx = make_tx(
    powerprop.powerprop(optax.sgd(learning_rate), alpha),
    forward_density=0.25,
    backward_density=0.5,
    refresh_every=refresh_every,
  )
  state = tx.init(params)

  @jax.jit
  def step(params, state):
    weights = topkast.weights(powerprop.to_weights(params, alpha), state)
    value, gradients = jax.value_and_grad(loss)(weights, x, y)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  losses = []
  for _ in range(num_steps):
    params, state, value = step(params, state)
    losses.append(float(value))

  expected, expected_losses = by_hand(
    list(first.values()), x, y, alpha, learning_rate, num_steps, refresh_every
  )
  assert losses[-1] < 0.7 * losses[0]
  np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
  for found, wanted in zip(params.values(), expected, strict=True):
    for name in ('w', 'b'):
      np.testing.assert_allclose(
        found[name], wanted[name], rtol=1e-4, atol=1e-5
      )
