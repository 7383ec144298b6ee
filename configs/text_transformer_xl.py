"""A small Transformer-XL on the King James Version, byte by byte, on a CPU.

  python launch.py --config=configs/text_transformer_xl.py:METHOD,density=D \
      --workdir=DIR
  python -m experiments.sample --workdir=DIR --prompt='In the beginning'

METHOD is dense, static, set, rigl, magnitude (gradual, by magnitude), topkast,
powerprop_magnitude or powerprop_topkast. Further keys, after a comma each:

  density=0.2                       of Top-KAST: forward
  backward_density=0.4              of Top-KAST
  alpha=1.375                       of the powerprop_ methods
  num_steps=1500                    scales all milestones
  path=FILE                         another text, also .gz: its last 5% are for
                                    testing, the 5% before for validation
  quick=1                           a tiny model and a few steps, to try it

The text comes with this repository: 4 million bytes, the last 200,000 for
testing and the 200,000 before for validation. The model has 2.7 million
parameters in 4 layers. The recipe is this project's choice: Adam at 1e-3 after
a warm-up, along a cosine, batches of 8 segments of 64 bytes, no dropout, as
1,500 steps do not read the text once; evaluation with a memory of 128.
Top-KAST changes its sets every 10 steps.

Hardware: one core of a CPU. Bits per character after 1,500 steps, three seeds:
dense 2.130 ± 0.008, Top-KAST at 20% / 40% 2.407 ± 0.037, static at 20% 2.418 ±
0.006.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import language
from configs import methods


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument,
    methods.LARGE,
    **language.KEYS,
    num_steps=1_500,
    path='',
    quick=0,
  )
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
  config.train = language.train(batch_size=8, length=64, num_steps=num_steps)
  config.train.update(log_every=50, eval_every=750, checkpoint_every=250)
  config.evaluation = language.evaluation(segment_len=64, memory_len=128)
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
