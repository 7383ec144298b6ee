"""Transformer-XL: a language model with a memory of its own hidden states.

Parameters, and their names in the released PyTorch model
(https://github.com/kimiyoung/transformer-xl); i is a cluster of words or a
layer, and T marks matrices that are transposed there:

  embedding/embeddings_i      word_emb.emb_layers.i.weight
  embedding/projection_i      word_emb.emb_projs.i, T
  softmax/projection_i        crit.out_projs.i, where not tied
  softmax/bias_i              crit.out_layers.i.bias
  softmax/cluster_embeddings  crit.cluster_weight, last row for the first tail
  softmax/cluster_bias        crit.cluster_bias
  r_w_bias, r_r_bias          the same; biases for keys and for positions
  layer_i/attention/          layers.i.dec_attn.
    query/w, key/w, value/w     qkv_net.weight, thirds of its rows, T
    position/w, output/w        r_net.weight, T, and o_net.weight, T
    layer_norm/scale, offset    layer_norm.weight, bias
  layer_i/feed_forward/       layers.i.pos_ff.
    linear_0/w, b               CoreNet.0.weight, T, and bias
    linear_1/w, b               CoreNet.3.weight, T, and bias
    layer_norm/scale, offset    layer_norm.weight, bias

B: batch; T: current segment; M: memory; K = M + T; D: d_model; V: words.
"""

from collections.abc import Callable
import functools
import math
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from experiments import build
from experiments.models import adaptive
from experiments.models import layers
from experiments.models import transformer_layer


class Memory(NamedTuple):
  """Hidden states of previous segments; no gradient flows into them."""

  hidden: tuple[jax.Array, ...]  # inputs of each layer, [B, M, D]
  length: jax.Array  # int32 [B], number of filled places, the last of M


class TransformerXL(NamedTuple):
  """Pure functions of one model."""

  # key -> parameters
  init: Callable[[jax.Array], hk.Params]
  # (batch_size, memory_len) -> empty Memory
  memory: Callable[[int, int], Memory]
  # (params, memory, key or None, tokens [B, T], targets [B, T], is_training)
  # -> -log p of each target, float32 [B, T]; memory after the segment
  apply: Callable[..., tuple[jax.Array, Memory]]
  # (params, memory, tokens [B, T])
  # -> log p of every next word, float32 [B, V]; memory after the segment
  predict: Callable[..., tuple[jax.Array, Memory]]


class _Net(NamedTuple):
  vocabulary: adaptive.Vocabulary
  settings: transformer_layer.Settings
  clamp_len: int | None
  same_length: bool
  dtype: str
  remat: str
  mesh: jax.sharding.Mesh | None


def transformer_xl(
  *,
  vocab_size: int,
  num_layers: int,
  d_model: int,
  num_heads: int,
  d_head: int,
  d_inner: int,
  dropout: float,
  attention_dropout: float,
  tie_projections: tuple[bool, ...],
  cutoffs: tuple[int, ...],
  div_val: int,
  compute_dtype: str,
  clamp_len: int | None = None,
  same_length: bool = False,
  init_std: float = 0.02,
  remat: str = 'none',
  mesh: jax.sharding.Mesh | None = None,
) -> TransformerXL:
  """Returns the model; the memory length is that of the memory given.

  Input and softmax share the embeddings, and all layers the biases of the
  queries. A sub-layer's output is normalized, not its input.

  Args:
    d_model: D, even.
    d_inner: hidden width of the feed-forward network.
    dropout: of embeddings, positions, and outputs of sub-layers.
    tie_projections: share projections too, per cluster; (False, True, ...) in
      the released scripts.
    cutoffs: first word of each tail of the adaptive softmax; () for the full
      softmax.
    div_val: embeddings of tail i have width d_model // div_val**i.
    clamp_len: largest distance, to which others are clipped; or None.
    same_length: each token attends to equally many, the memory's length.
    init_std: standard deviation of the first weights of attention and
      feed-forward, 0.02 in the released code; narrow models need more.
    compute_dtype: 'float32' or 'bfloat16'; parameters, normalization, softmax
      and loss are float32.
    remat: activations that the backward pass computes again instead of
      keeping them: 'none', 'attention', or 'blocks' for whole layers.
    mesh: devices among which the tails of the softmax are divided.

  Reference:
    Dai et al., 2019, "Transformer-XL: Attentive language models beyond a
    fixed-length context". https://arxiv.org/abs/1901.02860
  """
  vocabulary = adaptive.Vocabulary(
    vocab_size, d_model, tuple(cutoffs), div_val, tuple(tie_projections)
  )
  settings = transformer_layer.Settings(
    num_heads, d_head, d_inner, dropout, attention_dropout, init_std
  )
  net = _Net(
    vocabulary, settings, clamp_len, same_length, compute_dtype, remat, mesh
  )
  _check(net, num_layers)

  def empty(batch_size: int, memory_len: int) -> Memory:
    shape = (batch_size, memory_len, d_model)
    hidden = tuple(jnp.zeros(shape, compute_dtype) for _ in range(num_layers))
    return Memory(hidden, jnp.zeros(batch_size, jnp.int32))

  applied = hk.transform(functools.partial(_nll, net))

  @hk.without_apply_rng
  @hk.transform
  def predicted(memory, tokens):
    with hk.name_scope('transformer_xl'):
      x, memory, softmax = _hidden(net, tokens, memory, False)
    return softmax.log_probs(x[:, -1]), memory

  def init(key):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return applied.init(key, tokens, tokens, empty(1, 1), False)

  return TransformerXL(
    init=init,
    memory=empty,
    apply=lambda params, memory, key, tokens, targets, is_training: (
      applied.apply(params, key, tokens, targets, memory, is_training)
    ),
    predict=predicted.apply,
  )


def _nll(net: _Net, tokens, targets, memory, is_training):
  """Returns -log p of each target, [B, T], and the memory after them."""
  with hk.name_scope('transformer_xl'):
    x, memory, softmax = _hidden(net, tokens, memory, is_training)
  x = jnp.reshape(x, (-1, x.shape[-1]))  # [B * T, D]
  nll = softmax.nll(x, jnp.asarray(targets).reshape(-1))
  return jnp.reshape(nll, targets.shape), memory


def _hidden(net: _Net, tokens, memory, is_training):
  """Returns the last layer's output, the memory after it, and the softmax."""
  settings, dtype = net.settings, net.dtype
  tokens = jnp.asarray(tokens)
  num_queries, memory_len = tokens.shape[1], memory.hidden[0].shape[1]
  if net.same_length and not memory_len:
    raise ValueError(
      'expected a memory of at least 1 with same_length, for each token '
      "attends to as many as the memory's length; got none"
    )
  mask = transformer_layer.visible(
    memory.length, num_queries, memory_len, net.same_length
  )
  positions = transformer_layer.embed_distances(
    memory_len + num_queries, net.vocabulary.d_model, net.clamp_len
  ).astype(dtype)
  positions = layers.drop(positions, settings.dropout, is_training)
  biases = transformer_layer.get_biases(settings)
  with hk.name_scope('embedding'):
    tables = adaptive.get_tables(net.vocabulary)
  x = adaptive.embed(net.vocabulary, tables, tokens).astype(dtype)
  x = layers.drop(x, settings.dropout, is_training)
  hidden = []
  with layers.precision(dtype):
    for i, before in enumerate(memory.hidden):
      hidden.append(_push(before, x))
      before = jax.lax.stop_gradient(before)
      with hk.name_scope(f'layer_{i}'):
        x = _layer(net, is_training, x, before, positions, biases, mask)
  x = layers.drop(x, settings.dropout, is_training)
  length = jnp.minimum(memory.length + num_queries, memory_len)
  with hk.name_scope('softmax'):
    softmax = adaptive.Softmax(net.vocabulary, tables, net.mesh)
  return x, Memory(tuple(hidden), length), softmax


def _layer(net: _Net, is_training: bool, *inputs) -> jax.Array:
  """Returns a layer's output [B, T, D] of the inputs of attention."""
  remat = net.remat if is_training else 'none'

  def attention(*inputs):
    with hk.name_scope('attention'):
      return transformer_layer.attend(net.settings, *inputs, is_training)

  def block(*inputs):
    x = layers.remat(attention, remat == 'attention')(*inputs)
    with hk.name_scope('feed_forward'):
      return transformer_layer.feed_forward(net.settings, x, is_training)

  return layers.remat(block, remat == 'blocks')(*inputs)


def _push(memory: jax.Array, x: jax.Array) -> jax.Array:
  """Returns the last M of memory and x, [B, M, D], without gradient."""
  both = jnp.concatenate([memory, x.astype(memory.dtype)], axis=1)
  return jax.lax.stop_gradient(both[:, x.shape[1] :])


def _check(net: _Net, num_layers: int) -> None:
  """Raises ValueError if a size or rate is out of range."""
  d_model = net.vocabulary.d_model
  sizes = {'num_layers': num_layers, 'd_model': d_model}
  sizes |= net.settings._asdict()
  for name in ('num_layers', 'd_model', 'num_heads', 'd_head', 'd_inner'):
    build.check_range(1, math.inf, **{name: sizes[name]})
  if d_model % 2:
    raise ValueError(
      'expected an even d_model, for positions are sines and cosines, got '
      f'{d_model}'
    )
  for name in ('dropout', 'attention_dropout'):
    build.check_range(0, 1, **{name: sizes[name]})
  build.check_range(0, math.inf, init_std=net.settings.init_std)
  layers.check_dtype(net.dtype)
  layers.check_remat(net.remat)
  if net.clamp_len is not None:
    build.check_range(1, math.inf, clamp_len=net.clamp_len)
  adaptive.check(net.vocabulary)
