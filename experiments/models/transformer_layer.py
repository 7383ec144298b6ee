"""One layer of Transformer-XL: attention over the memory, then feed-forward.

B: batch; T: queries, the current segment; M: memory; K = M + T: keys, oldest
first; D: d_model; H: heads; C: d_head.
"""

import functools
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.models import layers

INIT = hk.initializers.RandomNormal(0.02)  # of all but the matrices
MASKED = -1e30  # score; infinity would give NaN gradients


class Settings(NamedTuple):
  """Sizes and dropout rates of a layer, and how its matrices are drawn."""

  num_heads: int
  d_head: int
  d_inner: int
  dropout: float
  attention_dropout: float
  init_std: float = 0.02


def get_biases(settings: Settings) -> tuple[jax.Array, ...]:
  """Returns the biases u, of keys, and v, of positions, in queries [H, C]."""
  shape = (settings.num_heads, settings.d_head)
  return tuple(
    hk.get_parameter(name, shape, jnp.float32, INIT)
    for name in ('r_w_bias', 'r_r_bias')
  )


def attend(
  settings: Settings,
  x: jax.Array,
  memory: jax.Array,
  positions: jax.Array,
  biases: tuple[jax.Array, ...],
  mask: jax.Array,
  is_training: bool,
) -> jax.Array:
  """Returns x with what it attends to, normalized, [B, T, D].

  Scores are (q + u) k + (q + v) r, with the biases u and v.

  Shapes:
    x: [B, T, D]; memory, x in the previous segments: [B, M, D].
    positions: [K, D], `embed_distances`; mask: bool [B, 1, T, K], `visible`.
  """
  dtype = x.dtype

  def heads(x, name):  # [..., D] to [..., H, C]
    y = _linear(settings, settings.num_heads * settings.d_head, name)(x)
    return jnp.reshape(y, (*x.shape[:-1], settings.num_heads, settings.d_head))

  keys = jnp.concatenate([memory.astype(dtype), x], axis=1)  # [B, K, D]
  q, k, v = heads(x, 'query'), heads(keys, 'key'), heads(keys, 'value')
  r = heads(positions, 'position')  # [K, H, C]
  u, w = (bias.astype(dtype)[None, None] for bias in biases)
  scores = jnp.einsum(
    'bthc,bkhc->bhtk', q + u, k, preferred_element_type=jnp.float32
  )
  by_distance = jnp.einsum('bthc,khc->bhtk', q + w, r)
  scores += relative_shift(by_distance)  # copies, so in the compute dtype
  scores = jnp.where(mask, scores * settings.d_head**-0.5, MASKED)
  weights = softmax(scores, dtype)  # [B, H, T, K]
  weights = layers.drop(weights, settings.attention_dropout, is_training)
  values = jnp.einsum('bhtk,bkhc->bthc', weights, v)
  values = jnp.reshape(values, (*values.shape[:2], -1))  # [B, T, H * C]
  y = _linear(settings, x.shape[-1], 'output')(values)
  return _norm(x + layers.drop(y, settings.dropout, is_training))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def softmax(scores: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Returns the softmax of float32 scores [..., K] in a dtype.

  This result is all that the backward pass keeps, in half the memory of scores
  if the dtype is bfloat16.
  """
  return jax.nn.softmax(scores).astype(dtype)


def _softmax_forward(scores, dtype):
  weights = softmax(scores, dtype)
  return weights, weights


def _softmax_backward(dtype, weights, gradient):
  del dtype
  weights, gradient = (x.astype(jnp.float32) for x in (weights, gradient))
  mean = jnp.sum(weights * gradient, -1, keepdims=True)
  return (weights * (gradient - mean),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def feed_forward(
  settings: Settings, x: jax.Array, is_training: bool
) -> jax.Array:
  """Returns x [B, T, D] after two linear layers with ReLU, and a shortcut."""
  y = jax.nn.relu(_linear(settings, settings.d_inner, 'linear_0', True)(x))
  y = layers.drop(y, settings.dropout, is_training)
  y = _linear(settings, x.shape[-1], 'linear_1', True)(y)
  return _norm(x + layers.drop(y, settings.dropout, is_training))


def _linear(
  settings: Settings, width: int, name: str, with_bias: bool = False
) -> hk.Module:
  init = hk.initializers.RandomNormal(settings.init_std)
  return layers.Linear(width, with_bias, w_init=init, name=name)


def _norm(x: jax.Array) -> jax.Array:
  init = hk.initializers.RandomNormal(0.02, 1.0)
  norm = hk.LayerNorm(-1, True, True, scale_init=init, name='layer_norm')
  return norm(x)


def relative_shift(x: jax.Array) -> jax.Array:
  """Returns scores by key of scores by distance: y[t, k] = x[t, T - 1 - t + k].

  Row t of x [..., T, K] has the distances K - 1, ..., 0; key k is K - T + t - k
  before query t. Entries of keys after the query are undefined. This is a
  padded column and a reshape, no gather.

  Example:
    >>> relative_shift(jnp.array([[2, 1, 0], [2, 1, 0]]))
    Array([[1, 0, 0],
           [2, 1, 0]], dtype=int32)
  """
  *batch, num_queries, num_keys = x.shape
  x = jnp.pad(x, [(0, 0)] * (len(batch) + 1) + [(1, 0)])
  x = jnp.reshape(x, (*batch, num_keys + 1, num_queries))
  return jnp.reshape(x[..., 1:, :], (*batch, num_queries, num_keys))


def embed_distances(
  num_keys: int, d_model: int, clamp_len: int | None
) -> jax.Array:
  """Returns sinusoids of the distances K - 1, ..., 0, float32 [K, D].

  D is even; distances are clipped to `clamp_len` unless it is None.
  """
  distances = jnp.arange(num_keys - 1, -1, -1, jnp.float32)
  if clamp_len is not None:
    distances = jnp.minimum(distances, clamp_len)
  frequencies = 10_000 ** -(jnp.arange(0, d_model, 2) / d_model)
  angles = distances[:, None] * frequencies[None, :]  # [K, D / 2]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def visible(
  length: jax.Array, num_queries: int, memory_len: int, same_length: bool
) -> jax.Array:
  """Returns the causal mask of keys for each query, bool [B, 1, T, K].

  The last `length` [B] places of the memory are filled; with `same_length` each
  query sees the last M keys only, its own included.
  """
  key = jnp.arange(memory_len + num_queries)[None, :]  # [1, K]
  distance = memory_len + jnp.arange(num_queries)[:, None] - key  # [T, K]
  mask = distance >= 0
  if same_length:
    mask &= distance < memory_len
  held = key >= memory_len - length[:, None]  # [B, K]
  return mask[None, None] & held[:, None, None, :]
