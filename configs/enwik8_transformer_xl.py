"""Transformer-XL on enwik8, byte by byte: every method, at two sizes.

  python launch.py \
      --config=configs/enwik8_transformer_xl.py:METHOD,size=SIZE,density=D \
      --config.data.path=FOLDER/enwik8.zip --workdir=DIR

METHOD is one of `methods.LARGE`; SIZE is base (12 layers, 41 million
parameters) or large (24 layers, 277 million). `num_steps` (400,000) scales all
milestones; further keys are those of `language.KEYS`.

Sizes and recipe are those of https://github.com/kimiyoung/transformer-xl, which
reports, dense, 1.06 (base) and 0.99 (large) bits per character; products are in
bfloat16 here. Differs from that code: the warm-up of W steps (large only)
begins at 1/W of the learning rate, and the cosine counts from its end; the
released PyTorch code counts the cosine from step 0 and makes the first step at
the full rate. Which layers Top-KAST left dense and its schedule are unknown to
us. Hardware: GPUs or TPUs (the batch of 22 of the base size divides among 1, 2,
11 or 22: --config.train.num_devices); not trained by us.
"""

import ml_collections

from configs import language

SIZES = {
  'base': dict(
    model={
      'num_layers': 12, 'd_model': 512, 'num_heads': 8, 'd_head': 64,
      'd_inner': 2048, 'dropout': 0.1, 'attention_dropout': 0.0,
    },
    length=512,
    evaluation=dict(segment_len=80, memory_len=2100, clamp_len=820),
    batch_size=22,
    num_devices=1,
    warmup_steps=0,
    num_steps=400_000,
  ),
  'large': dict(
    model={
      'num_layers': 24, 'd_model': 1024, 'num_heads': 8, 'd_head': 128,
      'd_inner': 3072, 'dropout': 0.15, 'attention_dropout': 0.15,
    },
    length=768,
    evaluation=dict(segment_len=128, memory_len=3800, clamp_len=1000),
    batch_size=64,
    num_devices=None,
    warmup_steps=4_000,
    num_steps=400_000,
  ),
}  # fmt: skip


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  data = dict(name='enwik8', path='enwik8.zip')
  return language.published(argument, SIZES, data, vocab_size=256)
