"""The kernels of sparse layers against XLA's dense products.

  python -m benchmarks.kernels [--quick] [--cases mlp transformer resnet]
      [--kernels native native-avx2 xla] [--densities 0.1/0.2 0.05/0.1]
      [--record=DIR]

For each layer: y = x W_A, dx = dy W_A^T and dW on B, at the densities of A and
B. Printed are median milliseconds, the ratio to the dense product, and useful
GFLOP/s: two operations for each entry and example.

For each entry, `native` reads one row of a panel, 256 bytes for 64 examples.
Entries are stored strip by strip, so that most rows come from the first-level
cache.
"""

import argparse
import functools
import math
import os
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from benchmarks import timing
from sparsity import kernels
from sparsity.kernels import native

PRODUCTS = ('y', 'dx', 'dW')


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
  if layer.image[1:] == (1, 1):

    def forward(x, w):
      return jnp.dot(x[:, 0, 0], w[0, 0])[:, None, None]

  else:

    def forward(x, w):
      strides = (layer.stride, layer.stride)
      return jax.lax.conv_general_dilated(
        x, w, strides, 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
      )

  def input_gradient(x, w, dy):
    return jax.linear_transpose(lambda x: forward(x, w), x)(dy)

  def weight_gradient(x, w, dy):
    return jax.linear_transpose(lambda w: forward(x, w), w)(dy)

  return forward, jax.jit(input_gradient), jax.jit(weight_gradient)


def sparse_products(layer: Layer):
  """Returns the same products by the implementation of the kernels in use."""
  options = {'shape': layer.shape, 'stride': layer.stride, 'padding': 'SAME'}

  @jax.jit
  def forward(x, values, dy, s):
    return kernels.conv(x, values, s, **options)

  @jax.jit
  def input_gradient(x, values, dy, s):
    size = layer.image[1:]
    return kernels.conv_dx(dy, values, s, image_size=size, **options)

  @jax.jit
  def weight_gradient(x, values, dy, s):
    return kernels.conv_dw(x, dy, s, **options)

  return forward, input_gradient, weight_gradient


def make_masks(rng, shape, forward, backward):
  scores = rng.random((math.prod(shape[:-1]), shape[-1]))
  return scores < forward, scores < backward


def functions_of(layer, densities, names):
  """Returns the functions to time, by implementation and product."""
  rng = np.random.default_rng(0)

  def normal(shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  structure = kernels.from_masks(*make_masks(rng, layer.shape, *densities))
  values = normal(structure.columns.shape)
  x, w = normal((*layer.image, layer.shape[2])), normal(layer.shape)
  forward, *gradients = dense_products(layer)
  forward = jax.jit(forward)
  dy = normal(jax.eval_shape(forward, x, w).shape)
  functions = {('dense', 'y'): functools.partial(forward, x, w)}
  for product, gradient in zip(PRODUCTS[1:], gradients, strict=True):
    functions['dense', product] = functools.partial(gradient, x, w, dy)
  for name in names:
    implementation, _, isa = name.partition('-')
    if isa:
      os.environ[native.ISA_VARIABLE] = isa
    made = sparse_products(layer)
    for product, function in zip(PRODUCTS, made, strict=True):
      with kernels.use(implementation):  # compiled with this instruction set
        function(x, values, dy, structure)
      functions[name, product] = functools.partial(
        function, x, values, dy, structure
      )
    os.environ.pop(native.ISA_VARIABLE, None)
  return functions, dy.size // dy.shape[-1]


def run(layer, densities, names, repeats, figures):
  """Times one layer; prints a line for each implementation."""
  functions, num_pixels = functions_of(layer, densities, names)
  seconds = timing.interleave(functions, repeats)
  title = f'{layer}, density {densities[0]:g}/{densities[1]:g}'
  print(title)
  operations = 2 * num_pixels * math.prod(layer.shape)
  for name in ('dense', *names):
    line = f'  {name:15s}'
    for product in PRODUCTS:
      times = seconds[name, product]
      useful = 1.0 if name == 'dense' else densities[product == 'dW']
      rate = operations * useful / statistics.median(times) / 1e9
      ratio = timing.ratio(times, seconds['dense', product])
      milliseconds = 1e3 * statistics.median(times)
      line += f'  {product:>2s} {milliseconds:7.2f} ms {ratio:5.2f} {rate:4.0f}'
      case = f'{title}, {name} {product}'
      figures.add(case, 'time', milliseconds, 'ms', repeats)
      figures.add(case, 'ratio', ratio, rounds=repeats)
      figures.add(case, 'rate', rate, 'GFLOP/s', repeats)
    print(line, flush=True)


def parse_densities(text: str) -> tuple[float, float]:
  forward, backward = map(float, text.split('/'))
  return forward, backward


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--quick', action='store_true', help='fewer repeats')
  parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
  parser.add_argument(
    '--kernels', nargs='+', default=[kernels.implementation()]
  )
  parser.add_argument(
    '--densities',
    nargs='+',
    type=parse_densities,
    default=[(0.1, 0.2), (0.05, 0.1)],
  )
  record.add_argument(parser)
  args = parser.parse_args()
  figures, repeats = record.Record('kernels'), 5 if args.quick else 21
  print(kernels.describe())
  print('milliseconds, ratio to dense, useful GFLOP/s')
  for case in args.cases:
    for layer in CASES[case]:
      for densities in args.densities:
        run(layer, densities, args.kernels, repeats, figures)
  figures.write(args.record)


if __name__ == '__main__':
  main()
