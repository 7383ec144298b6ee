"""Top-KAST's invariants, and a run with Powerpropagation in NumPy."""

import functools

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


def make_params(seed=0, scale=1.0, dtype=jnp.float32):
  random = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(random.standard_normal(shape) * scale, dtype)

  return {
    'net/linear': {'w': normal(20, 15), 'b': normal(15)},
    'net/linear_1': {'w': normal(15, 10), 'b': normal(10)},
  }


LAYERS = tuple(make_params())


def make_tx(inner=None, **options):
  options = {
    'forward_density': FORWARD,
    'backward_density': BACKWARD,
  } | options
  return topkast.topkast(inner or optax.sgd(0.1), **options)


def make_step(tx):
  """Returns a step towards targets that are different at each step."""

  @jax.jit
  def step(params, state, target):
    weights = topkast.weights(params, state)
    gradients = jax.tree.map(jnp.subtract, weights, target)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  return step


def train(tx, num_steps, params=None):
  """Returns the parameters and sets before each step and after the last."""
  params = params or make_params()
  state = jax.jit(tx.init)(params)
  step = make_step(tx)
  history = [(params, state.sets)]
  for i in range(num_steps):
    params, state = step(params, state, make_params(i + 1, 2.0))
    history.append((params, state.sets))
  return jax.device_get(history)


@functools.cache
def trained(optimizer, refresh_every):
  tx = make_tx(OPTIMIZERS[optimizer](), refresh_every=refresh_every)
  return train(tx, 7)


def is_equal(a, b):
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


each_run = pytest.mark.parametrize(
  ('optimizer', 'refresh_every'), [('adamw', 3), ('powerprop', 1)]
)


@each_run
def test_counts_are_exact_and_a_is_inside_b(optimizer, refresh_every):
  for _, sets in trained(optimizer, refresh_every):
    for layer, size in zip(LAYERS, (300, 150), strict=True):
      forward, backward = (tree[layer]['w'] for tree in sets)
      assert forward.sum() == FORWARD * size
      assert backward.sum() == BACKWARD * size
      assert not (forward & ~backward).any()
      assert sets.forward[layer]['b'].all()


@each_run
def test_sets_change_after_multiples_of_refresh_every_only(
  optimizer, refresh_every
):
  history = trained(optimizer, refresh_every)
  changed = [
    t
    for t in range(1, len(history))
    if not is_equal(history[t][1], history[t - 1][1])
  ]
  assert changed == [t for t in range(1, 8) if t % refresh_every == 0]


@pytest.mark.parametrize(
  ('optimizer', 'dtype'), [('powerprop', jnp.float32), ('adamw', jnp.bfloat16)]
)
def test_refreshed_every_step_a_is_the_top_of_the_next_parameters(
  optimizer, dtype
):
  # Large enough that entries near the threshold differ by a rounding error.
  random = np.random.default_rng(0)
  params, target = (
    {
      'net/linear': {
        'w': jnp.asarray(random.standard_normal((784, 300)), dtype)
      }
    }
    for _ in range(2)
  )
  tx = make_tx(OPTIMIZERS[optimizer]())
  step = make_step(tx)
  state = tx.init(params)
  first = state.sets
  for _ in range(3):
    params, state = step(params, state, target)
    w = np.abs(params['net/linear']['w'])
    for sets, k in zip(state.sets, (23_520, 70_560), strict=True):
      np.testing.assert_array_equal(
        sets['net/linear']['w'], sparsity.topk_mask(w, k)
      )
  assert not is_equal(first, state.sets)


def test_sets_are_constant_after_the_last_refresh():
  stop = 2
  history = train(make_tx(stop_refresh_at=stop), 5)
  for t in range(1, 6):
    assert is_equal(history[t][1], history[t - 1][1]) == (t > stop)


def test_backward_density_one_is_a_dense_backward_pass_of_a_sparse_network():
  tx = make_tx(backward_density=1.0)
  params = make_params()
  state = tx.init(params)
  weights = topkast.weights(params, state)
  gradients = jax.tree.map(jnp.ones_like, params)
  updates, _ = jax.jit(tx.update)(gradients, state, params)
  for layer, k in zip(LAYERS, (30, 15), strict=True):
    assert jnp.count_nonzero(weights[layer]['w']) == k
    np.testing.assert_allclose(updates[layer]['w'], -0.1, rtol=1e-6)


def test_the_network_uses_the_weights_on_a():
  params = make_params()
  state = make_tx().init(params)
  theta = powerprop.to_weights(params, 2.0)
  seen = topkast.weights(theta, state)
  for layer in LAYERS:
    mask = topkast.active_sets(state).forward[layer]['w']
    np.testing.assert_array_equal(
      seen[layer]['w'], np.where(mask, theta[layer]['w'], 0.0)
    )
    np.testing.assert_array_equal(seen[layer]['b'], params[layer]['b'])


def test_weights_without_sets_are_an_error():
  params = make_params()
  with pytest.raises(ValueError, match='one SparseState'):
    topkast.weights(params, optax.adam(0.1).init(params))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'forward_density': 0.0}, r'forward_density in \(0, 1\], got 0\.0'),
    ({'forward_density': 0.4}, r'forward_density=0\.4, backward_density=0\.3'),
    ({'exploration': 'rigl'}, "exploration out of .*'rigl'"),
    ({'distribution': 'erk'}, "distribution out of .*'erk'"),
    ({'scope': 'model'}, "scope out of .*'model'"),
    ({'refresh_every': 0}, 'interval >= 1, got 0'),
    ({'stop_refresh_at': -1}, 'stop >= 0, got -1'),
  ],
)
def test_a_bad_option_is_an_error(options, message):
  with pytest.raises(ValueError, match=message):
    make_tx(**options)


def test_a_selection_of_nothing_is_an_error():
  tx = make_tx(select=lambda *_: False)
  with pytest.raises(ValueError, match=r'selects none of:\n  net/linear/b'):
    tx.init(make_params())


def network(x):
  return hk.nets.MLP([16, 4], activation=jnp.tanh)(x)


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
  net = hk.without_apply_rng(hk.transform(network))
  params = powerprop.from_weights(net.init(jax.random.key(0), x), alpha)
  first = params

  def loss(weights, x, y):
    return 0.5 * jnp.mean(jnp.sum((net.apply(weights, x) - y) ** 2, -1))

  tx = topkast.topkast(
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
