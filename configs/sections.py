"""Sections that configs share."""

from typing import Any

from ml_collections import config_dict


def ham(a: float) -> dict[str, float]:
  """Returns the keys of `optimizer` for HAM; its authors' `a` is 200, 0: off.

  Without normalization the product with the learning rate is limited: LeNet-5
  trained with 10 at a rate of 0.05 and stayed at chance with 20.
  """
  return dict(ham_a=a, ham_b=1e-3 if a else 0.0)


def sgd(
  *,
  learning_rate: float | tuple[float, ...],
  schedule: dict[str, Any],
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  clip_norm: float | None = None,
  ham_a: float = 0.0,
) -> dict[str, Any]:
  """Returns the section `optimizer`: SGD, by default with Nesterov momentum.

  Several learning rates are one for each of `powerprop.alphas`.
  """
  return dict(
    name='sgd',
    learning_rate=learning_rate,
    schedule=schedule,
    momentum=momentum,
    nesterov=momentum > 0,
    weight_decay=weight_decay,
    clip_norm=clip_norm or config_dict.placeholder(float),  # None: no clipping
    **ham(ham_a),
  )


def cosine(*, num_steps: int, warmup_steps: int) -> dict[str, Any]:
  """Returns the section `optimizer.schedule`: linear warm-up, then cosine."""
  return dict(
    name='cosine', warmup_steps=warmup_steps, num_steps=num_steps, final=0.0
  )


def train(
  *, batch_size: int, num_steps: int, log_every: int = 100, **more: Any
) -> dict[str, Any]:
  """Returns the section `train`, on one device; `more` adds and replaces."""
  section = {
    'batch_size': batch_size, 'num_micro': 1, 'num_devices': 1,
    'num_steps': num_steps, 'log_every': log_every, 'keep_checkpoints': 2,
    'on_not_finite': 'stop',
  }  # fmt: skip
  return section | more


# Choices of the section `train` that matter on accelerators only.
ACCELERATOR = {'prng': 'threefry2x32', 'shard_params': False}


def prune(*, num_levels: int = 0, lowest: float = 0.01) -> dict[str, Any]:
  """Returns the section `prune`: one-shot pruning after training."""
  return dict(
    lowest=lowest,
    highest=1.0,
    num_levels=num_levels,
    output_layer=config_dict.placeholder(str),  # None: as all others
    output_factor=1.0,
  )
