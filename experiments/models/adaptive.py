"""Adaptive input and adaptive softmax: rare words have narrow embeddings.

The vocabulary, by frequency, is cut into clusters: the shortlist, with a logit
per word and one per tail, and the tails, each with its own softmax.

N: tokens; V: words; D: d_model; E: width of an embedding.
"""

import functools
import itertools
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import optax

from experiments import mesh as mesh_lib
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
      rows = jnp.take(table, tokens - first, axis=0, mode='clip')
      inside = _is_inside((first, last), tokens)
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

  def __init__(
    self,
    vocabulary: Vocabulary,
    tables: tuple[list, list],
    mesh: jax.sharding.Mesh | None = None,
  ):
    """The tokens of `nll` are divided among the devices of a mesh."""
    self._bounds = vocabulary.bounds
    self._parts = _get_parts(vocabulary, *tables)
    self._mesh = mesh

  def nll(self, x: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns -log p(target), float32 [N], of x [N, D] and targets [N]."""
    head_targets, tails = targets, []
    for i, bounds in enumerate(self._bounds[1:], 1):
      inside = _is_inside(bounds, targets)
      head_targets = jnp.where(inside, self._column(i), head_targets)
      tails.append((bounds, self._parts[i]))
    nll = optax.softmax_cross_entropy_with_integer_labels(
      _logits(self._parts[0], x), head_targets
    )
    for bounds, part in tails:
      of_some = functools.partial(_nll_of_some, bounds)
      if self._mesh is not None and self._mesh.size > 1:
        split, whole = PartitionSpec(mesh_lib.DATA), PartitionSpec()
        of_some = jax.shard_map(
          of_some,
          mesh=self._mesh,
          in_specs=(whole, split, split),
          out_specs=split,
          # Gradients are summed once, outside: blocks that only some devices
          # compute must not wait for the others.
          check_vma=False,
        )
      nll += of_some(part, x, targets)
    return nll

  def log_probs(self, x: jax.Array) -> jax.Array:
    """Returns log p of every word, float32 [N, V]."""
    head = jax.nn.log_softmax(_logits(self._parts[0], x))
    parts = [head[:, : self._bounds[0][1]]]
    for i, part in enumerate(self._parts[1:], 1):
      column = self._column(i)
      inside = jax.nn.log_softmax(_logits(part, x))
      parts.append(head[:, column : column + 1] + inside)
    return jnp.concatenate(parts, axis=-1)

  def _column(self, i: int) -> int:
    """Returns the shortlist's logit of tail i: the last for the first tail."""
    shortlist, *tails = self._bounds
    return shortlist[1] + len(tails) - i


def _get_parts(
  vocabulary: Vocabulary, tables: list, projections: list
) -> list[tuple[Any, list]]:
  """Returns for each cluster a projection or None, and tables with biases."""
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
  return list(zip(projections, parts, strict=True))


def _get_projection(i: int, width: int, d_model: int) -> jax.Array:
  return hk.get_parameter(
    f'projection_{i}', (width, d_model), jnp.float32, _PROJECTION_INIT
  )


def _logits(part: tuple[Any, list], x: jax.Array) -> jax.Array:
  """Returns logits, float32 [N, ...]; products are in the dtype of x."""
  projection, words = part
  if projection is not None:
    x = x @ projection.astype(x.dtype).T
  logits = [
    jnp.matmul(x, table.astype(x.dtype).T, preferred_element_type=jnp.float32)
    + bias[None]
    for table, bias in words
  ]
  return jnp.concatenate(logits, axis=-1) if len(logits) > 1 else logits[0]


def _is_inside(bounds: tuple[int, int], tokens: jax.Array) -> jax.Array:
  first, last = bounds
  return (first <= tokens) & (tokens < last)


def _nll_of_some(bounds, part, x, targets) -> jax.Array:
  """Returns -log p(target) of targets in a tail, 0 of others; float32 [N].

  Tokens inside are sorted to the front and computed in blocks; blocks without
  any are skipped. So time grows with the number of tokens inside, and only one
  block's logits are in memory.
  """
  num_tokens = x.shape[0]
  size = -(-num_tokens // NUM_BLOCKS)
  inside = _is_inside(bounds, targets)
  order = jnp.argsort(~inside, stable=True)
  padding = size * NUM_BLOCKS - num_tokens

  def split(values):
    widths = [(0, padding)] + [(0, 0)] * (values.ndim - 1)
    values = jnp.pad(values[order], widths)
    return jnp.reshape(values, (NUM_BLOCKS, size, *values.shape[1:]))

  def compute(x, targets, inside):
    logits = _logits(part, x)
    targets = jnp.clip(targets - bounds[0], 0, logits.shape[-1] - 1)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.where(inside, nll, 0.0)

  def skip(x, targets, inside):
    del x, targets
    return jnp.where(inside, 1.0, 0.0)  # all False

  # Outside of the `cond`, whose branches would keep the tables for each block.
  @jax.checkpoint
  def body(_, block):
    return None, jax.lax.cond(jnp.any(block[2]), compute, skip, *block)

  _, nll = jax.lax.scan(body, None, jax.tree.map(split, (x, targets, inside)))
  nll = jnp.reshape(nll, -1)[:num_tokens]
  return jnp.zeros_like(nll).at[order].set(nll)
