"""Optimizers that count the updates of each entry since it became active.

An entry that enters the active sets has fresh moments. With one step count for
all entries, as in `optax.adam`, their bias is not corrected, and the entry's
first update is 3.16 times the learning rate. A count for each entry, one byte
in the optimizer's state, makes it that of a fresh Adam.
"""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsity import state as state_lib

LAST = 255  # largest count; entries that reach it count as old


class ScaleByAdamState(NamedTuple):
  """State of `scale_by_adam`; the moments are bias-corrected."""

  # Updates made, int32 []; hides a method of tuples.
  count: jax.Array  # type: ignore[assignment]
  ages: Any  # uint8: updates of each entry since it became active
  mu: Any
  nu: Any


class WarmUpState(NamedTuple):
  """State of the warm-up of entering entries."""

  ages: Any  # uint8: updates of each entry since it became active


def scale_by_adam(
  b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> optax.GradientTransformation:
  """Returns Adam's rescaling, with a number of steps for each entry.

  Without a sparse method around it, and for entries that never leave the active
  set, it is `optax.scale_by_adam` up to rounding. An entry that enters is
  updated as by an Adam that begins then, for its first 255 updates; from then
  on its moments decay as those of the oldest entries.

  Example:
    >>> import sparsity
    >>> tx = sparsity.rigl(
    ...   optax.chain(scale_by_adam(), optax.scale_by_learning_rate(1e-3)),
    ...   density=0.1, refresh_every=100, stop_refresh_at=10_000)

  Arguments are those of `optax.scale_by_adam`.

  Shapes:
    Its state has one byte for each parameter beside the two moments.

  Reference:
    Kingma and Ba, 2015, "Adam: a method for stochastic optimization".
    https://arxiv.org/abs/1412.6980
    Xiao et al., 2026, https://arxiv.org/abs/2606.00888 (steps by entry)
  """

  def init(params):
    mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    return ScaleByAdamState(jnp.zeros([], jnp.int32), _newborn(params), mu, nu)

  def update(gradients, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    ages = _age(state.ages)

    def weight(age, decay):
      """Returns the weight of the gradient in a corrected moment."""
      steps = jnp.where(age < LAST, jnp.maximum(age, 1), count)
      remaining = jnp.exp(steps.astype(jnp.float32) * jnp.log(decay))
      return (1 - decay) / (1 - remaining)

    def move(moment, x, age, decay):
      return moment + weight(age, decay).astype(x.dtype) * (x - moment)

    squares = jax.tree.map(jnp.square, gradients)
    mu = jax.tree.map(
      lambda m, g, age: move(m, g, age, b1), state.mu, gradients, ages
    )
    nu = jax.tree.map(
      lambda v, g, age: move(v, g, age, b2), state.nu, squares, ages
    )
    updates = jax.tree.map(
      lambda m, v: m / (jnp.sqrt(v + eps_root) + eps), mu, nu
    )
    return updates, ScaleByAdamState(count, ages, mu, nu)

  return optax.GradientTransformation(init, update)


def adam(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  eps_root: float = 0.0,
) -> optax.GradientTransformation:
  """Returns `optax.adam` with `scale_by_adam` of this module."""
  return optax.chain(
    scale_by_adam(b1, b2, eps, eps_root),
    optax.scale_by_learning_rate(learning_rate),
  )


def adamw(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  eps_root: float = 0.0,
  weight_decay: float = 1e-4,
  mask: Any = None,
) -> optax.GradientTransformation:
  """Returns `optax.adamw` with `scale_by_adam` of this module."""
  return optax.chain(
    scale_by_adam(b1, b2, eps, eps_root),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )


def links(
  warmup_entering: int | None, explore_scale: float | None
) -> list[optax.GradientTransformation]:
  """Returns the links of `sparsity.sparsify` after the optimizer, if any.

  Raises:
    ValueError: If `warmup_entering` is outside [0, 255] or `explore_scale`
      outside [0, 1].
  """
  # By default None, not numbers, which optax.inject_hyperparams would trace.
  warmup_entering = 0 if warmup_entering is None else warmup_entering
  explore_scale = 1.0 if explore_scale is None else explore_scale
  _check_range('warmup_entering', warmup_entering, LAST)
  _check_range('explore_scale', explore_scale, 1)
  found = []
  if warmup_entering:
    found.append(_warm_up(warmup_entering))
  if explore_scale < 1:
    found.append(_explore(explore_scale))
  return found


def _check_range(name: str, value: float, highest: int):
  if isinstance(value, jax.Array):
    raise ValueError(
      f'expected {name} as a number of Python, got an array; within '
      'optax.inject_hyperparams name it in static_args'
    )
  if not 0 <= value <= highest:
    raise ValueError(f'expected {name} in [0, {highest}], got {value}')


def _warm_up(num_updates: int) -> optax.GradientTransformation:
  """Returns updates times n / num_updates in an entry's n-th active update."""

  def update(updates, state, params=None):
    del params
    ages = _age(state.ages)

    def scale(x, age):
      return x * jnp.minimum(age.astype(x.dtype) / num_updates, 1)

    return jax.tree.map(scale, updates, ages), WarmUpState(ages)

  return optax.GradientTransformation(
    lambda params: WarmUpState(_newborn(params)), update
  )


def _explore(scale: float) -> optax.GradientTransformation:
  """Returns updates times `scale` in B without A."""

  def update(updates, state, params=None):
    del params
    within = state_lib.restriction()
    if within is not None:
      updates = jax.tree.map(
        lambda x, mask: jnp.where(mask, x, scale * x) if mask.ndim else x,
        *(updates, within.sets.forward),
      )
    return updates, state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _newborn(params: Any) -> Any:
  return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.uint8), params)


def _age(ages: Any) -> Any:
  """Returns ages with this update; entries outside B have none."""
  grown = jax.tree.map(lambda age: age + (age < LAST).astype(age.dtype), ages)
  within = state_lib.restriction()
  if within is None:
    return grown
  return jax.tree.map(
    lambda age, mask: jnp.where(mask, age, 0) if mask.ndim else age,
    grown,
    within.sets.backward,
  )
