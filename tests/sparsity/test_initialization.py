"""Initial weights of sparse layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity


@pytest.mark.parametrize('name', ['w', 'weight'])
def test_each_neuron_is_scaled_by_the_inputs_that_are_left(name):
  params = {'a': {name: jnp.ones((6, 8)), 'b': jnp.ones(8)}}
  state = sparsity.static(optax.identity(), density=0.25).init(params)
  mask = np.asarray(state.sets.forward['a'][name])
  weights = sparsity.rescale(params, state)['a']
  axis = 0 if name == 'w' else 1  # of the inputs
  left = mask.sum(axis, keepdims=True)
  scale = np.sqrt(mask.shape[axis] / np.maximum(left, 1))
  expected = np.broadcast_to(np.where(left > 0, scale, 1), mask.shape)
  np.testing.assert_allclose(weights[name], expected, rtol=1e-6)
  np.testing.assert_array_equal(weights['b'], 1)


def test_a_layer_is_scaled_by_its_share_and_dense_layers_not_at_all():
  params = {'a': {'w': jnp.ones((4, 4))}, 'b': {'w': jnp.ones((1, 1))}}
  tx = sparsity.static(optax.identity(), density=0.25)
  weights = sparsity.rescale(params, tx.init(params), by='layer')
  np.testing.assert_allclose(weights['a']['w'], 2)
  np.testing.assert_allclose(weights['b']['w'], 1)


def test_an_unknown_scale_is_an_error():
  params = {'a': {'w': jnp.ones((4, 4))}}
  state = sparsity.static(optax.identity(), density=0.25).init(params)
  with pytest.raises(ValueError, match='expected by out of'):
    sparsity.rescale(params, state, by='row')


def test_the_signal_of_a_thin_network_is_that_of_a_dense_one():
  keys = jax.random.split(jax.random.key(0), 4)
  params = {
    f'{i}': {'w': jax.random.normal(key, (256, 256)) / 16}
    for i, key in enumerate(keys)
  }
  state = sparsity.static(optax.identity(), density=0.02).init(params)

  def deviation(weights):
    x = jax.random.normal(jax.random.key(1), (64, 256))
    for layer in sparsity.forward_weights(weights, state).values():
      x = x @ layer['w']
    return float(x.std())

  assert deviation(params) < 1e-3
  assert 0.5 < deviation(sparsity.rescale(params, state)) < 2
