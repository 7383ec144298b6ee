import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
from powerprop import reparam

OPTIMIZERS = {
  'sgd': lambda: optax.sgd(0.05),
  'adam': lambda: optax.adam(0.02),
  'adamw': lambda: optax.adamw(0.02, weight_decay=1e-4),
  'chain': lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
  'multi_steps': lambda: optax.MultiSteps(
    optax.sgd(0.05), every_k_schedule=2
  ).gradient_transformation(),
  'inject': lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.02),
}


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


def make_step(tx, alpha):
  def step(params, state):
    weights = powerprop.to_weights(params, alpha)
    value, grads = jax.value_and_grad(loss)(weights, INPUTS)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  return step


def make_plain_step(tx, alpha):
  """Returns a step in which the optimizer gets dL/dphi."""

  def step(params, state):
    value, grads = jax.value_and_grad(
      lambda params: loss(powerprop.to_weights(params, alpha), INPUTS)
    )(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  return step


def run(step, tx, num_steps, start=None):
  current = params() if start is None else start
  state = tx.init(current)
  step = jax.jit(step)
  values = []
  for _ in range(num_steps):
    current, state, value = step(current, state)
    values.append(float(value))
  return current, values


def assert_trees_close(actual, expected, **tolerance):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, **tolerance),
    actual,
    expected,
  )


def difference(first, second):
  return max(
    float(jnp.max(jnp.abs(x - y)))
    for x, y in zip(
      jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    )
  )


def test_with_sgd_both_forms_are_the_same():
  alpha = 1.3
  tx = optax.sgd(0.05)
  wrapped = powerprop.powerprop(tx, alpha)
  start = powerprop.from_weights(params(), alpha)
  actual, _ = run(make_step(wrapped, alpha), wrapped, 5, start)
  expected, _ = run(make_plain_step(tx, alpha), tx, 5, start)
  assert_trees_close(actual, expected, rtol=2e-5, atol=1e-6)
  assert difference(actual, start) > 1e-2


def test_adam_equals_its_updates_times_the_derivative():
  tx, alpha = optax.adam(0.02), 2.5
  wrapped = powerprop.powerprop(tx, alpha)
  actual, _ = run(make_step(wrapped, alpha), wrapped, 4)

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
  assert_trees_close(actual, phi, rtol=1e-5, atol=1e-6)


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


def test_the_inner_optimizer_starts_from_theta():
  inner = optax.GradientTransformation(
    lambda params: params, lambda updates, state, params=None: (updates, state)
  )
  state = powerprop.powerprop(inner, 2).init(params())
  assert_trees_close(state, powerprop.to_weights(params(), 2))


def test_extra_arguments_reach_the_inner_optimizer():
  def update(updates, state, params=None, *, value, **extra_args):
    del params, extra_args
    return jax.tree.map(lambda x: value * x, updates), state

  inner = optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update
  )
  tx = powerprop.powerprop(inner, 1)
  updates, _ = tx.update(params(), tx.init(params()), params(), value=3.0)
  assert_trees_close(updates, jax.tree.map(lambda x: 3 * x, params()))
  plain = powerprop.powerprop(optax.sgd(1.0), 1)
  plain.update(params(), plain.init(params()), params(), value=3.0)


def test_the_link_after_sgd_is_the_wrapper():
  alpha = {'net/linear': 2, 'net/linear_1/w': 1.3}
  link = optax.chain(optax.sgd(0.05), powerprop.scale_by_powerprop(alpha))
  wrapped = powerprop.powerprop(optax.sgd(0.05), alpha)
  first, _ = run(make_step(link, alpha), link, 3)
  second, _ = run(make_step(wrapped, alpha), wrapped, 3)
  assert_trees_close(first, second)


OUTSIDE = {
  'outside multi_steps': lambda: optax.MultiSteps(
    powerprop.powerprop(optax.adam(0.02), 2), every_k_schedule=2
  ).gradient_transformation(),
  'outside inject': lambda: optax.inject_hyperparams(
    lambda learning_rate: powerprop.powerprop(optax.adam(learning_rate), 2)
  )(learning_rate=0.02),
}


@pytest.mark.parametrize('name', [*OPTIMIZERS, *OUTSIDE])
def test_every_optimizer_trains_and_compiles_once(name):
  if name in OUTSIDE:
    tx = OUTSIDE[name]()
  else:
    tx = powerprop.powerprop(OPTIMIZERS[name](), 2)
  start = powerprop.from_weights(params(), 2)
  step = jax.jit(make_step(tx, 2))
  state = tx.init(start)
  current, values = start, []
  for _ in range(60):
    current, state, value = step(current, state)
    values.append(float(value))
  assert step._cache_size() == 1
  assert values[-1] < 0.5 * values[0]


def test_zero_is_a_fixed_point():
  tx = powerprop.powerprop(optax.adam(0.1), 1.5)
  actual, _ = run(make_step(tx, 1.5), tx, 5)
  assert actual['net/linear']['w'][0, 0] == 0


def test_state_maps_over_parameters():
  tx = powerprop.powerprop(optax.adam(0.1), {'net/linear': 2})
  state = optax.tree.map_params(
    tx, lambda x: jnp.ones_like(x), tx.init(params())
  )
  assert_trees_close(state[0].mu, jax.tree.map(jnp.ones_like, params()))
  link = powerprop.scale_by_powerprop(2)
  optax.tree.map_params(link, lambda x: x, link.init(params()))


@pytest.mark.parametrize(
  'tx',
  [powerprop.powerprop(optax.sgd(0.1), 1), powerprop.scale_by_powerprop(2)],
)
def test_missing_params_are_an_error(tx):
  with pytest.raises(ValueError, match='expected params'):
    tx.update(params(), optax.EmptyState())


def test_a_bad_alpha_is_an_error_at_once():
  with pytest.raises(ValueError, match='at least 1'):
    powerprop.powerprop(optax.sgd(0.1), 0.5)
  with pytest.raises(ValueError, match='at least 1'):
    powerprop.scale_by_powerprop({'net/linear': 0.5})


def test_bfloat16_updates_have_the_dtype_of_the_inner_optimizer():
  inner = OPTIMIZERS['adam']()
  tx = powerprop.powerprop(inner, 3)
  dtypes = functools.partial(jax.tree.map, lambda x: x.dtype)
  halves = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params())
  actual, expected = jax.eval_shape(
    lambda params: [
      each.update(params, each.init(params), params)[0] for each in (tx, inner)
    ],
    halves,
  )
  assert dtypes(actual) == dtypes(expected) == dtypes(halves)
