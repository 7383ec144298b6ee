"""Latency of pruned networks on the CPU, dense XLA = 1.

  python -m benchmarks.inference [--quick] [--only=lenet] [--record=DIR]

LeNet-300-100 and ResNet-50 (224 pixels, the first convolution dense) at batch
1 and 32, pruned by magnitude in each layer, by `sparsity.compile_inference`
against the dense network with the same masked weights.
"""

import functools
import statistics

import jax
import numpy as np
import optax

from benchmarks import networks
from benchmarks import record
import sparsity
import topkast

DENSITIES = (0.2, 0.1, 0.05)
BATCHES = (1, 32)
# Network, rounds, and calls within one measurement.
NETWORKS = {
  'lenet': (functools.partial(networks.mlp, (784, 300, 100, 10)), 300, 20),
  'resnet': (networks.resnet50, 7, 1),
}


def prune(problem, density: float):
  """Returns the largest weights of each layer, and their masks."""
  densities = {'forward_density': density, 'backward_density': density}
  tx = topkast.topkast(optax.identity(), **densities, dense=problem.dense)
  state = tx.init(problem.params)
  return topkast.weights(problem.params, state), state.sets.forward


def compare(name: str, rounds: int, num_calls: int, problem, figures) -> None:
  for batch_size in BATCHES:
    shape = batch_size, *problem.batch[0].shape[1:]
    images = jax.random.normal(jax.random.key(1), shape)
    for density in DENSITIES:
      weights, masks = prune(problem, density)
      sparse = sparsity.compile_inference(problem.predict, weights, masks)
      dense = functools.partial(jax.jit(problem.predict), weights)
      np.testing.assert_allclose(
        sparse(images), dense(images), rtol=1e-2, atol=1e-2
      )

      def repeat(fn, images=images):
        return [fn(images) for _ in range(num_calls)]

      seconds = record.interleave(
        {
          'dense': functools.partial(repeat, dense),
          'sparse': functools.partial(repeat, sparse),
        },
        rounds,
      )
      case = f'{name}, batch {batch_size}, density {density:g}'
      for kind, times in seconds.items():
        milliseconds = 1e3 * statistics.median(times) / num_calls
        figures.add(case, f'{kind} time', milliseconds, 'ms', rounds)
      ratio = record.ratio(seconds['sparse'], seconds['dense'])
      figures.add(case, 'ratio', ratio, rounds=rounds)


def main() -> None:
  only = {'choices': NETWORKS, 'help': 'one network'}
  given, figures = record.start('inference', __doc__, only=only)
  for name, (make, rounds, num_calls) in NETWORKS.items():
    if given.only in (None, name):
      rounds = 2 if given.quick else rounds
      compare(name, rounds, num_calls, make(), figures)
  figures.write(given.record)


if __name__ == '__main__':
  main()
