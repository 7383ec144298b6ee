"""Networks of the benchmarks of compact storage, with random data.

B: batch; T: tokens; D: d_model; H: heads; C: d_head.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from experiments.models import resnet
from sparsity import modules


class Problem(NamedTuple):
  """A network and its loss."""

  name: str
  params: Any
  loss: Callable[[Any, Any], jax.Array]  # weights, batch -> []
  batch: Any
  dense: tuple[str, ...] = ()  # layers that stay dense


def mlp(widths=(1024, 3072, 3072, 1024), batch_size: int = 128) -> Problem:
  """Returns a perceptron of 16 million weights."""

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
  )


def transformer_block(
  d_model: int = 512, d_inner: int = 2048, shape=(2, 512), num_heads: int = 8
) -> Problem:
  """Returns a layer of Transformer-XL, [B, T] tokens without a memory."""

  def forward(x, positions):
    x = _norm('attention')(x + _attention(x, positions, num_heads))
    y = jax.nn.relu(modules.Linear(d_inner, name='inner')(x))
    return _norm('feed_forward')(x + modules.Linear(d_model, name='outer')(y))

  net = hk.without_apply_rng(hk.transform(forward))
  keys = jax.random.split(jax.random.key(1))
  x = jax.random.normal(keys[0], (*shape, d_model))
  positions = jax.random.normal(keys[1], (shape[1], d_model))
  return Problem(
    f'Transformer-XL block {d_model}, {d_inner}, {shape[0]} x {shape[1]}',
    net.init(jax.random.key(0), x, positions),
    lambda weights, batch: jnp.mean(jnp.square(net.apply(weights, *batch))),
    (x, positions),
  )


def resnet50(batch_size: int = 4, size: int = 224) -> Problem:
  """Returns ResNet-50, its first convolution dense."""
  net = resnet.resnet50(num_classes=1000, compute_dtype='float32')
  images = jax.random.normal(jax.random.key(1), (batch_size, size, size, 3))
  labels = jnp.arange(batch_size, dtype=jnp.int32)
  params, net_state = jax.jit(net.init, static_argnums=2)(
    jax.random.key(0), images, True
  )

  def loss(weights, batch):
    logits, _ = net.apply(weights, net_state, None, batch[0], True)
    return _cross_entropy(logits, batch)

  return Problem('ResNet-50', params, loss, (images, labels), (r'^stem/',))


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


def _norm(name):
  return hk.LayerNorm(-1, True, True, name=f'{name}_norm')


def _attention(x, positions, num_heads):
  """Returns relative causal attention of x [B, T, D]."""
  d_model = x.shape[-1]

  def project(x, name):
    x = modules.Linear(d_model, with_bias=False, name=name)(x)
    return x.reshape(*x.shape[:-1], num_heads, -1)  # [..., H, C]

  q, k, v = (project(x, name) for name in ('query', 'key', 'value'))
  r = project(positions, 'position')  # [T, H, C]
  length = x.shape[1]
  by_key = jnp.einsum('bthc,bkhc->bhtk', q, k)
  by_distance = jnp.einsum('bthc,khc->bhtk', q, r)
  padded = jnp.pad(by_distance, [(0, 0)] * 3 + [(1, 0)])
  padded = padded.reshape(*padded.shape[:2], length + 1, length)
  shifted = padded[:, :, 1:].reshape(by_key.shape)
  causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
  scale = q.shape[-1] ** -0.5
  scores = jnp.where(causal, (by_key + shifted) * scale, -1e30)
  seen = jnp.einsum('bhtk,bkhc->bthc', jax.nn.softmax(scores), v)
  seen = seen.reshape(x.shape)
  return modules.Linear(d_model, with_bias=False, name='output')(seen)
