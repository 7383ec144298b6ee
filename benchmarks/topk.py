"""Top-k masks by counting, by `jax.lax.top_k` and by `jnp.sort`.

  python -m benchmarks.topk [--quick] [--record=DIR]

The ratio is to counting, which is ours. All masks are checked to be equal, on
scores with ties too. `forward and backward` is a Top-KAST refresh: the masks of
two densities from one search.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from sparsity import topk

SHAPES = {(784, 300): 100, (4096, 4096): 3}
DENSITY = 0.1


def by_top_k(x, k):
  _, indices = jax.lax.top_k(jnp.abs(x).ravel(), k)
  return jnp.zeros(x.size, bool).at[indices].set(True).reshape(x.shape)


def by_sort(x, k):
  scores = jnp.abs(x)
  threshold = jnp.sort(scores.ravel())[x.size - k]
  above = scores > threshold
  tied = scores == threshold
  place = jnp.cumsum(tied.ravel(), dtype=jnp.int32).reshape(x.shape)
  return above | (tied & (place <= k - jnp.sum(above, dtype=jnp.int32)))


METHODS = {
  'counting': lambda x, k: topk.topk_mask(x, k, magnitude=True),
  'forward and backward': lambda x, k: topk.nested_topk_masks(
    x, [k, 2 * k], magnitude=True
  ),
  'lax.top_k': by_top_k,
  'jnp.sort': by_sort,
}


def main():
  given, figures = record.start('topk', __doc__)
  for shape, rounds in SHAPES.items():
    size = math.prod(shape)
    if given.quick and size > 1e6:
      continue
    k = topk.num_kept(DENSITY, size)
    functions = {
      name: jax.jit(functools.partial(method, k=k))
      for name, method in METHODS.items()
    }
    x = jax.random.normal(jax.random.key(0), shape)
    for scores in (jnp.round(x * 4), x):
      expected = np.asarray(functions['lax.top_k'](scores))
      for name, function in functions.items():
        found = function(scores)
        found = found[0] if isinstance(found, tuple) else found
        assert np.array_equal(found, expected), f'{name} gives another mask'
    figures.compare(
      {name: functools.partial(fn, x) for name, fn in functions.items()},
      rounds,
      'counting',
      f'{"x".join(map(str, shape))}, ',
    )
  figures.write(given.record)


if __name__ == '__main__':
  main()
