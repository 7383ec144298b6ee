"""The config that the texts share: a Transformer-XL and every method."""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import methods
from configs import sections

# Keys after the colon: densities (of Top-KAST, forward and backward), the alpha
# of the powerprop_ methods, which is this project's choice, and the strength of
# HAM, 200 in its paper.
KEYS = {'density': 0.2, 'backward_density': 0.4, 'alpha': 1.375, 'ham': 0.0}
# The released code's choices, unless a size or a text has others.
MODEL = {
  'tie_projections': (False,), 'cutoffs': (), 'div_val': 1, 'init_std': 0.02,
  'compute_dtype': 'float32',
}  # fmt: skip
OPTIMIZER = {
  'name': 'adam', 'b1': 0.9, 'b2': 0.999, 'eps': 1e-8, 'weight_decay': 0.0,
  'clip_norm': 0.25,
}  # fmt: skip
PENALTY = 0.01  # of Top-KAST; decoupled from Adam, as AdamW's decay is


def published(
  argument: str, sizes: dict[str, Any], data: dict[str, Any], **model: Any
) -> ml_collections.ConfigDict:
  """Returns the config of a published text, in one of several sizes."""
  variant, given = arguments.parse(
    argument,
    methods.LARGE,
    methods.unused_large,
    **KEYS,
    num_steps=0,
    size='base',
  )
  if given['size'] not in sizes:
    raise ValueError(
      f'expected size, one of {", ".join(sizes)}, got {given["size"]!r}'
    )
  size = dict(sizes[given['size']])
  size['num_steps'] = given['num_steps'] or size['num_steps']
  model |= {'compute_dtype': 'bfloat16', 'remat': 'none'}
  config = make(variant, given, size, data=data, refresh_every=100, **model)
  config.train.update(sections.ACCELERATOR)
  return config


def make(
  variant: str,
  given: dict[str, Any],
  size: dict[str, Any],
  *,
  data: dict[str, Any],
  refresh_every: int,
  learning_rate: float = 2.5e-4,
  pattern: str = 'single',
  **model: Any,
) -> ml_collections.ConfigDict:
  """Returns a config, with `model` added to that of the size.

  All matrices of attention and feed-forward are sparse, except layers whose
  path `method.exclude` matches, such as 'attention/position'. Embeddings,
  softmax, biases and normalization are always dense.
  """
  name, alpha = methods.choose(variant, given['alpha'])
  num_steps = size['num_steps']
  config = ml_collections.ConfigDict()
  config.experiment = 'language_modelling'
  config.seeds = (0,)
  config.data = data
  config.model = {
    **MODEL,
    **size['model'],
    **model,
  }
  config.powerprop = dict(alphas=(alpha,), optimizer_in='theta')
  config.method = methods.section(
    name,
    density=given['density'],
    backward_density=given['backward_density'],
    num_steps=num_steps,
    refresh_every=refresh_every,
    pattern=pattern,
    penalty=PENALTY,
  )
  config.optimizer = dict(
    OPTIMIZER,
    **sections.ham(given['ham']),
    learning_rate=learning_rate,
    schedule=sections.cosine(
      num_steps=num_steps,
      warmup_steps=min(size['warmup_steps'], num_steps // 10),
    ),
  )
  config.train = sections.train(
    batch_size=size['batch_size'],
    segment_len=size['length'],
    memory_len=size['length'],
    num_devices=_optional(size['num_devices']),
    num_steps=num_steps,
    eval_every=4_000,
    checkpoint_every=1_000,
  )
  config.evaluation = dict(
    size['evaluation'],
    batch_size=16,
    clamp_len=_optional(size['evaluation'].get('clamp_len')),
    num_tokens=config_dict.placeholder(int),
  )
  return config


def _optional(value: int | None) -> config_dict.FieldReference:
  """Returns a value that may be None."""
  field = config_dict.placeholder(int)
  field.set(value)
  return field
