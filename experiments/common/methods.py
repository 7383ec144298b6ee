"""Sparse methods by name: a config section is the arguments of one of these."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp
import optax

import powerprop
import sparsity
import topkast

SPACES = ('theta', 'phi')


class Method(NamedTuple):
  """How an optimizer is made sparse, and what the network sees."""

  wrap: Callable[
    [optax.GradientTransformation, Any], Any
  ]  # (inner, seed) -> tx
  weights: Callable[[Any, Any], Any]  # (weights, optimizer state) -> weights
  density: Callable[[Any], Any]  # optimizer state -> share of weights seen
  link: optax.GradientTransformation  # goes before the optimizer, in theta


def dense() -> Method:
  """Returns the method that leaves every weight active."""
  return Method(
    wrap=lambda inner, _: inner,
    weights=lambda weights, _: weights,
    density=lambda _: jnp.ones([]),
    link=optax.identity(),
  )


def topkast_method(
  *,
  forward_density: float,
  backward_density: float,
  refresh_every: int,
  stop_refresh_at: int | None,
  distribution: str,
  scope: str,
  dense: tuple[str, ...],
  exploration: str,
  penalty: float,
  penalty_kind: str,
) -> Method:
  """Returns Top-KAST with its exploration penalty; see `topkast.topkast`."""
  link = topkast.exploration_penalty(penalty, penalty_kind)
  return _sparse(
    lambda inner, seed: topkast.topkast(
      inner,
      forward_density=forward_density,
      backward_density=backward_density,
      refresh_every=refresh_every,
      stop_refresh_at=stop_refresh_at,
      distribution=distribution,
      scope=scope,
      dense=dense,
      exploration=exploration,
      seed=seed,
    ),
    link if penalty else optax.identity(),
  )


def static(
  *, density: float, distribution: str, scope: str, dense: tuple[str, ...]
) -> Method:
  """Returns random static sparsity; see `sparsity.static`."""
  return _sparse(
    lambda inner, seed: sparsity.static(
      inner,
      density=density,
      distribution=distribution,
      scope=scope,
      dense=dense,
      seed=seed,
    )
  )


def magnitude(
  *,
  density: float,
  at: int,
  distribution: str,
  scope: str,
  dense: tuple[str, ...],
) -> Method:
  """Returns one-shot magnitude pruning; see `sparsity.magnitude`."""
  return _sparse(
    lambda inner, _: sparsity.magnitude(
      inner,
      density=density,
      at=at,
      distribution=distribution,
      scope=scope,
      dense=dense,
    )
  )


METHODS = {
  'dense': dense,
  'magnitude': magnitude,
  'static': static,
  'topkast': topkast_method,
}


def make_optimizer(
  method: Method,
  optimizer: optax.GradientTransformation,
  *,
  alpha: float,
  optimizer_in: str,
  seed,
) -> optax.GradientTransformationExtraArgs:
  """Returns the whole optimizer: sparse(powerprop(optimizer)).

  Args:
    method: which entries are active.
    optimizer: what moves them.
    alpha: the power of the parameterization.
    optimizer_in: 'theta' lets the optimizer live in the weights, 'phi' in the
      raw parameters. The same for plain SGD without weight decay.
    seed: of the method's random choices; may be traced.
  """
  inner = optax.chain(method.link, optimizer)
  if optimizer_in == 'theta':
    inner = powerprop.powerprop(inner, alpha)
  else:
    inner = optax.chain(powerprop.scale_by_powerprop(alpha), inner)
  return method.wrap(inner, seed)


def _sparse(make, link=None) -> Method:
  make(optax.identity(), 0)  # so that a bad argument is an error at once
  return Method(
    make, sparsity.forward_weights, _density, link or optax.identity()
  )


def _density(opt_state):
  forward = sparsity.active_sets(opt_state).forward
  weights = sparsity.select.selected_paths(forward, sparsity.is_weight)
  return sparsity.density(weights)
