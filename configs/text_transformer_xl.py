"""A small Transformer-XL on the King James Version, byte by byte, on a CPU.

  python launch.py --config=configs/text_transformer_xl.py:METHOD,density=D \
      --workdir=DIR
  python -m experiments.sample --workdir=DIR --prompt='In the beginning'

METHOD is dense, static, set, rigl, magnitude (gradual, by magnitude), topkast,
powerprop_magnitude or powerprop_topkast. Further keys, after a comma each:

  density=0.2                       of Top-KAST: forward
  backward_density=0.4              of Top-KAST
  alpha=1.375                       of the powerprop_ methods
  num_steps=1500                    which all milestones follow
  path=FILE                         another text, also .gz: its last 5% are for
                                    testing, the 5% before for validation
  quick=1                           a tiny model and a few steps, to try it

The text comes with this repository: 4 million bytes, the last 200,000 for
testing and the 200,000 before for validation. The model has 2.7 million
parameters in 4 layers. The recipe is a choice of this project: Adam at 1e-3
after a warm-up, along a cosine, batches of 8 segments of 64 bytes, no dropout,
as 1,500 steps do not read the text once; evaluation with a memory of 128.
Top-KAST chooses its sets each 10 steps.

Hardware: two cores of a CPU; `make demo-text` trains for a few minutes. Run so
far: the tiny model of quick=1, in the tests; no figures are expected.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs import language


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = language.parse(argument, num_steps=1_500, path='', quick=0)
  num_steps = 20 if given['quick'] else given['num_steps']
  is_topkast = variant.endswith('topkast')
  config = language.make(
    variant,
    given,
    num_steps=num_steps,
    refresh_every=10 if is_topkast else max(1, num_steps // 60),
  )
  config.data = _data(given['path'])
  config.model = language.model(
    vocab_size=256,
    num_layers=4,
    d_model=224,
    num_heads=7,
    d_head=32,
    d_inner=896,
    dropout=0.0,
    attention_dropout=0.0,
  )
  config.optimizer = language.adam(
    learning_rate=1e-3,
    warmup_steps=min(200, num_steps // 10),
    num_steps=num_steps,
  )
  config.train = dict(
    batch_size=8,
    segment_len=64,
    memory_len=64,
    num_micro=1,
    num_devices=1,
    model_devices=1,
    num_steps=num_steps,
    log_every=50,
    eval_every=750,
    checkpoint_every=250,
    keep_checkpoints=2,
    on_not_finite='stop',
  )
  config.evaluation = dict(
    batch_size=16,
    segment_len=64,
    memory_len=128,
    clamp_len=config_dict.placeholder(int),
    same_length=True,
    num_tokens=config_dict.placeholder(int),
  )
  if given['quick']:
    _shrink(config)
  return config


def _data(path: str) -> dict[str, Any]:
  content = dict(unit='byte', max_words=config_dict.placeholder(int))
  if not path:
    return dict(name='kjv', **content)
  cache_dir = config_dict.placeholder(str)  # None: beside the file
  return dict(
    name='file', path=path, held_out=0.05, cache_dir=cache_dir, **content
  )


def _shrink(config: ml_collections.ConfigDict) -> None:
  config.model.update(
    num_layers=1, d_model=32, d_embed=32, num_heads=2, d_head=16, d_inner=64
  )
  config.train.update(
    batch_size=4,
    segment_len=16,
    memory_len=16,
    log_every=10,
    eval_every=10,
    checkpoint_every=10,
  )
  config.evaluation.update(
    batch_size=4, segment_len=16, memory_len=32, num_tokens=1_000
  )
