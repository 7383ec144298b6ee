"""Pruning levels against the protocol, and against pruning by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tasks import pruning

PARAMS = {
  'linear_0': {'w': jax.random.normal(jax.random.key(0), (30, 20))},
  'linear_1': {
    'w': jax.random.normal(jax.random.key(1), (20, 10)),
    'b': jnp.ones(10),
  },
}
PROTOCOL = {
  'lowest': 0.01, 'highest': 1.0, 'num_levels': 20,
  'output_layer': 'linear_1/w', 'output_factor': 2.0,
}  # fmt: skip


def make_levels(**changes):
  return pruning.make_levels(PARAMS, **{**PROTOCOL, **changes})


def test_levels_are_those_of_the_protocol():
  levels = make_levels()
  shares = np.geomspace(0.01, 1, 20)
  kept = [int(p * 600) for p in shares]
  kept_output = [int(min(1, 2 * p) * 200) for p in shares]
  np.testing.assert_array_equal(levels.kept['linear_0/w'], kept)
  np.testing.assert_array_equal(levels.kept['linear_1/w'], kept_output)
  even = make_levels(output_layer=None)
  kept_even = [int(p * 200) for p in shares]
  np.testing.assert_array_equal(even.kept['linear_1/w'], kept_even)


def test_a_level_equals_pruning_by_hand():
  levels = make_levels(num_levels=4, lowest=0.1)
  initial = jax.tree.map(lambda x: x[::-1], PARAMS)
  prune = jax.jit(pruning.at_level)
  for i in range(4):
    kept = {path: numbers[i] for path, numbers in levels.kept.items()}
    pruned, metrics = prune(PARAMS, initial, kept)
    total, both, count = 10.0, 0, 0  # the biases are not pruned
    for layer in ('linear_0', 'linear_1'):
      k = levels.kept[f'{layer}/w'][i]
      now, before = (
        set(np.argsort(-np.abs(np.ravel(tree[layer]['w'])))[:k])
        for tree in (PARAMS, initial)
      )
      total += sum(np.ravel(PARAMS[layer]['w'])[j] ** 2 for j in now)
      both, count = both + len(now & before), count + k
    found = sum(jnp.sum(x**2) for x in jax.tree.leaves(pruned))
    np.testing.assert_allclose(found, total, rtol=1e-5)
    np.testing.assert_allclose(metrics['overlap'], both / count, rtol=1e-6)
    np.testing.assert_allclose(metrics['density'], count / 800, rtol=1e-6)
