"""Attention over a memory, with positions relative to the query.

B: batch; T: queries, the current segment; M: memory; K = M + T: keys, oldest
first; D: d_model; H: heads; C: d_head.
"""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.models import layers

INIT = hk.initializers.RandomNormal(0.02)
MASKED = -1e30  # score; infinity would give NaN gradients


class Biases(NamedTuple):
  """The two learned biases of the queries, u and v in the paper."""

  r_w: jax.Array  # [H, C], for keys
  r_r: jax.Array  # [H, C], for positions


def get_biases(num_heads: int, d_head: int) -> Biases:
  """Returns the biases as parameters of the current Haiku module."""
  shape = (num_heads, d_head)
  return Biases(
    hk.get_parameter('r_w_bias', shape, jnp.float32, INIT),
    hk.get_parameter('r_r_bias', shape, jnp.float32, INIT),
  )


class RelativeAttention(hk.Module):
  """Multi-head attention whose scores are (q + u) k + (q + v) r.

  Reference:
    Dai et al., 2019, "Transformer-XL: Attentive language models beyond a
    fixed-length context". https://arxiv.org/abs/1901.02860
  """

  def __init__(self, *, num_heads: int, d_head: int, dropout: float, name: str):
    super().__init__(name=name)
    self._num_heads, self._d_head = num_heads, d_head
    self._dropout = dropout

  def __call__(
    self,
    queries: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    biases: Biases | None,
    mask: jax.Array,
    is_training: bool,
  ) -> jax.Array:
    """Returns the attention of the queries to the keys, [B, T, D].

    Args:
      queries: [B, T, D].
      keys: [B, K, D], inputs of keys and values; the last T are the queries'.
      positions: [K, D], see `embed_distances`.
      biases: shared by all layers; None for the layer's own.
      mask: bool [B, 1, T, K], see `visible`; True at each query's own key.
      is_training: enables dropout of attention probabilities.
    """
    biases = biases or get_biases(self._num_heads, self._d_head)
    d_model, dtype = queries.shape[-1], queries.dtype
    q = self._heads(queries, 'query')  # [B, T, H, C]
    k = self._heads(keys, 'key')  # [B, K, H, C]
    v = self._heads(keys, 'value')  # [B, K, H, C]
    r = self._heads(positions, 'position')  # [K, H, C]
    u, w = (bias.astype(dtype)[None, None] for bias in biases)
    scores = jnp.einsum(
      'bthc,bkhc->bhtk', q + u, k, preferred_element_type=jnp.float32
    )
    scores += relative_shift(
      jnp.einsum('bthc,khc->bhtk', q + w, r, preferred_element_type=jnp.float32)
    )
    scores = jnp.where(mask, scores * self._d_head**-0.5, MASKED)
    shares = jax.nn.softmax(scores)  # float32 [B, H, T, K]
    shares = drop(shares, self._dropout, is_training).astype(dtype)
    seen = jnp.einsum('bhtk,bkhc->bthc', shares, v)
    seen = jnp.reshape(seen, (*seen.shape[:2], -1))  # [B, T, H * C]
    return linear(d_model, 'output')(seen)

  @hk.name_like('__call__')
  def _heads(self, x: jax.Array, name: str) -> jax.Array:
    """Returns the heads' projections of x [..., D], [..., H, C]."""
    x = linear(self._num_heads * self._d_head, name)(x)
    return jnp.reshape(x, (*x.shape[:-1], self._num_heads, self._d_head))


def linear(width: int, name: str, with_bias: bool = False) -> hk.Module:
  """Returns a linear layer with Transformer-XL's initializer."""
  return layers.Linear(width, with_bias, w_init=INIT, name=name)


def drop(x: jax.Array, rate: float, is_training: bool) -> jax.Array:
  """Returns x after dropout in training, x otherwise."""
  if not is_training or not rate:
    return x
  return hk.dropout(hk.next_rng_key(), rate, x)


def relative_shift(x: jax.Array) -> jax.Array:
  """Returns scores by key of scores by distance: y[t, k] = x[t, T - 1 - t + k].

  Row t of x has the distances K - 1, ..., 0; key k is K - T + t - k before
  query t. Entries of keys after the query are undefined. This is a padded
  column and a reshape, no gather.

  Example:
    >>> relative_shift(jnp.array([[2, 1, 0], [2, 1, 0]]))
    Array([[1, 0, 0],
           [2, 1, 0]], dtype=int32)

  Shapes:
    x: [..., T, K], as is the result.
  """
  *batch, num_queries, num_keys = x.shape
  x = jnp.pad(x, [(0, 0)] * (len(batch) + 1) + [(1, 0)])
  x = jnp.reshape(x, (*batch, num_keys + 1, num_queries))
  return jnp.reshape(x[..., 1:, :], (*batch, num_queries, num_keys))


def embed_distances(
  num_keys: int, d_model: int, clamp_len: int | None
) -> jax.Array:
  """Returns sinusoids of the distances K - 1, ..., 0, float32 [K, D].

  Args:
    num_keys: K.
    d_model: D, even.
    clamp_len: the largest distance, to which others are clipped; or None.
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

  Args:
    length: int [B], number of filled places of the memory, the last ones.
    num_queries: T.
    memory_len: M.
    same_length: limits each query to the last M keys, its own included, so that
      all queries see equally many.
  """
  key = jnp.arange(memory_len + num_queries)[None, :]  # [1, K]
  distance = memory_len + jnp.arange(num_queries)[:, None] - key  # [T, K]
  mask = distance >= 0
  if same_length:
    mask &= distance < memory_len
  held = key >= memory_len - length[:, None]  # [B, K]
  return mask[None, None] & held[:, None, None, :]
