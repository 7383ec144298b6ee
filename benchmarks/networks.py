"""Networks of the benchmarks, with random data."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from experiments.models import resnet
from experiments.models import transformer_layer
from sparsity import modules


class Problem(NamedTuple):
  """A network and its loss."""

  name: str
  params: Any
  loss: Callable[[Any, Any], jax.Array]  # weights, batch -> []
  batch: Any
  dense: tuple[str, ...] = ()  # layers that stay dense
  predict: Callable[[Any, Any], jax.Array] | None = None  # weights, inputs


def mlp(widths=(1024, 3072, 3072, 1024), batch_size: int = 128) -> Problem:
  """Returns a perceptron, by default of 16 million weights."""

  def forward(x):
    for width in widths[1:-1]:
      x = jax.nn.relu(modules.Linear(width)(x))
    return modules.Linear(widths[-1])(x)

  net = hk.without_apply_rng(hk.transform(forward))
  keys = jax.random.split(jax.random.key(1))
  inputs = jax.random.normal(keys[0], (batch_size, widths[0]))
  labels = jax.random.randint(keys[1], (batch_size,), 0, widths[-1])
  return Problem(
    'MLP ' + '-'.join(map(str, widths)),
    net.init(jax.random.key(0), inputs),
    lambda weights, batch: _cross_entropy(net.apply(weights, batch[0]), batch),
    (inputs, labels),
    predict=net.apply,
  )


def transformer_block(
  d_model: int = 512, d_inner: int = 2048, shape=(2, 512)
) -> Problem:
  """Returns a layer of Transformer-XL, 8 heads, tokens without a memory.

  `shape` is that of a batch: (segments, tokens).
  """
  settings = transformer_layer.Settings(8, d_model // 8, d_inner, 0.0, 0.0)
  length = shape[1]
  mask = transformer_layer.visible(
    jnp.zeros(shape[0], jnp.int32), length, 0, same_length=False
  )

  def forward(x, positions):
    biases = transformer_layer.get_biases(settings)
    x = transformer_layer.attend(
      settings, x, x[:, :0], positions, biases, mask, True
    )
    return transformer_layer.feed_forward(settings, x, True)

  net = hk.without_apply_rng(hk.transform(forward))
  x = jax.random.normal(jax.random.key(1), (*shape, d_model))
  positions = transformer_layer.embed_distances(length, d_model, None)
  return Problem(
    f'Transformer-XL block {d_model}, {d_inner}, {shape[0]} x {length}',
    net.init(jax.random.key(0), x, positions),
    lambda weights, batch: jnp.mean(jnp.square(net.apply(weights, *batch))),
    (x, positions),
  )


def resnet50(batch_size: int = 4, size: int = 224) -> Problem:
  """Returns ResNet-50, its first convolution dense."""
  net = resnet.resnet50(num_classes=1000, compute_dtype='float32')
  return _residual('ResNet-50', net, (batch_size, size, size, 3))


def resnet18(batch_size: int = 32) -> Problem:
  """Returns ResNet-18 for small images, its first convolution dense."""
  net = resnet.resnet18(num_classes=100, compute_dtype='float32')
  return _residual('ResNet-18', net, (batch_size, 32, 32, 3))


def _residual(name, net, shape) -> Problem:
  images = jax.random.normal(jax.random.key(1), shape)
  labels = jnp.arange(shape[0], dtype=jnp.int32)
  params, state = jax.jit(net.init, static_argnums=2)(
    jax.random.key(0), images, True
  )

  def apply(weights, images, is_training):
    return net.apply(weights, state, None, images, is_training)[0]

  return Problem(
    name,
    params,
    lambda weights, batch: _cross_entropy(
      apply(weights, batch[0], True), batch
    ),
    (images, labels),
    (r'^stem/',),
    functools.partial(apply, is_training=False),
  )


PROBLEMS = {
  'mlp': mlp,
  'transformer': transformer_block,
  # Shorter segments, so that dense attention is a smaller part.
  'transformer_128': functools.partial(transformer_block, shape=(8, 128)),
  'resnet': resnet50,
}


def _cross_entropy(logits, batch):
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
  )
