"""The exploration penalty against its formula, entry by entry."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
from tests import oracles
import topkast

COEFFICIENT = 0.3
DENSITY = 0.25


def make_params():
  shapes = {'linear': {'w': (4, 8), 'b': (8,)}, 'embed': {'w': (3, 4)}}
  return oracles.normal(shapes, 0)


def make_tx(inner, **options):
  return topkast.topkast(
    inner, forward_density=DENSITY, backward_density=0.5, **options
  )


def oracle(weight, forward, backward, kind):
  """Returns the gradient of the penalty, by the formula."""
  slope = weight if kind == 'l2' else np.sign(weight)
  outside_a = np.where(backward, COEFFICIENT * slope / DENSITY, 0)
  return np.where(forward, COEFFICIENT * slope, outside_a)


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


@pytest.mark.parametrize('inside', [True, False])
def test_inside_powerprop_it_acts_on_theta_outside_on_phi(inside):
  link, alpha = topkast.exploration_penalty(COEFFICIENT), 2.0
  outside = optax.chain(powerprop.scale_by_powerprop(alpha), link)
  tx = make_tx(powerprop.powerprop(link, alpha) if inside else outside)
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


def test_a_selected_layer_that_is_dense_is_all_a_and_the_dtype_is_kept():
  params = make_params() | {'dense': {'w': jnp.full((1, 2), 3, jnp.bfloat16)}}
  tx = make_tx(topkast.exploration_penalty(COEFFICIENT), dense=('dense',))
  gradients = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
  assert updates['dense']['w'].dtype == jnp.bfloat16
  np.testing.assert_allclose(updates['dense']['w'], 3 * COEFFICIENT, rtol=1e-2)


def test_missing_sets_are_an_error():
  tx, params = topkast.exploration_penalty(COEFFICIENT), make_params()
  with pytest.raises(ValueError, match=r'optimizer that topkast\.topkast'):
    tx.update(params, tx.init(params), params)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((0.1, 'l3'), r"kind out of \('l2', 'l1'\), got 'l3'"),
    ((-0.1,), r'coefficient >= 0, got -0\.1'),
  ],
)
def test_a_bad_option_is_an_error(arguments, message):
  with pytest.raises(ValueError, match=message):
    topkast.exploration_penalty(*arguments)
