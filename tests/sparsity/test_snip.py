import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from tests import oracles

SHAPES = {
  'layer_0': {'w': (6, 5), 'b': (5,)},
  'layer_1': {'w': (5, 4), 'b': (4,)},
}


def weights():
  return oracles.normal(SHAPES, 0)


def batches(n):
  return [oracles.normal([(8, 6), (8, 4)], 20 + i) for i in range(n)]


def loss(weights, batch):
  x, y = batch
  for layer in weights.values():
    x = jnp.tanh(x @ layer['w'] + layer['b'][None])
  return jnp.mean((x - y) ** 2)


def numerical(batch_list, layer, index):
  """Returns |dL / dc| of one weight at c = 1, by finite differences."""
  with jax.enable_x64(True):
    tree = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), weights())

    def mean_loss(c):
      w = tree[layer]['w'].at[index].multiply(c)
      changed = tree | {layer: tree[layer] | {'w': w}}
      return np.mean([float(loss(changed, batch)) for batch in batch_list])

    return abs(mean_loss(1 + 1e-5) - mean_loss(1 - 1e-5)) / 2e-5


def test_saliency_is_the_derivative_by_a_factor_of_the_weight():
  scores = sparsity.saliency(loss, weights(), iter(batches(2)))
  for layer, index in [('layer_0', (5, 4)), ('layer_1', (2, 3))]:
    np.testing.assert_allclose(
      scores[layer]['w'][index], numerical(batches(2), layer, index), rtol=1e-3
    )


def masks_of(state):
  oracles.assert_same(*state.sets)
  return [state.sets.forward[f'layer_{i}']['w'] for i in range(2)]


@pytest.mark.parametrize('scope', ['global', 'layer'])
def test_the_most_salient_are_kept_and_trained(scope):
  scores = sparsity.saliency(loss, weights(), batches(2))
  tx = sparsity.snip(optax.adam(0.1), scores=scores, density=0.3, scope=scope)
  found = [scores[f'layer_{i}']['w'] for i in range(2)]
  expected = (
    oracles.largest_over(found, 15)
    if scope == 'global'
    else [oracles.largest(found[0], 9), oracles.largest(found[1], 6)]
  )
  params = weights()
  state = tx.init(params)
  step = jax.jit(tx.update)
  for _ in range(3):
    updates, state = step(weights(), state, params)
    for mask, right, i in zip(masks_of(state), expected, range(2), strict=True):
      np.testing.assert_array_equal(mask, right)
      np.testing.assert_array_equal(updates[f'layer_{i}']['w'] != 0, right)


def test_scores_that_do_not_fit_are_an_error_that_names_the_layer():
  scores = weights()
  tx = sparsity.snip(optax.sgd(0.1), scores=scores, density=0.5)
  scores['layer_1']['w'] = jnp.ones((2, 2))
  with pytest.raises(
    ValueError, match=r'shape \(5, 4\) for layer_1/w, got \(2, 2\)'
  ):
    tx.init(weights())
  with pytest.raises(ValueError, match='at least one batch'):
    sparsity.saliency(loss, weights(), [])
  del scores['layer_1']
  with pytest.raises(ValueError, match=r'for layer_1/w, got none'):
    tx.init(weights())
