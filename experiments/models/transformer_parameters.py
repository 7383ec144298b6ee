"""Meaning of each parameter of Transformer-XL, and its name in the original.

Names such as `crit.cluster_weight` are those of the released PyTorch model,
https://github.com/kimiyoung/transformer-xl; `i` counts from 0.
"""

import re

# Patterns of paths 'module/name'; the first match counts.
_MEANINGS = tuple(
  (re.compile(pattern + '$'), meaning)
  for pattern, meaning in {
    r'embedding/embeddings_\d+': (
      'embeddings of cluster i, [words, width]; of all words if div_val is 1; '
      'the weights of the softmax too if tied. word_emb.emb_layers.i.weight'
    ),
    r'embedding/projection_\d+': (
      'embeddings of cluster i to d_model, [width, d_model]; of the softmax '
      'too if tied. word_emb.emb_projs.i, transposed'
    ),
    r'softmax/embeddings_\d+': (
      'weights of the softmax of cluster i, [words, width], where not tied. '
      'crit.out_layers.i.weight'
    ),
    r'softmax/projection_\d+': (
      'd_model to the width of cluster i, used transposed, [width, d_model], '
      'where not tied. crit.out_projs.i, transposed'
    ),
    r'softmax/bias_\d+': (
      'bias of each word of cluster i; of all words if div_val is 1. '
      'crit.out_layers.i.bias'
    ),
    'softmax/cluster_embeddings': (
      'weights of the logits that stand for the tails, the last row for the '
      'first tail, [tails, d_embed]. crit.cluster_weight'
    ),
    'softmax/cluster_bias': 'bias of these logits. crit.cluster_bias',
    'r_w_bias': 'bias of queries that meet keys, [heads, d_head]. r_w_bias',
    'r_r_bias': 'bias of queries that meet positions. r_r_bias',
    'attention/query/w': (
      'queries, [d_model, heads * d_head], heads outermost. '
      'layers.i.dec_attn.qkv_net.weight, first third of its rows, transposed'
    ),
    'attention/key/w': 'keys; second third of qkv_net.weight, transposed',
    'attention/value/w': 'values; last third of qkv_net.weight, transposed',
    'attention/position/w': (
      'keys of positions. layers.i.dec_attn.r_net.weight, transposed'
    ),
    'attention/output/w': (
      'heads to d_model, [heads * d_head, d_model]. '
      'layers.i.dec_attn.o_net.weight, transposed'
    ),
    'feed_forward/linear_0/w': (
      'd_model to d_inner. layers.i.pos_ff.CoreNet.0.weight, transposed'
    ),
    'feed_forward/linear_0/b': 'layers.i.pos_ff.CoreNet.0.bias',
    'feed_forward/linear_1/w': (
      'd_inner to d_model. layers.i.pos_ff.CoreNet.3.weight, transposed'
    ),
    'feed_forward/linear_1/b': 'layers.i.pos_ff.CoreNet.3.bias',
    'attention/layer_norm/scale': 'layers.i.dec_attn.layer_norm.weight',
    'attention/layer_norm/offset': 'layers.i.dec_attn.layer_norm.bias',
    'feed_forward/layer_norm/scale': 'layers.i.pos_ff.layer_norm.weight',
    'feed_forward/layer_norm/offset': 'layers.i.pos_ff.layer_norm.bias',
  }.items()
)


def meaning(path: str) -> str:
  """Returns the meaning of the parameter at a path `'module/name'`."""
  for pattern, text in _MEANINGS:
    if pattern.search(path):
      return text
  raise KeyError(path)
