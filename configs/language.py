"""Sections that Transformer-XL configs share."""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import methods

KEYS = {'density': 0.2, 'backward_density': 0.4, 'alpha': 1.375}


def make(
  variant: str, given: dict[str, Any], *, num_steps: int, refresh_every: int
) -> ml_collections.ConfigDict:
  """Returns a config with seeds, alphas and method.

  All matrices of attention and feed-forward are sparse, the first too. A layer
  stays dense and does not count if `method.exclude` has a pattern of its path,
  such as 'attention/position'. Embeddings, softmax, biases and normalization
  are always dense.

  Args:
    variant: one of `methods.LARGE`.
    given: values of `KEYS`.
    num_steps: length of the training.
    refresh_every: updates between changes of the sets.
  """
  name, alpha = methods.choose(variant, given['alpha'])
  config = ml_collections.ConfigDict()
  config.experiment = 'language_modelling'
  config.seeds = (0,)
  config.powerprop = dict(alphas=(alpha,), optimizer_in='theta')
  config.method = methods.section(
    name,
    density=given['density'],
    backward_density=given['backward_density'],
    num_steps=num_steps,
    refresh_every=refresh_every,
  )
  return config


def model(**sizes: Any) -> dict[str, Any]:
  """Returns the section `model`: `sizes`, and the released code's choices."""
  return dict(
    {
      'd_embed': sizes['d_model'],
      'pre_norm': False,
      'tie_biases': True,
      'tie_embeddings': True,
      'tie_projections': (False,),
      'cutoffs': (),
      'div_val': 1,
      'clamp_len': config_dict.placeholder(int),
      'same_length': False,
      'compute_dtype': 'float32',
      'remat': False,
    },
    **sizes,
  )


def adam(
  *, learning_rate: float, warmup_steps: int, num_steps: int
) -> dict[str, Any]:
  """Returns the section `optimizer`: Adam, cosine, clipped gradients."""
  return dict(
    name='adam',
    learning_rate=learning_rate,
    schedule=dict(
      name='cosine', warmup_steps=warmup_steps, num_steps=num_steps, final=0.0
    ),
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=0.25,
  )


def train(
  *, batch_size: int, length: int, num_steps: int, num_devices: int | None = 1
) -> dict[str, Any]:
  """Returns the section `train`, for segments and a memory of one length."""
  devices = config_dict.placeholder(int)  # None: all
  devices.set(num_devices)
  return dict(
    batch_size=batch_size,
    segment_len=length,
    memory_len=length,
    num_micro=1,
    num_devices=devices,
    num_steps=num_steps,
    log_every=100,
    eval_every=4_000,
    checkpoint_every=1_000,
    keep_checkpoints=2,
    on_not_finite='stop',
  )


def evaluation(
  *, segment_len: int, memory_len: int, clamp_len: int | None = None
) -> dict[str, Any]:
  """Returns the section `evaluation`, over the whole split."""
  clamp = config_dict.placeholder(int)
  clamp.set(clamp_len)
  return dict(
    batch_size=16,
    segment_len=segment_len,
    memory_len=memory_len,
    clamp_len=clamp,
    same_length=True,
    num_tokens=config_dict.placeholder(int),
  )


def published(
  argument: str, sizes: dict[str, Any], data: dict[str, Any], **of_model: Any
) -> ml_collections.ConfigDict:
  """Returns the config of a published text, in one of several sizes.

  Args:
    argument: after the colon; `num_steps=0` is the size's own length.
    sizes: by name: `model`, `length`, `evaluation`, `batch_size`,
      `num_devices` (None: all), `warmup_steps` and `num_steps`.
    data: the section `data`, without a cache.
    **of_model: keys of the section `model`, of all sizes.

  Raises:
    ValueError: If the variant, a key or the size is unknown.
  """
  variant, given = arguments.parse(
    argument, methods.LARGE, **KEYS, num_steps=0, size='base'
  )
  if given['size'] not in sizes:
    raise ValueError(
      f'expected size, one of {", ".join(sizes)}, got {given["size"]!r}'
    )
  size = sizes[given['size']]
  num_steps = given['num_steps'] or size['num_steps']
  config = make(variant, given, num_steps=num_steps, refresh_every=100)
  config.data = dict(data, cache_dir=config_dict.placeholder(str))
  config.model = model(**size['model'], **of_model, compute_dtype='bfloat16')
  config.optimizer = adam(
    learning_rate=2.5e-4,
    warmup_steps=min(size['warmup_steps'], num_steps // 10),
    num_steps=num_steps,
  )
  config.train = train(
    batch_size=size['batch_size'],
    length=size['length'],
    num_steps=num_steps,
    num_devices=size['num_devices'],
  )
  config.evaluation = evaluation(**size['evaluation'])
  return config
