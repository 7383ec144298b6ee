"""A small Transformer-XL on the King James Version, byte by byte, on a CPU.

  python launch.py --config=configs/text_transformer_xl.py:METHOD,density=D \
      --workdir=DIR
  python -m experiments.sample --workdir=DIR --prompt='In the beginning'

METHOD is one of `methods.LARGE`; further keys are those of `language.KEYS`,
`rate`, the learning rate (0: that of `TUNED`), `num_steps`, which scales all
milestones, `pattern` of Top-KAST, one of `methods.PATTERNS`, `quick=1` for a
tiny model, `path=FILE` for another text, also gzipped, such as gcide.dict.dz of
Debian's package dict-gcide: its last 5% are for testing, the 5% before for
validation; and with `dense`, `params=SHARE`: a model with this share of the
weights of attention and feed-forward.

The text comes with this repository, the model has 2.7 million parameters in 4
layers, the recipe is this project's choice. Its matrices are drawn wider than
with the released deviation of 0.02, which is for wider layers. Top-KAST
refreshes its sets at each step, the others 60 times; gradual pruning ends after
40% of the steps, since so short a training has none to spare for a dense model.
A run takes some 5 minutes of one core of a CPU.
"""

from collections.abc import Mapping
import math
from typing import Any

import ml_collections

from configs import arguments
from configs import language
from configs import methods

# Learning rates of each method by density, `narrow` those of dense models with
# `params` and `small_blocks` Top-KAST by blocks of 4 or 16: the best of the
# sweeps `tune_text` and `tune_patterns`. Methods that are not in them have a
# relative's, other densities those of the nearest, by the ratio.
SHARES = (0.2, 0.1, 0.05)
TUNED = {
  'dense': (1e-3,) * 3, 'narrow': (2e-3, 4e-3, 4e-3),
  'static': (4e-3, 4e-3, 8e-3), 'set': (4e-3, 4e-3, 8e-3),
  'rigl': (4e-3, 4e-3, 8e-3), 'topkast': (2e-3, 4e-3, 4e-3),
  'powerprop_topkast': (4e-3, 4e-3, 8e-3), 'small_blocks': (4e-3,) * 3,
  'gradual': (2e-3, 2e-3, 4e-3), 'powerprop_gradual': (2e-3,) * 3,
  'acdc': (2e-3,) * 3,
}  # fmt: skip
SIZE = {
  'model': {
    'num_layers': 4, 'd_model': 224, 'num_heads': 7, 'd_head': 32,
    'd_inner': 896, 'dropout': 0.0, 'attention_dropout': 0.0,
    'init_std': 0.063,
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
    _unused,
    **language.KEYS,
    num_steps=1_500,
    rate=0.0,
    params=1.0,
    pattern='single',
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
    refresh_every=1 if is_topkast else max(1, num_steps // 60),
    learning_rate=given['rate'] or _rate(variant, given),
    pattern=given['pattern'],
    vocab_size=256,
  )
  config.train.update(log_every=50, eval_every=750, checkpoint_every=250)
  if config.method.name == 'gradual':
    start, end = max(1, num_steps // 100), num_steps * 2 // 5
    config.method.update(start=start, end=end)
  if given['quick']:
    config.update(QUICK)
  if given['params'] != 1:
    config.model.update(_shrink(given['params'], **config.model))
  return config


def _rate(variant: str, given: Mapping[str, Any]) -> float:
  share = given['density']
  if given['params'] < 1:
    variant, share = 'narrow', given['params']
  if given['pattern'] in ('block_4', 'block_16'):
    variant = 'small_blocks'
  nearest = min(SHARES, key=lambda x: abs(math.log(x / max(share, 1e-6))))
  return TUNED[variant][SHARES.index(nearest)]


def _unused(variant: str) -> list[str]:
  return methods.unused_large(variant) + ['params'] * (variant != 'dense')


def _shrink(
  share: float,
  *,
  d_model: int,
  d_head: int,
  d_inner: int,
  init_std: float,
  **_,
) -> dict[str, float]:
  """Returns widths with about a share of the weights of every layer.

  The deviation grows so that the variance of a sum over the inputs is kept.
  """
  if not 0 < share < 1:
    raise ValueError(f'expected params in (0, 1], got {share}')
  widths = {'d_model': d_model, 'd_head': d_head, 'd_inner': d_inner}
  return {
    key: max(2, 2 * round(width * share**0.5 / 2))
    for key, width in widths.items()
  } | {'init_std': round(init_std / share**0.25, 3)}
