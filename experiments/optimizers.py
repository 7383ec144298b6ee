"""Optimizers by name: a config section is the arguments of one of these.

`ham_a` and `ham_b` add the step of `powerprop.ham` between clipping and the
rest, at the optimizer's learning rate; both 0: none. `penalty` adds a penalty's
gradient.
"""

from collections.abc import Callable
import math
from typing import Any

import jax.numpy as jnp
import optax

from experiments import build
import powerprop
import sparsity

Schedule = Callable[[Any], Any]


def constant(*, warmup_steps: int) -> Schedule:
  """Returns factors of the learning rate: from 1 / W in W steps to 1."""
  return _warmup(warmup_steps)


def piecewise(
  *, warmup_steps: int, boundaries: tuple[int, ...], factor: float
) -> Schedule:
  """Returns factors: `factor` times as much from each boundary on."""
  warmup = _warmup(warmup_steps)
  if list(boundaries) != sorted(set(boundaries)) or min((1, *boundaries)) < 1:
    raise ValueError(f'expected ascending boundaries >= 1, got {boundaries}')
  if not 0 < factor <= 1:
    raise ValueError(f'expected factor in (0, 1], got {factor}')
  steps = optax.piecewise_constant_schedule(
    1.0, dict.fromkeys(boundaries, factor)
  )
  return lambda step: warmup(step) * steps(step)


def cosine(*, warmup_steps: int, num_steps: int, final: float) -> Schedule:
  """Returns factors from 1 to `final` along half a cosine, after a warm-up."""
  warmup = _warmup(warmup_steps)
  build.check_range(0, 1, final=final)
  if num_steps <= warmup_steps:
    raise ValueError(
      f'expected num_steps over warmup_steps={warmup_steps}, got {num_steps}'
    )
  decay = optax.cosine_decay_schedule(1.0, num_steps - warmup_steps, final)
  return lambda step: warmup(step) * decay(jnp.maximum(step - warmup_steps, 0))


SCHEDULES = {'constant': constant, 'cosine': cosine, 'piecewise': piecewise}


def sgd(
  *,
  learning_rate: float,
  schedule: dict,
  momentum: float,
  nesterov: bool,
  weight_decay: float,
  clip_norm: float | None,
  ham_a: float,
  ham_b: float,
  sets_move: bool,
  penalty: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Returns SGD; decay and penalty are added to the gradient.

  Only weights decay, not biases or normalization.
  """
  del sets_move
  build.check_range(0, 1, momentum=momentum)
  rate = _rate(learning_rate, schedule)
  return optax.chain(
    penalty,
    _clip(clip_norm),
    *_ham(
      rate,
      ham_a,
      ham_b,
      _decay(weight_decay),
      optax.sgd(rate, momentum or None, nesterov),
    ),
  )


def adam(
  *,
  learning_rate: float,
  schedule: dict,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
  clip_norm: float | None,
  ham_a: float,
  ham_b: float,
  sets_move: bool,
  penalty: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Returns Adam; decay and penalty are decoupled, as in AdamW.

  Before Adam's scaling, a penalty greater than an entry's gradient would move
  it by the learning rate however small the penalty is.

  If `sets_move`, each entry has its own number of steps.
  """
  scale_by_adam = sparsity.scale_by_adam if sets_move else optax.scale_by_adam
  build.check_range(0, 1, b1=b1, b2=b2)
  build.check_range(0, math.inf, eps=eps)
  rate = _rate(learning_rate, schedule)
  return optax.chain(
    _clip(clip_norm),
    *_ham(
      rate,
      ham_a,
      ham_b,
      scale_by_adam(b1, b2, eps),
      _decay(weight_decay),
      penalty,
      optax.scale_by_learning_rate(rate),
    ),
  )


OPTIMIZERS = {'adam': adam, 'sgd': sgd}


def _ham(
  rate: Any, a: float, b: float, *links: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
  """Returns the links, within HAM's step unless both strengths are 0."""
  build.check_range(0, math.inf, ham_a=a, ham_b=b)
  if not a and not b:
    return links
  return (powerprop.ham(optax.chain(*links), rate, a, b),)


def _rate(learning_rate: float, schedule: dict) -> Any:
  build.check_range(0, math.inf, learning_rate=learning_rate)
  factor = build.build(SCHEDULES, schedule, name='config.optimizer.schedule')
  if schedule['name'] == 'constant' and not schedule['warmup_steps']:
    return learning_rate
  return lambda step: learning_rate * factor(step)


def _warmup(num_steps: int) -> Schedule:
  build.check_range(0, math.inf, warmup_steps=num_steps)
  return lambda step: jnp.minimum(1.0, (step + 1) / max(1, num_steps))


def _decay(weight_decay: float) -> optax.GradientTransformation:
  build.check_range(0, math.inf, weight_decay=weight_decay)
  if not weight_decay:
    return optax.identity()
  return optax.add_decayed_weights(
    weight_decay,
    mask=lambda params: sparsity.select.selected(params, sparsity.is_weight),
  )


def _clip(clip_norm: float | None) -> optax.GradientTransformation:
  if clip_norm is None:
    return optax.identity()
  if not 0 < clip_norm < math.inf:
    raise ValueError(f'expected a finite clip_norm over 0, got {clip_norm}')
  return optax.clip_by_global_norm(clip_norm)
