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


@pytest.mark.parametrize('kind', ['l2', 'l1'])
def test_the_strength_is_one_in_a_more_in_b_and_zero_outside(kind):
  tx = make_tx(topkast.exploration_penalty(COEFFICIENT, kind))
  params = make_params()
  state = tx.init(params)
  gradients = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(tx.update)(gradients, state, params)
  np.testing.assert_allclose(
    updates['linear']['w'],
    oracle(np.asarray(params['linear']['w']), *sets_of(state), kind),
    rtol=1e-6,
  )
  assert not updates['linear']['b'].any()
  assert not updates['embed']['w'].any()


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


def test_it_is_added_to_the_gradient():
  tx = make_tx(topkast.exploration_penalty(COEFFICIENT))
  params = make_params()
  state = tx.init(params)
  gradients = jax.tree.map(jnp.ones_like, params)
  updates, _ = tx.update(gradients, state, params)
  forward, backward = sets_of(state)
  penalty = oracle(np.asarray(params['linear']['w']), forward, backward, 'l2')
  np.testing.assert_allclose(
    updates['linear']['w'], backward * (1 + penalty), rtol=1e-6
  )
  np.testing.assert_array_equal(updates['linear']['b'], 1.0)


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
  updates, _ = tx.update(gradients, state, phi)
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
  updates, _ = tx.update(gradients, tx.init(params), params)
  np.testing.assert_allclose(updates['dense']['w'], 3 * COEFFICIENT, rtol=1e-6)


def test_the_dtype_of_gradients_is_kept():
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_params())
  tx = make_tx(topkast.exploration_penalty(COEFFICIENT))
  updates, _ = tx.update(params, tx.init(params), params)
  assert updates['linear']['w'].dtype == jnp.bfloat16


def test_a_coefficient_of_zero_changes_nothing():
  params = make_params()
  tx = optax.chain(topkast.exploration_penalty(0.0))
  wrapped = make_tx(tx)
  updates, _ = wrapped.update(params, wrapped.init(params), params)
  plain = make_tx(optax.identity())
  expected, _ = plain.update(params, plain.init(params), params)
  jax.tree.map(np.testing.assert_array_equal, updates, expected)


def test_without_sets_it_is_an_error_that_says_what_to_do():
  tx = topkast.exploration_penalty(COEFFICIENT)
  params = make_params()
  with pytest.raises(ValueError, match=r'optimizer that topkast\.topkast'):
    tx.update(params, tx.init(params), params)


def test_without_parameters_it_is_an_error():
  params = make_params()
  state = make_tx(optax.identity()).init(params)
  with pytest.raises(ValueError, match='expected parameters, got None'):
    topkast.exploration_penalty(COEFFICIENT).update(
      params, (), None, active_sets=state.sets, forward_densities={}
    )


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
