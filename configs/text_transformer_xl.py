"""A small Transformer-XL on the King James Version, byte by byte, on a CPU.

  python launch.py --config=configs/text_transformer_xl.py:METHOD,density=D \
      --workdir=DIR
  python -m experiments.sample --workdir=DIR --prompt='In the beginning'

METHOD is one of `methods.LARGE`; further keys are those of `language.KEYS`,
`num_steps`, which scales all milestones, `quick=1` for a tiny model, and
`path=FILE` for another text, also gzipped, such as gcide.dict.dz of Debian's
package dict-gcide: its last 5% are for testing, the 5% before for validation.

The text comes with this repository, the model has 2.7 million parameters in 4
layers, the recipe is this project's choice. Hardware: one core of a CPU. Bits
per character after 1,500 steps, three seeds: dense 2.130 ± 0.008, Top-KAST at
20% / 40% 2.407 ± 0.037, static at 20% 2.418 ± 0.006.
"""

import ml_collections

from configs import arguments
from configs import language
from configs import methods

SIZE = {
  'model': {
    'num_layers': 4, 'd_model': 224, 'num_heads': 7, 'd_head': 32,
    'd_inner': 896, 'dropout': 0.0, 'attention_dropout': 0.0,
  },
  'length': 64, 'evaluation': {'segment_len': 64, 'memory_len': 128},
  'batch_size': 8, 'num_devices': 1, 'warmup_steps': 200,
}  # fmt: skip
QUICK = {
  'model': {
    'num_layers': 1, 'd_model': 32, 'num_heads': 2, 'd_head': 16,
    'd_inner': 64,
  },
  'train': {
    'batch_size': 4, 'segment_len': 16, 'memory_len': 16, 'log_every': 10,
    'eval_every': 10, 'checkpoint_every': 10,
  },
  'evaluation': {
    'batch_size': 4, 'segment_len': 16, 'memory_len': 32, 'num_tokens': 1_000,
  },
}  # fmt: skip


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the config."""
  variant, given = arguments.parse(
    argument,
    methods.LARGE,
    methods.unused_large,
    **language.KEYS,
    num_steps=1_500,
    path='',
    quick=0,
  )
  num_steps = 20 if given['quick'] else given['num_steps']
  data = dict(name='kjv')
  if given['path']:
    data = dict(name='file', path=given['path'], held_out=0.05)
  is_topkast = variant.endswith('topkast')
  config = language.make(
    variant,
    given,
    SIZE | {'num_steps': num_steps},
    data=data,
    refresh_every=10 if is_topkast else max(1, num_steps // 60),
    learning_rate=1e-3,
    vocab_size=256,
  )
  config.train.update(log_every=50, eval_every=750, checkpoint_every=250)
  if given['quick']:
    config.update(QUICK)
  return config
