"""What the configs of Transformer-XL share: methods and sections."""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs import arguments
from configs import methods

# magnitude is gradual pruning, with what stays trained on.
VARIANTS = (
  'dense', 'static', 'set', 'rigl', 'magnitude', 'topkast',
  'powerprop_magnitude', 'powerprop_topkast',
)  # fmt: skip
KEYS = {'density': 0.2, 'backward_density': 0.4, 'alpha': 1.375}


def parse(argument: str, **more: Any) -> tuple[str, dict[str, Any]]:
  """Returns the variant and its keys, those of `KEYS` and `more`.

  Raises:
    ValueError: As `arguments.parse`.
  """
  return arguments.parse(argument, VARIANTS, **{**KEYS, **more})


def make(
  variant: str, given: dict[str, Any], *, num_steps: int, refresh_every: int
) -> ml_collections.ConfigDict:
  """Returns a config with the seeds and what depends on the method.

  All matrices of attention and feed-forward are sparse, also the first; one
  stays dense and does not count if `method.exclude` has a pattern of its path,
  such as 'attention/position'. Embeddings, softmax, biases and normalization
  are always dense.

  Args:
    variant: of `VARIANTS`.
    given: keys.
    num_steps: length of the training.
    refresh_every: updates between changes of the sets.
  """
  name = variant.removeprefix('powerprop_')
  alpha = given['alpha'] if variant.startswith('powerprop_') else 1.0
  config = ml_collections.ConfigDict()
  config.experiment = 'language_modelling'
  config.seeds = (0,)
  config.powerprop = dict(alphas=(alpha,), optimizer_in='theta')
  config.method = methods.section(
    'gradual' if name == 'magnitude' else name,
    density=given['density'],
    backward_density=given['backward_density'],
    num_steps=num_steps,
    refresh_every=refresh_every,
  )
  return config


def model(**sizes: Any) -> dict[str, Any]:
  """Returns the section `model`: `sizes`, and what the released code does."""
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


def choose(sizes: dict[str, Any], name: str) -> Any:
  """Returns the size of a name.

  Raises:
    ValueError: If there is none.
  """
  if name not in sizes:
    raise ValueError(f'expected size, one of {", ".join(sizes)}, got {name!r}')
  return sizes[name]


def sections(size: dict[str, Any], *, num_steps: int) -> dict[str, Any]:
  """Returns the sections of a published size but for data and model."""
  num_devices = config_dict.placeholder(int)  # None: all
  if size['num_devices'] is not None:
    num_devices.set(size['num_devices'])
  return dict(
    optimizer=adam(
      learning_rate=2.5e-4,
      warmup_steps=min(size['warmup_steps'], num_steps // 10),
      num_steps=num_steps,
    ),
    train=dict(
      batch_size=size['batch_size'],
      segment_len=size['length'],
      memory_len=size['length'],
      num_micro=1,
      num_devices=num_devices,
      model_devices=1,
      num_steps=num_steps,
      log_every=100,
      eval_every=4_000,
      checkpoint_every=1_000,
      keep_checkpoints=2,
      on_not_finite='stop',
    ),
    evaluation=dict(
      batch_size=16,
      **size['evaluation'],
      same_length=True,
      num_tokens=config_dict.placeholder(int),
    ),
  )
