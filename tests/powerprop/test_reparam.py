import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from powerprop import reparam
from sparsity import select

ALPHAS = (1, 1.0625, 1.3, 1.375, 1.5, 2, 2.5, 3, 3.7, 4, 5, 9.9)
HARD = (1, 1.3, 1.5, 2, 3.7)  # for derivatives, which are slow to compile


def floats(seed=0, shape=(64, 33)):
  x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  exponents = np.linspace(-6, 1, x.size).astype(np.float32).reshape(shape)
  return x * np.float32(10.0) ** exponents


def params():
  return {
    'net/linear': {'w': jnp.asarray(floats(1, (4, 3))), 'b': jnp.ones(3)},
    'net/linear_1': {'w': jnp.asarray(floats(2, (3, 2))), 'b': jnp.ones(2)},
  }


def assert_within_ulps(actual, exact, ulps):
  error = np.abs(np.asarray(actual, np.float64) - exact)
  unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
  normal = np.abs(exact) > 1e-36
  assert np.max(error[normal] / unit[normal]) <= ulps


@pytest.mark.parametrize('alpha', ALPHAS)
def test_both_directions_are_signed_powers_to_a_few_ulps(alpha):
  x = floats()
  exact = np.sign(x) * np.abs(x.astype(np.float64)) ** alpha
  theta = jax.jit(reparam.to_weights, static_argnums=1)(x, alpha)
  assert_within_ulps(theta, exact, max(6, alpha))
  exact = np.sign(x) * np.abs(x.astype(np.float64)) ** (1 / alpha)
  phi = reparam.from_weights(x, alpha)
  assert_within_ulps(phi, exact, max(6, alpha))
  again = reparam.to_weights(phi, alpha)
  np.testing.assert_allclose(again, x, rtol=1e-6 * alpha)


@pytest.mark.parametrize('alpha', ALPHAS)
def test_reverse_and_forward_mode_are_the_formula_of_the_paper(alpha):
  phi = floats()
  exact = alpha * np.abs(phi.astype(np.float64)) ** (alpha - 1)
  theta, pullback = jax.vjp(lambda x: reparam.to_weights(x, alpha), phi)
  assert_within_ulps(pullback(jnp.ones_like(theta))[0], exact, max(6, alpha))
  _, forward = jax.jvp(
    lambda x: reparam.to_weights(x, alpha), (phi,), (np.ones_like(phi),)
  )
  assert_within_ulps(forward, exact, max(6, alpha))
  np.testing.assert_array_equal(theta, reparam.to_weights(phi, alpha))
  assert jnp.isnan(reparam.to_weights(jnp.array(jnp.nan), alpha))


@pytest.mark.parametrize('alpha', HARD)
def test_value_and_derivatives_are_finite_at_zero(alpha):
  @jax.jit
  @jax.vmap
  def derivatives(x):
    fns = [lambda x: reparam.to_weights(x, alpha)]
    for _ in range(3):
      fns.append(jax.grad(fns[-1]))
    return [fn(x) for fn in fns]

  value, first, second, third = derivatives(jnp.array([0.0, -0.0]))
  np.testing.assert_array_equal(value, 0)
  np.testing.assert_array_equal(first, 1 if alpha == 1 else 0)
  np.testing.assert_array_equal(second, 0)
  assert jnp.all(jnp.isfinite(third))


@pytest.mark.parametrize('alpha', HARD)
def test_second_derivative_is_that_of_the_power(alpha):
  def fn(x):
    return reparam.to_weights(x, alpha)

  x = np.array([-1.7, 0.3], np.float32)
  expected = alpha * (alpha - 1) * np.sign(x) * np.abs(x) ** (alpha - 2)
  for second in (jax.grad(jax.grad(fn)), jax.jacfwd(jax.jacrev(fn))):
    np.testing.assert_allclose(
      jax.jit(jax.vmap(second))(x), expected, rtol=1e-5
    )


def test_alpha_one_returns_the_very_same_arrays():
  tree = params()
  for fn in (reparam.to_weights, reparam.from_weights):
    assert fn(tree, 1)['net/linear']['w'] is tree['net/linear']['w']
    assert fn(optax.MaskedNode(), 2) == optax.MaskedNode()


def test_only_selected_leaves_change():
  weights = reparam.to_weights(params(), 2)
  for module, leaves in params().items():
    np.testing.assert_array_equal(weights[module]['b'], leaves['b'])
    np.testing.assert_allclose(
      weights[module]['w'], leaves['w'] * jnp.abs(leaves['w']), rtol=1e-6
    )
  biases = reparam.to_weights(params(), 2, select.matching('/b$'))
  np.testing.assert_array_equal(
    biases['net/linear']['w'], params()['net/linear']['w']
  )


def test_alpha_by_layer_is_by_path_then_module_then_one():
  tree = params()
  tree['net/linear_2'] = {'w': 2 * jnp.ones((2, 2))}
  weights = reparam.to_weights(
    tree, {'net/linear/w': 2, 'net/linear': 5, 'net/linear_1': 3}
  )
  for module, alpha in (('linear', 2), ('linear_1', 3), ('linear_2', 1)):
    path = f'net/{module}'
    np.testing.assert_array_equal(
      weights[path]['w'], reparam.to_weights(tree[path]['w'], alpha)
    )
  again = reparam.from_weights(weights, {'net/linear': 2, 'net/linear_1': 3})
  np.testing.assert_allclose(
    again['net/linear']['w'], tree['net/linear']['w'], rtol=1e-5
  )


@pytest.mark.parametrize(
  ('tree', 'alpha', 'message'),
  [
    *(
      (params(), alpha, re.escape(f'{alpha!r}'))
      for alpha in (0.5, -2, float('nan'), float('inf'), '2', None)
    ),
    (params(), {'net/linear': 0.5}, "0.5 for 'net/linear'"),
    *(
      (params(), {key: 2.0}, r'net/linear/w\n  net/linear_1/w')
      for key in ('net/linear_9', 'net/linear/b', 'net', '')
    ),
    (jnp.ones(3), jnp.array(2.0), 'static'),
    (jnp.ones(3), {'a': 2}, 'alpha for one array'),
    (jnp.arange(3), 2, 'int32 of shape'),
  ],
)
def test_a_bad_alpha_or_parameter_is_named(tree, alpha, message):
  for fn in (reparam.to_weights, reparam.from_weights):
    with pytest.raises(ValueError, match=message):
      fn(tree, alpha)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize('alpha', [1.5, 4])
def test_sixteen_bits_are_rounded_once(dtype, alpha):
  phi = jnp.asarray([-1.3, 0.02, 0.3, 2.1], dtype)
  exact = reparam.to_weights(phi.astype(jnp.float32), alpha)
  assert reparam.to_weights(phi, alpha).dtype == dtype
  np.testing.assert_array_equal(
    reparam.to_weights(phi, alpha), exact.astype(dtype)
  )
  gradient = jax.jit(jax.vmap(jax.grad(lambda x: reparam.to_weights(x, alpha))))
  np.testing.assert_array_equal(
    gradient(phi), gradient(phi.astype(jnp.float32)).astype(dtype)
  )
  assert reparam.from_weights(phi, alpha).dtype == dtype


def test_the_power_is_computed_once_in_a_step():
  """Counts the square roots of the compiled step: three for 2.375."""

  def step(phi, x):
    grads = jax.grad(lambda theta: jnp.sum((x @ theta) ** 2))(
      reparam.to_weights(phi, 2.375)
    )
    return phi - reparam.scale_by_derivative(grads, phi, 2.375)

  text = jax.jit(step).lower(jnp.ones((64, 64)), jnp.ones((8, 64)))
  assert len(re.findall(r' sqrt\(', text.compile().as_text())) == 3
