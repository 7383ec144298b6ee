"""HAM: the geometry of Powerpropagation as a step after any optimizer's."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from powerprop import transform
from sparsity import select as select_lib

_MAX_EXPONENT = 5.0  # of one step


class HamState(NamedTuple):
  """State of `ham`."""

  # Updates made so far, int32 []; hides a method of tuples.
  count: jax.Array  # type: ignore[assignment]
  inner: optax.OptState


def ham(
  inner: optax.GradientTransformation,
  learning_rate: optax.ScalarOrSchedule,
  a: float = 200.0,
  b: float = 1e-3,
  select: select_lib.Predicate = select_lib.is_weight,
) -> optax.GradientTransformationExtraArgs:
  """Returns `inner` with HAM's multiplicative step after each of its steps.

  Where `inner` leads to weights w, the updates lead to
  w * exp(-learning_rate * (a * sign(w) * gradient + b)), with the gradient that
  `update` is given and the exponent clipped to [-5, 5]. Weights at exactly zero
  stay there.

  With SGD, gradient flow is scaled by 1 + a |theta|, where Powerpropagation
  with alpha=2 scales it by 4 |theta|: large weights learn faster in both, but
  here small ones keep the optimizer's own rate and can cross zero.

  It goes inside a sparse method, around the rest of the optimizer. Clip
  gradients before it, as in the example, for it takes them as they come;
  weight decay belongs into `inner`.

  Differs from the paper's code: embeddings are not selected by default, and the
  norms of weights and gradients are not clipped.

  Example:
    >>> import topkast
    >>> rate = optax.cosine_decay_schedule(0.1, 1_000)
    >>> tx = topkast.topkast(
    ...   optax.chain(
    ...     optax.clip_by_global_norm(1.0),
    ...     ham(optax.sgd(rate, momentum=0.9), rate)),
    ...   forward_density=0.1, backward_density=0.2, refresh_every=100)

  Args:
    learning_rate: that of `inner`, a number or a schedule.
    a: strength of the geometry; 0 leaves a decay of `b`.
    b: decay of log|w|, in units of the learning rate.
    select: predicate for the weights that take this step; others take that of
      `inner` alone.

  Raises:
    ValueError: If `a` or `b` is negative or not finite; if `update` is called
      without `params`.

  Reference:
    Jacobs et al., 2026, "Hyperbolic aware minimization: implicit bias for
    sparsity". https://arxiv.org/abs/2506.02630
  """
  for name, value in {'a': a, 'b': b}.items():
    if not 0 <= value < math.inf:
      raise ValueError(f'expected a finite {name} >= 0, got {value}')
  inner = optax.with_extra_args_support(inner)

  def init(params):
    return HamState(jnp.zeros([], jnp.int32), inner.init(params))

  def update(gradients, state, params=None, **extra_args):
    transform.check_params(params)
    updates, inner_state = inner.update(
      gradients, state.inner, params, **extra_args
    )
    rate = learning_rate
    if callable(rate):
      rate = rate(state.count)

    def step(is_selected, update, w, gradient):
      if not is_selected:
        return update
      wide = jnp.promote_types(update.dtype, jnp.float32)
      update, w, gradient = (x.astype(wide) for x in (update, w, gradient))
      w += update
      exponent = -rate * (a * jnp.sign(w) * gradient + b)
      exponent = jnp.clip(exponent, -_MAX_EXPONENT, _MAX_EXPONENT)
      return update + w * jnp.expm1(exponent)

    selected = select_lib.selected(params, select)
    stepped = jax.tree.map(step, selected, updates, params, gradients)
    updates = jax.tree.map(lambda x, y: x.astype(y.dtype), stepped, updates)
    count = optax.safe_increment(state.count)
    return updates, HamState(count, inner_state)

  return optax.GradientTransformationExtraArgs(init, update)
