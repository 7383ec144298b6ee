"""The kernels of sparse layers against XLA's dense products.

  python -m benchmarks.kernels [--quick] [--cases mlp transformer resnet]
      [--kernels native native-avx2 xla] [--record=DIR]

For each layer: y = x W_A, dx = dy W_A^T and dW on B, at the densities of A and
B: median milliseconds, the ratio to the dense product, and useful GFLOP/s: two
operations for each entry and example.

For each entry, `native` reads one row of a panel, 256 bytes for 64 examples.
Entries are stored strip by strip, so that most rows come from the first-level
cache.
"""

import functools
import math
import os
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
import sparsity
from sparsity import kernels
from sparsity.kernels import native

PRODUCTS = ('y', 'dx', 'dW')
DENSITIES = ((0.1, 0.2), (0.05, 0.1))


class Layer(NamedTuple):
  """A layer and its input."""

  image: tuple[int, ...]  # batch, height, width
  shape: tuple[int, int, int, int]  # kernel height, width, channels in, out
  stride: int = 1

  def __str__(self):
    batch, height, width = self.image
    kh, kw, num_inputs, num_outputs = self.shape
    if height == width == 1:
      return f'{num_inputs} -> {num_outputs}, batch {batch}'
    return (
      f'{kh}x{kw}/{self.stride} {num_inputs} -> {num_outputs}, '
      f'{batch} images of {height}x{width}'
    )


def dense(batch, num_inputs, num_outputs):
  return Layer((batch, 1, 1), (1, 1, num_inputs, num_outputs))


def conv(size, kernel, num_inputs, num_outputs, stride=1):
  return Layer(
    (4, size, size), (kernel, kernel, num_inputs, num_outputs), stride
  )


CASES = {
  'mlp': (
    dense(128, 1024, 3072),
    dense(128, 3072, 3072),
    dense(128, 3072, 1024),
  ),
  'transformer': (
    dense(1024, 512, 512),
    dense(1024, 512, 2048),
    dense(1024, 2048, 512),
  ),
  'resnet': (
    conv(56, 1, 64, 256),
    conv(56, 3, 64, 64),
    conv(56, 3, 128, 128, stride=2),
    conv(28, 1, 512, 128),
    conv(28, 3, 128, 128),
    conv(14, 1, 256, 1024),
    conv(14, 3, 256, 256),
    conv(14, 1, 1024, 2048, stride=2),
    conv(7, 3, 512, 512),
    conv(7, 1, 512, 2048),
  ),
}


def dense_products(layer: Layer):
  """Returns the products of the dense weight by XLA."""

  def forward(x, w):
    if layer.image[1:] == (1, 1):
      return jnp.dot(x[:, 0, 0], w[0, 0])[:, None, None]
    return sparsity.conv(x, w, stride=layer.stride)

  def input_gradient(x, w, dy):
    return jax.linear_transpose(lambda x: forward(x, w), x)(dy)

  def weight_gradient(x, w, dy):
    return jax.linear_transpose(lambda w: forward(x, w), w)(dy)

  return map(jax.jit, (forward, input_gradient, weight_gradient))


def sparse_products(layer: Layer):
  """Returns the same products by the implementation of the kernels in use."""
  size = layer.image[1:]
  window = kernels.make_window(size, layer.shape[:2], layer.stride, 'SAME')
  weight = layer.shape, window
  products = (
    lambda x, values, dy, s: kernels.conv(x, values, s, *weight),
    lambda x, values, dy, s: kernels.conv_dx(dy, values, s, *weight, size),
    lambda x, values, dy, s: kernels.conv_dw(x, dy, s, *weight),
  )
  return map(jax.jit, products)


def functions_of(layer, densities, names):
  """Returns the functions to time, by implementation and product."""
  rng = np.random.default_rng(0)

  def normal(shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  scores = rng.random((math.prod(layer.shape[:-1]), layer.shape[-1]))
  structure = kernels.from_masks(*(scores < density for density in densities))
  values = normal(structure.columns.shape)
  x, w = normal((*layer.image, layer.shape[2])), normal(layer.shape)
  forward, *gradients = dense_products(layer)
  dy = normal(jax.eval_shape(forward, x, w).shape)
  functions = {'dense y': functools.partial(forward, x, w)}
  for product, gradient in zip(PRODUCTS[1:], gradients, strict=True):
    functions[f'dense {product}'] = functools.partial(gradient, x, w, dy)
  for name in names:
    implementation, _, isa = name.partition('-')
    if isa:
      os.environ[native.ISA_VARIABLE] = isa
    made = sparse_products(layer)
    for product, function in zip(PRODUCTS, made, strict=True):
      with kernels.use(implementation):  # compiled with this instruction set
        function(x, values, dy, structure)
      functions[f'{name} {product}'] = functools.partial(
        function, x, values, dy, structure
      )
    os.environ.pop(native.ISA_VARIABLE, None)
  return functions, dy.size // dy.shape[-1]


def run(layer, densities, names, rounds, figures):
  """Times one layer."""
  functions, num_pixels = functions_of(layer, densities, names)
  prefix = f'{layer}, density {densities[0]:g}/{densities[1]:g}, '
  operations = 2 * num_pixels * math.prod(layer.shape)
  for product in PRODUCTS:
    cases = [f'{name} {product}' for name in ('dense', *names)]
    chosen = {case: functions[case] for case in cases}
    seconds = figures.compare(chosen, rounds, cases[0], prefix)
    for case, times in seconds.items():
      share = densities[product == 'dW'] if case != cases[0] else 1
      rate = operations * share / statistics.median(times) / 1e9
      figures.add(prefix + case, 'rate', rate, 'GFLOP/s', rounds)


def main():
  given, figures = record.start(
    'kernels',
    __doc__,
    cases={'nargs': '+', 'choices': CASES, 'default': list(CASES)},
    kernels={'nargs': '+', 'default': [kernels.implementation()]},
  )
  rounds = 5 if given.quick else 21
  for case in given.cases:
    for layer in CASES[case]:
      for densities in DENSITIES:
        run(layer, densities, given.kernels, rounds, figures)
  figures.write(given.record)


if __name__ == '__main__':
  main()
