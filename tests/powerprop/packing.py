"""Parameters and masks for the tests of packed networks."""

import jax
import jax.numpy as jnp
import numpy as np

import sparsity

IS_HEAD = sparsity.matching('^logits/')


def draw(seed):
  """Returns parameters; the second layer does not fill its last byte."""
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32)

  return {
    'hidden': {'w': normal(6, 16), 'b': jnp.zeros(16)},
    'hidden_1': {'w': normal(16, 9), 'b': jnp.zeros(9)},
    'logits': {'w': normal(9, 3), 'b': jnp.zeros(3)},
  }


def bits(tree):
  return jax.tree.map(lambda x: np.asarray(x).view(np.uint32), tree)


def assert_same_bits(a, b):
  jax.tree.map(np.testing.assert_array_equal, bits(a), bits(b))


def rounded(seed):
  """Returns parameters with many ties."""
  return jax.tree.map(lambda x: jnp.round(x * 5) / 5, draw(seed))


def random_masks(state, seed, density=0.3):
  rng = np.random.default_rng(seed)
  return {
    path: jnp.asarray(rng.random(owner.shape) < density)
    for path, owner in state.owner.items()
  }
