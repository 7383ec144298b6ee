"""The density up to which skipping masked weights is faster.

  python -m benchmarks.masked [--quick] [--record=DIR]

The forward product of a layer and the gradient of its inputs: `MaskedWeights`
as a multiple of writing out the masked weight and two dense products.
"""

import argparse
import functools

import jax
import jax.numpy as jnp

from benchmarks import record
from benchmarks import timing
import sparsity
from sparsity import masked

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
# Examples, inputs, outputs, and calls per measurement.
LAYERS = (
  (60, 784, 300, 20),
  (60, 300, 100, 50),
  (128, 128, 128, 50),
  (128, 3072, 3072, 1),
  (1024, 512, 2048, 2),
)


def products(skipping: bool, num_calls: int):
  """Returns a function that computes y and dx `num_calls` times."""

  @jax.jit
  def call(x, w, mask, dy):
    w = masked.MaskedWeights(w, mask) if skipping else jnp.where(mask, w, 0)
    y, pull = jax.vjp(lambda x: sparsity.matmul(x, w), x)
    return y, pull(dy)

  def calls(*arguments):
    for _ in range(num_calls):
      result = call(*arguments)
    return result

  return calls


def main() -> None:
  """Prints a line per layer and a column per density."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  record.add_argument(parser)
  given = parser.parse_args()
  rounds, figures = 5 if given.quick else 21, record.Record('masked')
  print('examples x in x out   ', *(f'{d:>6}' for d in DENSITIES))
  for batch, num_inputs, num_outputs, num_calls in LAYERS:
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (batch, num_inputs))
    w = jax.random.normal(keys[1], (num_inputs, num_outputs))
    dy = jax.random.normal(keys[2], (batch, num_outputs))
    title = f'{batch} x {num_inputs} x {num_outputs}'
    print(f'{title:22}', end='')
    for density in DENSITIES:
      mask = sparsity.random_mask(keys[3], w.shape, int(density * w.size))
      cases = {
        skipping: functools.partial(
          products(skipping, num_calls), x, w, mask, dy
        )
        for skipping in (True, False)
      }
      seconds = timing.interleave(cases, rounds)
      ratio = timing.ratio(seconds[True], seconds[False])
      print(f'{ratio:7.2f}', end='', flush=True)
      figures.add(f'{title}, density {density}', 'ratio', ratio, rounds=rounds)
    print()
  figures.write(given.record)


if __name__ == '__main__':
  main()
