"""Latency of pruned networks on the CPU, dense XLA = 1.

  python -m benchmarks.inference [--only=lenet] [--densities 0.1 0.05]
      [--record=DIR]

LeNet-300-100 and ResNet-50 (224 pixels, the first convolution dense) at batch
1 and 32, pruned by magnitude in each layer, by `sparsity.compile_inference`
against the dense network with the same masked weights.
"""

import argparse
import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from benchmarks import timing
from experiments.models import lenet
from experiments.models import resnet
import sparsity
from sparsity import kernels

DENSITIES = (0.2, 0.1, 0.05)
BATCHES = (1, 32)
ROUNDS = {'lenet': 300, 'resnet': 7}
CALLS = {'lenet': 20, 'resnet': 1}  # within one measurement
DENSE = {'lenet': (), 'resnet': (r'^stem/',)}


def make(name: str):
  """Returns a network of weights and images, its weights, the image's shape."""
  if name == 'lenet':
    net, shape = lenet.lenet(hidden=(300, 100), num_classes=10), (784,)
  else:
    net = resnet.resnet50(num_classes=1000, compute_dtype='float32')
    shape = (224, 224, 3)
  images = jnp.ones((1, *shape))
  params, state = jax.jit(net.init, static_argnums=2)(
    jax.random.key(0), images, True
  )

  def apply(weights, images):
    return net.apply(weights, state, None, images, False)[0]

  return apply, params, shape


def prune(params, density: float, dense):
  counts = sparsity.make_counts(forward_density=density, dense=dense)(params)
  weights = sparsity.select.pick(params, counts.sizes)
  kept = sparsity.topk_masks(weights, counts.forward, magnitude=True)
  trues = jax.tree.map(lambda x: jnp.ones(x.shape, bool), params)
  masks = sparsity.select.put(trues, kept)
  return jax.tree.map(jnp.multiply, params, masks), masks


def compare(name: str, densities, rounds: int, figures) -> None:
  apply, params, shape = make(name)
  for batch_size in BATCHES:
    images = jax.random.normal(jax.random.key(1), (batch_size, *shape))
    for density in densities:
      weights, masks = prune(params, density, DENSE[name])
      predict = sparsity.compile_inference(apply, weights, masks)
      dense = functools.partial(jax.jit(apply), weights)
      np.testing.assert_allclose(
        predict(images), dense(images), rtol=1e-2, atol=1e-2
      )

      def repeat(fn, images=images):
        return [fn(images) for _ in range(CALLS[name])]

      seconds = timing.interleave(
        {
          'dense': functools.partial(repeat, dense),
          'sparse': functools.partial(repeat, predict),
        },
        rounds,
      )
      ratio = timing.ratio(seconds['sparse'], seconds['dense'])
      ms = {
        case: 1e3 * statistics.median(times) / CALLS[name]
        for case, times in seconds.items()
      }
      print(
        f'{name:<7} batch {batch_size:<3} density {density:<5g}'
        f'dense {ms["dense"]:9.3f} ms  sparse {ms["sparse"]:9.3f} ms  '
        f'{ratio:6.3f} x',
        flush=True,
      )
      of = f'{name}, batch {batch_size}, density {density:g}'
      for case, milliseconds in ms.items():
        figures.add(of, f'{case} time', milliseconds, 'ms', rounds)
      figures.add(of, 'ratio', ratio, rounds=rounds)


def main() -> None:
  parser = argparse.ArgumentParser(description='Times pruned networks.')
  parser.add_argument('--only', choices=ROUNDS)
  parser.add_argument('--densities', nargs='*', type=float, default=DENSITIES)
  parser.add_argument('--rounds', type=int)
  record.add_argument(parser)
  arguments = parser.parse_args()
  figures = record.Record('inference')
  print(kernels.describe())
  for name, rounds in ROUNDS.items():
    if arguments.only in (None, name):
      rounds = arguments.rounds or rounds
      compare(name, arguments.densities, rounds, figures)
  figures.write(arguments.record)


if __name__ == '__main__':
  main()
