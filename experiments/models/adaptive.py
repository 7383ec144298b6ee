"""Adaptive input and adaptive softmax: rare words have narrow embeddings.

The vocabulary, by frequency, is cut into clusters: the shortlist, with a logit
per word and one per tail, and the tails, each with its own softmax.

N: tokens; V: words; D: d_model; E: width of an embedding.
"""

from collections.abc import Callable
import functools
import itertools
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from experiments.models import transformer_layer

NUM_BLOCKS = 16  # of the tokens of a tail

_PROJECTION_INIT = hk.initializers.RandomNormal(0.01)


class Vocabulary(NamedTuple):
  """The clusters of words, and their tied parameters."""

  size: int  # V
  d_model: int  # E of the shortlist
  cutoffs: tuple[int, ...]  # the first word of each tail
  div_val: int  # E of tail i is d_model // div_val**i
  tie_projections: tuple[bool, ...]  # for each cluster

  @property
  def bounds(self) -> list[tuple[int, int]]:
    """First word of each cluster, and the first after it."""
    ends = (0, *self.cutoffs, self.size)
    return list(itertools.pairwise(ends))

  @property
  def tables(self) -> list[tuple[int, int]]:
    """Shape of each embedding table; a single one if all are equally wide."""
    if self.div_val == 1:
      return [(self.size, self.d_model)]
    return [
      (last - first, self.d_model // self.div_val**i)
      for i, (first, last) in enumerate(self.bounds)
    ]


def check(vocabulary: Vocabulary) -> None:
  """Raises ValueError if a field of a vocabulary is out of range."""
  size, cutoffs = vocabulary.size, vocabulary.cutoffs
  ends = (0, *cutoffs, size)
  if any(a >= b for a, b in itertools.pairwise(ends)):
    raise ValueError(
      f'expected cutoffs that rise from 1 to vocab_size - 1 = {size - 1}, got '
      f'{cutoffs}'
    )
  if vocabulary.div_val < 1 or any(width < 1 for _, width in vocabulary.tables):
    raise ValueError(
      'expected div_val >= 1 that leaves each cluster a width, d_model // '
      f'div_val**i >= 1; got div_val={vocabulary.div_val}, d_model='
      f'{vocabulary.d_model} and {len(cutoffs) + 1} clusters'
    )
  if len(vocabulary.tie_projections) != len(cutoffs) + 1:
    raise ValueError(
      f'expected {len(cutoffs) + 1} flags in tie_projections, one for each '
      f'cluster, got {vocabulary.tie_projections}'
    )


def get_tables(
  vocabulary: Vocabulary,
) -> tuple[list[jax.Array], list[jax.Array]]:
  """Returns tables [V_i, E_i], and projections [E_i, D] if `div_val` > 1.

  These are parameters of the current module, of embeddings and softmax.
  """
  tables = [
    hk.get_parameter(
      f'embeddings_{i}', shape, jnp.float32, transformer_layer.INIT
    )
    for i, shape in enumerate(vocabulary.tables)
  ]
  return tables, [
    _get_projection(i, width, vocabulary.d_model)
    for i, (_, width) in enumerate(vocabulary.tables)
    if vocabulary.div_val > 1
  ]


def embed(
  vocabulary: Vocabulary, tables: tuple[list, list], tokens: jax.Array
) -> jax.Array:
  """Returns embeddings times sqrt(D), float32 [..., D], of tokens [...]."""
  if vocabulary.div_val == 1:
    x = jnp.take(tables[0][0], tokens, axis=0, mode='clip')
  else:
    x = jnp.zeros((*tokens.shape, vocabulary.d_model))
    for (first, last), table, projection in zip(
      vocabulary.bounds, *tables, strict=True
    ):
      inside = (first <= tokens) & (tokens < last)
      rows = jnp.take(table, tokens - first, axis=0, mode='clip')
      x = jnp.where(inside[..., None], rows @ projection, x)
  return x * vocabulary.d_model**0.5


class Softmax:
  """Softmax over words, with parameters of the current module.

  Reference:
    Grave et al., 2017, "Efficient softmax approximation for GPUs".
    https://arxiv.org/abs/1609.04309
    Baevski and Auli, 2019, "Adaptive input representations for neural language
    modeling". https://arxiv.org/abs/1809.10853
  """

  def __init__(self, vocabulary: Vocabulary, tables: tuple[list, list]):
    self._bounds = vocabulary.bounds
    self._scores = _get_scores(vocabulary, *tables)

  def nll(self, x: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns -log p(target), float32 [N], of x [N, D] and targets [N]."""
    head_targets, tails = targets, []
    for i, (first, last) in enumerate(self._bounds[1:], 1):
      inside = (first <= targets) & (targets < last)
      head_targets = jnp.where(inside, self._column(i), head_targets)
      tails.append((self._scores[i], targets - first, inside))
    nll = optax.softmax_cross_entropy_with_integer_labels(
      self._scores[0](x), head_targets
    )
    for tail in tails:
      nll += _nll_of_some(x, *tail)
    return nll

  def log_probs(self, x: jax.Array) -> jax.Array:
    """Returns log p of every word, float32 [N, V]."""
    head = jax.nn.log_softmax(self._scores[0](x))
    parts = [head[:, : self._bounds[0][1]]]
    for i, score in enumerate(self._scores[1:], 1):
      column = self._column(i)
      inside = jax.nn.log_softmax(score(x))
      parts.append(head[:, column : column + 1] + inside)
    return jnp.concatenate(parts, axis=-1)

  def _column(self, i: int) -> int:
    """Returns the shortlist's logit of tail i: the last for the first tail."""
    shortlist, *tails = self._bounds
    return shortlist[1] + len(tails) - i


def _get_scores(
  vocabulary: Vocabulary, tables: list, projections: list
) -> list[Callable[[jax.Array], jax.Array]]:
  """Returns a function per cluster: x [N, D] to logits [N, ...]."""
  biases = [
    hk.get_parameter(f'bias_{i}', [num_words], jnp.float32, jnp.zeros)
    for i, (num_words, _) in enumerate(vocabulary.tables)
  ]
  if vocabulary.div_val == 1:
    spans = [slice(*bounds) for bounds in vocabulary.bounds]
    tables = [tables[0][span] for span in spans]
    biases = [biases[0][span] for span in spans]
    projections = [None] * len(spans)
  else:
    projections = [
      p if tied else _get_projection(i, *p.shape)
      for i, (p, tied) in enumerate(
        zip(projections, vocabulary.tie_projections, strict=True)
      )
    ]
  parts = [[(table, bias)] for table, bias in zip(tables, biases, strict=True)]
  if num_tails := len(vocabulary.cutoffs):
    shape = (num_tails, vocabulary.d_model)
    table = hk.get_parameter(
      'cluster_embeddings', shape, jnp.float32, transformer_layer.INIT
    )
    bias = hk.get_parameter('cluster_bias', shape[:1], jnp.float32, jnp.zeros)
    parts[0].append((table, bias))
  return [
    functools.partial(_logits, projection, words)
    for projection, words in zip(projections, parts, strict=True)
  ]


def _get_projection(i: int, width: int, d_model: int) -> jax.Array:
  return hk.get_parameter(
    f'projection_{i}', (width, d_model), jnp.float32, _PROJECTION_INIT
  )


def _logits(projection: jax.Array | None, words, x: jax.Array) -> jax.Array:
  """Returns logits, float32 [N, ...]; products are in the dtype of x."""
  if projection is not None:
    x = x @ projection.astype(x.dtype).T
  logits = [
    jnp.matmul(x, table.astype(x.dtype).T, preferred_element_type=jnp.float32)
    + bias[None]
    for table, bias in words
  ]
  return jnp.concatenate(logits, axis=-1) if len(logits) > 1 else logits[0]


def _nll_of_some(x, score, targets, inside) -> jax.Array:
  """Returns -log p(target) where `inside`, else 0; float32 [N].

  Tokens inside are sorted to the front and computed in blocks; blocks without
  any are skipped. So time grows with the number of tokens inside, and only one
  block's logits are in memory.
  """
  num_tokens = x.shape[0]
  size = -(-num_tokens // NUM_BLOCKS)
  order = jnp.argsort(~inside, stable=True)
  padding = size * NUM_BLOCKS - num_tokens

  def split(values):
    widths = [(0, padding)] + [(0, 0)] * (values.ndim - 1)
    values = jnp.pad(values[order], widths)
    return jnp.reshape(values, (NUM_BLOCKS, size, *values.shape[1:]))

  @jax.checkpoint
  def compute(x, targets):
    logits = score(x)
    targets = jnp.clip(targets, 0, logits.shape[-1] - 1)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)

  def body(_, block):
    x, targets, inside = block
    nll = jax.lax.cond(
      jnp.any(inside), compute, lambda x, _: jnp.zeros(size), x, targets
    )
    return None, jnp.where(inside, nll, 0.0)

  _, nll = jax.lax.scan(body, None, jax.tree.map(split, (x, targets, inside)))
  nll = jnp.reshape(nll, -1)[:num_tokens]
  return jnp.zeros(num_tokens).at[order].set(nll)
