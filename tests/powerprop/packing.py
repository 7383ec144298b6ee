"""Parameters and masks for the tests of packed networks."""

import jax
import jax.numpy as jnp
import numpy as np

from powerprop import packnet
import sparsity

IS_HEAD = sparsity.matching('^logits/')


def draw(seed):
  """Returns parameters; the second layer does not fill its last byte."""
  rng = np.random.default_rng(seed)
  return {
    name: {
      'w': jnp.asarray(rng.normal(size=(i, o)) / i**0.5, jnp.float32),
      'b': jnp.zeros(o),
    }
    for name, i, o in (('hidden', 6, 16), ('hidden_1', 16, 9), ('logits', 9, 3))
  }


def init(params, num_tasks, **options):
  return packnet.init(params, num_tasks=num_tasks, is_head=IS_HEAD, **options)


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
