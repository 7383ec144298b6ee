"""One layer of Transformer-XL: attention over the memory, then feed-forward.

B: batch; T: current segment; M: memory; K = M + T; D: d_model.
"""

from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.models import relative_attention as relative


class Sizes(NamedTuple):
  """Sizes of the layers."""

  num_layers: int
  d_model: int
  num_heads: int
  d_head: int
  d_inner: int


class Regime(NamedTuple):
  """Computation of the layers."""

  dropout: float
  attention_dropout: float
  pre_norm: bool
  tie_biases: bool
  clamp_len: int | None
  same_length: bool
  dtype: Any  # of products
  remat: bool


class Layer(hk.Module):
  """Attention and a feed-forward network, each with a shortcut."""

  def __init__(self, sizes: Sizes, regime: Regime, name: str):
    super().__init__(name=name)
    self._sizes, self._regime = sizes, regime

  def __call__(
    self,
    x: jax.Array,
    memory: jax.Array,
    positions: jax.Array,
    biases: relative.Biases | None,
    mask: jax.Array,
    is_training: bool,
  ) -> jax.Array:
    """Returns [B, T, D] for x [B, T, D]; see `RelativeAttention`.

    `memory` is x in the previous segments, [B, M, D].
    """
    regime = self._regime
    attention = _Attention(self._sizes, regime, name='attention')
    x = attention(x, memory, positions, biases, mask, is_training)
    feed_forward = _FeedForward(self._sizes, regime, name='feed_forward')
    return feed_forward(x, is_training)


class _Attention(relative.RelativeAttention):
  """Relative attention with its shortcut and normalization."""

  def __init__(self, sizes: Sizes, regime: Regime, name: str):
    super().__init__(
      num_heads=sizes.num_heads,
      d_head=sizes.d_head,
      dropout=regime.attention_dropout,
      name=name,
    )
    self._regime = regime

  def __call__(self, x, memory, positions, biases, mask, is_training):
    regime, norm = self._regime, _norm()
    keys = jnp.concatenate([memory.astype(x.dtype), x], axis=1)  # [B, K, D]
    if regime.pre_norm:
      keys = norm(keys)
    queries = keys[:, memory.shape[1] :]
    seen = super().__call__(queries, keys, positions, biases, mask, is_training)
    x += relative.drop(seen, regime.dropout, is_training)
    return x if regime.pre_norm else norm(x)


class _FeedForward(hk.Module):
  """Two linear layers with ReLU, shortcut and normalization."""

  def __init__(self, sizes: Sizes, regime: Regime, name: str):
    super().__init__(name=name)
    self._sizes, self._regime = sizes, regime

  def __call__(self, x, is_training):
    sizes, regime, norm = self._sizes, self._regime, _norm()
    y = norm(x) if regime.pre_norm else x
    y = jax.nn.relu(relative.linear(sizes.d_inner, 'linear_0', True)(y))
    y = relative.drop(y, regime.dropout, is_training)
    y = relative.linear(sizes.d_model, 'linear_1', True)(y)
    x += relative.drop(y, regime.dropout, is_training)
    return x if regime.pre_norm else norm(x)


def _norm() -> hk.LayerNorm:
  scale_init = hk.initializers.RandomNormal(0.02, 1.0)
  return hk.LayerNorm(-1, True, True, scale_init=scale_init, name='layer_norm')
