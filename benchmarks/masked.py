"""The density up to which skipping masked weights is faster.

  python -m benchmarks.masked [--quick] [--record=DIR]

The forward product of a layer and the gradient of its inputs: `MaskedWeights`
as a multiple of writing out the masked weight and two dense products.
"""

import functools

import jax
import jax.numpy as jnp

from benchmarks import record
import sparsity

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
    w = sparsity.MaskedWeights(w, mask) if skipping else jnp.where(mask, w, 0)
    y, pull = jax.vjp(lambda x: sparsity.matmul(x, w), x)
    return y, pull(dy)

  def calls(*arguments):
    for _ in range(num_calls):
      result = call(*arguments)
    return result

  return calls


def main() -> None:
  given, figures = record.start('masked', __doc__)
  rounds = 5 if given.quick else 21
  for batch, num_inputs, num_outputs, num_calls in LAYERS:
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (batch, num_inputs))
    w = jax.random.normal(keys[1], (num_inputs, num_outputs))
    dy = jax.random.normal(keys[2], (batch, num_outputs))
    for density in DENSITIES:
      mask = sparsity.random_mask(keys[3], w.shape, int(density * w.size))
      seconds = record.interleave(
        {
          skipping: functools.partial(
            products(skipping, num_calls), x, w, mask, dy
          )
          for skipping in (True, False)
        },
        rounds,
      )
      case = f'{batch} x {num_inputs} x {num_outputs}, density {density}'
      ratio = record.ratio(seconds[True], seconds[False])
      figures.add(case, 'ratio', ratio, rounds=rounds)
  figures.write(given.record)


if __name__ == '__main__':
  main()
