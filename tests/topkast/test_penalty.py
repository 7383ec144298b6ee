"""The exploration penalty against its formula, entry by entry."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import topkast

COEFFICIENT = 0.3
DENSITY = 0.25


def make_params():
  random = np.random.default_rng(0)
  return {
    'linear': {
      'w': jnp.asarray(random.standard_normal((4, 8)), jnp.float32),
      'b': jnp.asarray(random.standard_normal(8), jnp.float32),
    },
    'embed': {'w': jnp.asarray(random.standard_normal((3, 4)), jnp.float32)},
  }


def make_tx(inner):
  return topkast.topkast(inner, forward_density=DENSITY, backward_density=0.5)


def oracle(weight, forward, backward, kind):
  """Returns the gradient of the penalty, by the formula."""
  gradient = np.zeros(weight.shape)
  for index, w in np.ndenumerate(weight):
    slope = w if kind == 'l2' else np.sign(w)
    if forward[index]:
      gradient[index] = COEFFICIENT * slope
    elif backward[index]:
      gradient[index] = COEFFICIENT * slope / DENSITY
  return gradient


def sets_of(state):
  return [np.asarray(tree['linear']['w']) for tree in state.sets]


@pytest.mark.parametrize(('kind', 'slope'), [('l2', 0.0), ('l1', 1.0)])
def test_the_strength_is_one_on_a_more_on_b_and_zero_outside(kind, slope):
  tx = make_tx(topkast.exploration_penalty(COEFFICIENT, kind))
  params = make_params()
  state = tx.init(params)
  gradients = jax.tree.map(lambda x: jnp.full_like(x, slope), params)
  updates, _ = jax.jit(tx.update)(gradients, state, params)
  forward, backward = sets_of(state)
  penalty = oracle(np.asarray(params['linear']['w']), forward, backward, kind)
  np.testing.assert_allclose(
    updates['linear']['w'], backward * (slope + penalty), rtol=1e-6
  )
  np.testing.assert_array_equal(updates['linear']['b'], slope)
  np.testing.assert_array_equal(updates['embed']['w'], slope)


def test_by_itself_it_adds_nothing_outside_b():
  params = make_params()
  sets = make_tx(optax.identity()).init(params).sets
  gradients = jax.tree.map(jnp.ones_like, params)
  updates, _ = topkast.exploration_penalty(COEFFICIENT).update(
    gradients,
    optax.EmptyState(),
    params,
    active_sets=sets,
    forward_densities={'linear/w': DENSITY},
  )
  outside = ~sets.backward['linear']['w']
  np.testing.assert_array_equal(updates['linear']['w'][outside], 1.0)


@pytest.mark.parametrize('inside', [True, False])
def test_inside_powerprop_it_acts_on_theta_outside_on_phi(inside):
  link, alpha = topkast.exploration_penalty(COEFFICIENT), 2.0
  inner = (
    powerprop.powerprop(link, alpha)
    if inside
    else optax.chain(powerprop.scale_by_powerprop(alpha), link)
  )
  tx = make_tx(inner)
  phi = make_params()
  state = tx.init(phi)
  gradients = jax.tree.map(jnp.zeros_like, phi)
  updates, _ = jax.jit(tx.update)(gradients, state, phi)
  w = np.asarray(phi['linear']['w'])
  if inside:
    theta = w * np.abs(w)
    expected = oracle(theta, *sets_of(state), 'l2') * alpha * np.abs(w)
  else:
    expected = oracle(w, *sets_of(state), 'l2')
  np.testing.assert_allclose(
    updates['linear']['w'], expected, rtol=1e-5, atol=1e-7
  )


def test_a_selected_layer_that_is_dense_is_all_a():
  params = make_params()
  params['dense'] = {'w': jnp.full((1, 2), 3.0)}
  tx = topkast.topkast(
    topkast.exploration_penalty(COEFFICIENT),
    forward_density=0.25,
    backward_density=0.5,
    dense=('dense',),
  )
  gradients = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
  np.testing.assert_allclose(updates['dense']['w'], 3 * COEFFICIENT, rtol=1e-6)


def test_the_dtype_of_gradients_is_kept():
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_params())
  tx = make_tx(topkast.exploration_penalty(COEFFICIENT))
  updates, _ = jax.eval_shape(
    lambda: tx.update(params, tx.init(params), params)
  )
  assert updates['linear']['w'].dtype == jnp.bfloat16


def test_missing_sets_or_parameters_are_an_error():
  tx, params = topkast.exploration_penalty(COEFFICIENT), make_params()
  with pytest.raises(ValueError, match=r'optimizer that topkast\.topkast'):
    tx.update(params, tx.init(params), params)
  with pytest.raises(ValueError, match='expected parameters, got None'):
    tx.update(params, (), None, active_sets=(), forward_densities={})


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((0.1, 'l3'), r"kind out of \('l2', 'l1'\), got 'l3'"),
    ((-0.1,), r'coefficient >= 0, got -0\.1'),
    ((float('nan'),), 'coefficient >= 0, got nan'),
  ],
)
def test_a_bad_option_is_an_error(arguments, message):
  with pytest.raises(ValueError, match=message):
    topkast.exploration_penalty(*arguments)
