"""Transformer-XL on enwik8, byte by byte: every method, at two sizes.

  python launch.py \
      --config=configs/enwik8_transformer_xl.py:METHOD,size=SIZE,density=D \
      --config.data.path=FOLDER/enwik8.zip --workdir=DIR

METHOD is dense, static, set, rigl, magnitude (gradual, by magnitude), topkast,
powerprop_magnitude or powerprop_topkast; SIZE is base (12 layers, 41 million
parameters) or large (24 layers, 277 million). Further keys, after a comma each:

  density=0.2                       of Top-KAST: forward
  backward_density=0.4              of Top-KAST
  alpha=1.375                       of the powerprop_ methods; a choice of ours
  num_steps=400000                  which all milestones follow

Sizes, dropout, lengths, batch, learning rate, warm-up and number of steps are
those of the training scripts of https://github.com/kimiyoung/transformer-xl,
which reports, dense, 1.06 (base) and 0.99 (large) bits per character. Which
layers Top-KAST left dense and its schedule are not known to us; here all
matrices of attention and feed-forward are sparse, and the sets are chosen each
100 steps. Departures: products in bfloat16, parameters in float32; a vocabulary
of all 256 bytes, of which the text has fewer.

Hardware: meant for GPUs or TPUs; it was not trained by us. What was run: the
step at its full size is lowered for CPU, GPU and TPU. The batch of 22 of the
base size divides among 1, 2, 11 or 22 devices: --config.train.num_devices.
"""

import ml_collections
from ml_collections import config_dict

from configs import language

SIZES = {
  'base': dict(
    model=dict(
      num_layers=12,
      d_model=512,
      num_heads=8,
      d_head=64,
      d_inner=2048,
      dropout=0.1,
      attention_dropout=0.0,
    ),
    length=512,
    evaluation=dict(segment_len=80, memory_len=2100, clamp_len=820),
    batch_size=22,
    num_devices=1,
    warmup_steps=0,
  ),
  'large': dict(
    model=dict(
      num_layers=24,
      d_model=1024,
      num_heads=8,
      d_head=128,
      d_inner=3072,
      dropout=0.15,
      attention_dropout=0.15,
    ),
    length=768,
    evaluation=dict(segment_len=128, memory_len=3800, clamp_len=1000),
    batch_size=64,
    num_devices=None,
    warmup_steps=4_000,
  ),
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = language.parse(argument, num_steps=400_000, size='base')
  size = language.choose(SIZES, given['size'])
  num_steps = given['num_steps']
  config = language.make(variant, given, num_steps=num_steps, refresh_every=100)
  config.data = dict(
    name='enwik8', path='enwik8.zip', cache_dir=config_dict.placeholder(str)
  )
  config.model = language.model(
    vocab_size=256, **size['model'], compute_dtype='bfloat16'
  )
  config.update(language.sections(size, num_steps=num_steps))
  return config
