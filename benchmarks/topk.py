"""Top-k masks by counting, by `jax.lax.top_k` and by `jnp.sort`.

  python -m benchmarks.topk [--quick] [--record=DIR]

Prints the median time of each method and its multiple of ours. All masks are
checked to be equal, on scores with ties too. `forward and backward` is a
Top-KAST refresh: the masks of two densities from one search.
"""

import argparse
import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from benchmarks import timing
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


def by_counting(x, k):
  return topk.topk_mask(x, k, magnitude=True)


def forward_and_backward(x, k):
  return topk.nested_topk_masks(x, [k, 2 * k], magnitude=True)


METHODS = {
  'counting': by_counting,
  'forward and backward': forward_and_backward,
  'lax.top_k': by_top_k,
  'jnp.sort': by_sort,
}


def check(functions, x):
  expected = np.asarray(functions['lax.top_k'](x))
  for name, function in functions.items():
    found = function(x)
    found = found[0] if isinstance(found, tuple) else found
    assert np.array_equal(found, expected), f'{name} gives another mask'


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--quick', action='store_true', help='small arrays only')
  record.add_argument(parser)
  given = parser.parse_args()
  figures = record.Record('topk')
  print(f'{"shape":>12}  {"method":<20} {"median, ms":>10} {"ratio":>7}')
  for shape, repeats in SHAPES.items():
    if given.quick and np.prod(shape) > 1e6:
      continue
    k = topk.num_kept(DENSITY, int(np.prod(shape)))
    functions = {
      name: jax.jit(functools.partial(method, k=k))
      for name, method in METHODS.items()
    }
    x = jax.random.normal(jax.random.key(0), shape)
    check(functions, jnp.round(x * 4))
    check(functions, x)
    calls = {
      name: functools.partial(function, x)
      for name, function in functions.items()
    }
    timed = timing.interleave(calls, repeats)
    medians = {name: statistics.median(x) for name, x in timed.items()}
    for name, seconds in medians.items():
      ratio = seconds / medians['counting']
      size = 'x'.join(map(str, shape))
      print(f'{size:>12}  {name:<20} {1e3 * seconds:>10.2f} {ratio:>7.1f}')
      case = f'{size}, {name}'
      figures.add(case, 'time', 1e3 * seconds, 'ms', repeats)
      figures.add(case, 'ratio', ratio, rounds=repeats)
  figures.write(given.record)


if __name__ == '__main__':
  main()
