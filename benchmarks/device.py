"""Products and training steps on a device: dense, masked and compact.

  python -m benchmarks.device [--minutes=4] [--tiny] [--out=FILE.csv]

A check for a GPU or TPU that is at hand for some minutes; it needs neither
TensorFlow nor data. With --tiny, and on a CPU, shapes are tiny. First every
kernel against the float32 product at highest precision; then a layer's products
and Adam step (4096 x 4096, 4096 tokens, bfloat16), the exact mask of 16.8
million weights, and a training step of enwik8 base (4 segments) and of
ResNet-50 (64 images). A case that fails is a row that says why, and no case
begins after the deadline. Columns: `benchmarks.rows`.
"""

import argparse
from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import rows
from experiments.models import resnet
from experiments.models import transformer_xl
import sparsity
from sparsity import kernels
from sparsity.compact import entries
import topkast

PAIRS = ((0.1, 0.2), (0.2, 0.4), (0.05, 0.1))  # A, B; the networks: the first


class Method(NamedTuple):
  """A way to store and train the weights."""

  params: Any
  state: Any
  weights: Callable[[Any, Any], Any]
  update: Callable[..., Any]


def check_kernels(table: rows.Table) -> None:
  """Adds the products of small layers, against float32."""
  for name, image, shape in (
    ('matrix', (96, 1, 1), (1, 1, 300, 260)),
    ('convolution', (3, 9, 8), (3, 3, 40, 70)),
  ):
    window = kernels.make_window(image[1:], shape[:2], 1, 'SAME')
    keys = jax.random.split(jax.random.key(0), 4)
    scores = np.asarray(jax.random.uniform(keys[3], shape))
    masks = scores < 0.1, scores < 0.2
    for dtype in (jnp.float32, jnp.bfloat16):
      x, dy, w = (
        jax.random.normal(key, size, jnp.float32).astype(dtype)
        for key, size in zip(
          keys,
          ((*image, shape[2]), (*image, shape[3]), shape),
          strict=False,
        )
      )
      case = f'{name}, {jnp.dtype(dtype).name}'
      _check_products(table, case, (x, dy, w), masks, shape, window)


def _check_products(table, case, arrays, masks, shape, window):
  x, dy, w = (a.astype(jnp.float32) for a in arrays)
  w = jnp.where(masks[0], w, 0)

  def multiply(x, w):
    layout = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(
      x,
      w,
      window.stride,
      window.padding,
      dimension_numbers=layout,
      precision='highest',
    )

  y, pull = jax.vjp(multiply, x, w)
  dx, dw = pull(dy)
  flat = [mask.reshape(-1, shape[3]) for mask in masks]
  structure = jax.tree.map(jnp.asarray, kernels.from_masks(*flat))
  at = entries.places(structure, flat[0].shape)
  values = arrays[2].reshape(-1)[at]
  size = arrays[0].shape[1:3]
  for way, weight, active, gradient in (
    ('masked', arrays[2], jnp.asarray(masks[0]), dw),
    ('compact', values, structure, dw.reshape(-1)[at]),
  ):
    layer = active, shape, window

    def products(x, dy, weight, layer=layer):
      return (
        kernels.conv(x, weight, *layer),
        kernels.conv_dx(dy, weight, *layer, size),
        kernels.conv_dw(x, dy, *layer),
      )

    program = rows.Program(
      products, (*arrays[:2], weight), expected=(y, dx, gradient)
    )
    table.add(case, way, lambda program=program: program)


def make_method(name: str, params: Any, densities, dense=()) -> Method:
  """Returns dense, masked or compact training with Adam."""
  adam = optax.adam(1e-3)
  if name == 'dense':
    state = jax.jit(adam.init)(params)
    return Method(params, state, lambda params, _: params, adam.update)
  tx = topkast.topkast(
    adam,
    forward_density=densities[0],
    backward_density=densities[1],
    refresh_every=10**6,
    dense=dense,
  )
  weights = sparsity.forward_weights
  if name == 'masked':
    return Method(params, jax.jit(tx.init)(params), weights, tx.update)
  training = sparsity.compact.compact(tx)
  params, state, _ = training.init(params)
  return Method(params, state, weights, training.update)


def make_step(method: Method, loss: Callable[..., Any]) -> Callable[..., Any]:
  """Returns a training step."""

  def step(params, state, *batch):
    weights = method.weights(params, state)
    gradients = sparsity.grad(loss)(weights, *batch)
    updates, state = method.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  return step


def ways(pair):
  """Yields the names of the methods, with their labels."""
  yield 'dense', 'dense'
  for name in ('masked', 'compact'):
    yield name, '{} {:g}/{:g}%'.format(name, *(100 * x for x in pair))


def time_layer(table: rows.Table, size: int, tokens: int, pair) -> None:
  """Adds the products and the Adam step of a layer in bfloat16."""
  keys = jax.random.split(jax.random.key(1), 3)
  x, dy = (jax.random.normal(k, (tokens, size), jnp.bfloat16) for k in keys[:2])
  w = jax.random.normal(keys[2], (size, size)) / size**0.5
  params = {'layer': {'w': w}}

  def multiply(weights, x):
    return sparsity.matmul(x, weights['layer']['w'], dtype=jnp.bfloat16)

  def loss(weights, x, dy):
    return jnp.sum(multiply(weights, x).astype(jnp.float32) * dy)

  for name, label in ways(pair):
    if name == 'dense' and any(x['way'] == 'dense' for x in table.rows):
      continue
    method = make_method(name, params, pair)
    inputs = method.params, method.state

    def forward(params, state, x, method=method):
      return multiply(method.weights(params, state), x)

    def backward(params, state, x, dy, method=method):
      weights = method.weights(params, state)
      return jax.vjp(lambda x: multiply(weights, x), x)[1](dy)

    def gradient(params, state, x, dy, method=method):
      return sparsity.grad(loss)(method.weights(params, state), x, dy)

    programs = {
      'forward': rows.Program(forward, (*inputs, x)),
      'input gradient': rows.Program(backward, (*inputs, x, dy)),
      'weight gradient': rows.Program(gradient, (*inputs, x, dy)),
      'Adam step': rows.Program(make_step(method, loss), (x, dy), inputs),
    }
    for case, program in programs.items():
      table.add(f'layer, {case}', label, lambda program=program: program)


def time_mask(table: rows.Table, size: int) -> None:
  """Adds the mask of the largest tenth of the entries of a matrix."""
  scores = jax.random.normal(jax.random.key(2), (size, size))
  k = size * size // 10

  def sort(scores):
    flat = jnp.abs(scores).reshape(-1)
    mask = jnp.zeros(flat.shape, bool)
    return mask.at[jax.lax.top_k(flat, k)[1]].set(True).reshape(scores.shape)

  def search(scores):
    return sparsity.topk_mask(scores, k, magnitude=True)

  for way, function in (('lax.top_k', sort), ('sparsity', search)):
    program = rows.Program(function, (scores,))
    table.add(f'mask of {size} x {size}', way, lambda program=program: program)


def time_network(table: rows.Table, case: str, make: Callable[[], Any]) -> None:
  """Adds the training steps of a network: (params, loss, batch, dense)."""

  made = functools.cache(make)

  def program(name):
    params, loss, batch, dense = made()
    method = make_method(name, params, PAIRS[0], dense)
    return rows.Program(
      make_step(method, loss), batch, (method.params, method.state)
    )

  for name, label in ways(PAIRS[0]):
    table.add(case, label, lambda name=name: program(name))


def make_enwik8(tiny: bool) -> tuple[Any, ...]:
  """Returns the base size of enwik8's Transformer-XL, and 4 segments."""
  sizes = {'num_layers': 12, 'd_model': 512, 'd_head': 64, 'd_inner': 2048}
  if tiny:
    sizes = {'num_layers': 1, 'd_model': 32, 'd_head': 4, 'd_inner': 64}
  length = 8 if tiny else 512
  net = transformer_xl.transformer_xl(
    vocab_size=256,
    num_heads=8,
    dropout=0.1,
    attention_dropout=0.0,
    tie_projections=(False,),
    cutoffs=(),
    div_val=1,
    compute_dtype='bfloat16',
    **sizes,
  )
  tokens = jax.random.randint(jax.random.key(3), (4, length + 1), 0, 256)

  def loss(weights, tokens, memory, key):
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    return net.apply(weights, memory, key, inputs, targets, True)[0].mean()

  params = jax.jit(net.init)(jax.random.key(0))
  batch = tokens, net.memory(4, length), jax.random.key(4)
  return params, loss, batch, ()


def make_resnet50(tiny: bool) -> tuple[Any, ...]:
  """Returns ResNet-50 (tiny: WRN-10-1), and 64 images; dense stem."""
  options = {'num_classes': 1000, 'compute_dtype': 'bfloat16'}
  shape = (2, 8, 8, 3) if tiny else (64, 224, 224, 3)
  if tiny:
    net = resnet.wide_resnet(depth=10, width=1, dropout=0.0, **options)
  else:
    net = resnet.resnet50(**options)
  images = jax.random.normal(jax.random.key(5), shape)
  labels = jnp.arange(shape[0], dtype=jnp.int32)
  init = jax.jit(net.init, static_argnums=2)
  params, state = init(jax.random.key(0), images[:1], True)

  def loss(weights, images, labels):
    logits, _ = net.apply(weights, state, None, images, True)
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, labels
    ).mean()

  return params, loss, (images, labels), () if tiny else (r'^stem/',)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
  """Measures, prints and writes the rows; returns them."""
  parser = argparse.ArgumentParser(
    'python -m benchmarks.device',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--minutes', type=float, default=4.0)
  parser.add_argument('--tiny', action='store_true', help='tiny shapes')
  parser.add_argument('--out', default='device.csv', help='the CSV')
  given = parser.parse_args(arguments)
  tiny = given.tiny or jax.default_backend() == 'cpu'
  print(jax.devices()[0].device_kind, 'JAX', jax.__version__)
  print(kernels.describe())
  table = rows.Table(60 * given.minutes)
  check_kernels(table)
  size, tokens = (256, 64) if tiny else (4096, 4096)
  time_layer(table, size, tokens, PAIRS[0])
  time_mask(table, size)
  time_network(table, 'enwik8 base, step', lambda: make_enwik8(tiny))
  time_network(table, 'ResNet-50, step', lambda: make_resnet50(tiny))
  for pair in PAIRS[1:]:
    time_layer(table, size, tokens, pair)
  table.write(given.out)
  return table.rows


if __name__ == '__main__':
  main()
