"""Transformer-XL on WikiText-103, word by word: every method, at two sizes.

  python launch.py \
      --config=configs/wikitext103_transformer_xl.py:METHOD,size=SIZE \
      --config.data.path=FOLDER --workdir=DIR

FOLDER holds wiki.{train,valid,test}.tokens. `num_steps` is 200,000 for base and
4,000,000 for large; all else is as in `configs/enwik8_transformer_xl.py`, with
the same departure in the warm-up of the large size. The released code reports,
dense, a perplexity of 24.03 (base, 151 million parameters) and 18.3 (large, 257
million); with the 18 layers of its script the large model has 285.2 million.
"""

import ml_collections
from ml_collections import config_dict

from configs import language

SIZES = {
  'base': dict(
    model={
      'num_layers': 16, 'd_model': 410, 'num_heads': 10, 'd_head': 41,
      'd_inner': 2100, 'dropout': 0.1, 'attention_dropout': 0.0, 'div_val': 1,
    },
    length=150,
    evaluation=dict(segment_len=64, memory_len=640, clamp_len=400),
    batch_size=60,
    num_devices=None,
    warmup_steps=0,
    num_steps=200_000,
  ),
  'large': dict(
    model={
      'num_layers': 18, 'd_model': 1024, 'num_heads': 16, 'd_head': 64,
      'd_inner': 4096, 'dropout': 0.2, 'attention_dropout': 0.2, 'div_val': 4,
    },
    length=384,
    evaluation=dict(segment_len=128, memory_len=1600, clamp_len=1000),
    batch_size=128,
    num_devices=None,
    warmup_steps=16_000,
    num_steps=4_000_000,
  ),
}  # fmt: skip


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  return language.published(
    argument,
    SIZES,
    dict(
      name='wikitext103',
      path='wikitext-103',
      cache_dir=config_dict.placeholder(str),  # None: beside the files
    ),
    vocab_size=267_735,
    cutoffs=(20_000, 40_000, 200_000),
    tie_projections=(False, True, True, True),
  )
