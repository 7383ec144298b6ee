"""Sparse methods by name: a config section is the arguments of one of these.

What all of them share: `exclude`, regular expressions of layers that are not of
the method's business: they stay dense and do not count in its densities, unlike
those in `dense`.
"""

from collections.abc import Callable
import re
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp
import optax

from experiments.common import build
import powerprop
import sparsity
import topkast

SPACES = ('theta', 'phi')
PATTERNS = {
  'block': sparsity.patterns.block,
  'channels': sparsity.patterns.channels,
  'n_of_m': sparsity.patterns.n_of_m,
  'unstructured': sparsity.patterns.unstructured,
}

Optimizer = optax.GradientTransformation


class Method(NamedTuple):
  """How an optimizer is made sparse, and what the network sees."""

  wrap: Callable[[Optimizer, Any, Any], Any]  # (inner, seed, scores) -> tx
  weights: Callable[[Any, Any], Any]  # (weights, optimizer state) -> weights
  density: Callable[[Any], Any]  # optimizer state -> share of weights seen
  masks: Callable[[Any], Any]  # optimizer state -> masks of these, or None
  link: Optimizer  # goes before the optimizer, in theta
  # Batches whose mean gradient at the start gives the scores; 0: no scores.
  num_score_batches: int = 0
  exclude: tuple[str, ...] = ()


def dense() -> Method:
  """Returns the method that leaves every weight active."""
  return Method(
    wrap=lambda inner, *_: inner,
    weights=lambda weights, _: weights,
    density=lambda _: jnp.ones([]),
    masks=lambda _: None,
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
  exclude: tuple[str, ...],
  exploration: str,
  penalty: float,
  penalty_kind: str,
) -> Method:
  """Returns Top-KAST with its exploration penalty; see `topkast.topkast`."""
  link = topkast.exploration_penalty(penalty, penalty_kind)
  return _sparse(
    topkast.topkast,
    exclude,
    link if penalty else optax.identity(),
    forward_density=forward_density,
    backward_density=backward_density,
    refresh_every=refresh_every,
    stop_refresh_at=stop_refresh_at,
    distribution=distribution,
    scope=scope,
    dense=dense,
    exploration=exploration,
  )


def static(
  *,
  density: float,
  distribution: str,
  scope: str,
  dense: tuple[str, ...],
  exclude: tuple[str, ...],
) -> Method:
  """Returns random static sparsity; see `sparsity.static`."""
  return _sparse(
    sparsity.static,
    exclude,
    density=density,
    distribution=distribution,
    scope=scope,
    dense=dense,
  )


def magnitude(
  *,
  density: float,
  at: int,
  distribution: str,
  scope: str,
  dense: tuple[str, ...],
  exclude: tuple[str, ...],
  pattern: dict,
  score: str,
) -> Method:
  """Returns one-shot magnitude pruning; see `sparsity.magnitude`."""
  return _sparse(
    _without_seed(sparsity.magnitude),
    exclude,
    density=density,
    at=at,
    distribution=distribution,
    scope=scope,
    dense=dense,
    pattern=_pattern(pattern),
    score=score,
  )


def gradual(
  *,
  density: float,
  start: int,
  end: int,
  prune_every: int,
  distribution: str,
  scope: str,
  dense: tuple[str, ...],
  exclude: tuple[str, ...],
  pattern: dict,
  score: str,
) -> Method:
  """Returns gradual magnitude pruning; see `sparsity.gradual`."""
  return _sparse(
    _without_seed(sparsity.gradual),
    exclude,
    density=density,
    start=start,
    end=end,
    prune_every=prune_every,
    distribution=distribution,
    scope=scope,
    dense=dense,
    pattern=_pattern(pattern),
    score=score,
  )


def set_method(
  *,
  density: float,
  refresh_every: int,
  stop_refresh_at: int | None,
  drop_fraction: float,
  anneal: str,
  grow_at: float,
  distribution: str,
  dense: tuple[str, ...],
  exclude: tuple[str, ...],
  pattern: dict,
) -> Method:
  """Returns SET; see `sparsity.set_`."""
  return _sparse(
    sparsity.set_,
    exclude,
    density=density,
    refresh_every=refresh_every,
    stop_refresh_at=stop_refresh_at,
    drop_fraction=drop_fraction,
    anneal=anneal,
    grow_at=grow_at,
    distribution=distribution,
    dense=dense,
    pattern=_pattern(pattern),
  )


def rigl(
  *,
  density: float,
  refresh_every: int,
  stop_refresh_at: int,
  drop_fraction: float,
  anneal: str,
  grow_at: float,
  distribution: str,
  dense: tuple[str, ...],
  exclude: tuple[str, ...],
  pattern: dict,
) -> Method:
  """Returns RigL; see `sparsity.rigl`."""
  return _sparse(
    sparsity.rigl,
    exclude,
    density=density,
    refresh_every=refresh_every,
    stop_refresh_at=stop_refresh_at,
    drop_fraction=drop_fraction,
    anneal=anneal,
    grow_at=grow_at,
    distribution=distribution,
    dense=dense,
    pattern=_pattern(pattern),
  )


def snip(
  *,
  density: float,
  num_batches: int,
  distribution: str,
  scope: str,
  dense: tuple[str, ...],
  exclude: tuple[str, ...],
  pattern: dict,
) -> Method:
  """Returns SNIP, scored on some batches; see `sparsity.snip`."""
  if num_batches < 1:
    raise ValueError(f'expected num_batches >= 1, got {num_batches}')

  def make(inner, *, seed, scores=None, **options):
    del seed
    return sparsity.snip(inner, scores=scores, **options)

  method = _sparse(
    make,
    exclude,
    density=density,
    distribution=distribution,
    scope=scope,
    dense=dense,
    pattern=_pattern(pattern),
  )
  return method._replace(num_score_batches=num_batches)


METHODS = {
  'dense': dense,
  'gradual': gradual,
  'magnitude': magnitude,
  'rigl': rigl,
  'set': set_method,
  'snip': snip,
  'static': static,
  'topkast': topkast_method,
}


def check_exclude(method: Method, params: Any) -> None:
  """Raises unless each pattern of `exclude` matches a weight of `params`.

  Raises:
    ValueError: If one matches none; lists the weights.
  """
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  for pattern in method.exclude:
    if not any(re.search(pattern, path) for path in weights):
      raise ValueError(
        f'config.method.exclude: expected a pattern of one of '
        f'{sorted(weights)}, got {pattern!r}, which matches none'
      )


def make_optimizer(
  method: Method,
  optimizer: Optimizer,
  *,
  alpha: float,
  optimizer_in: str,
  seed,
  scores=None,
) -> optax.GradientTransformationExtraArgs:
  """Returns the whole optimizer: sparse(powerprop(optimizer)).

  Args:
    method: which entries are active.
    optimizer: what moves them.
    alpha: the power of the parameterization.
    optimizer_in: 'theta' lets the optimizer live in the weights, 'phi' in the
      raw parameters. The same for plain SGD without weight decay.
    seed: of the method's random choices; may be traced.
    scores: a tree like the parameters, for a method that needs them; only the
      optimizer's `init` reads it.
  """
  inner = optax.chain(method.link, optimizer)
  if optimizer_in == 'theta':
    inner = powerprop.powerprop(inner, alpha)
  else:
    inner = optax.chain(powerprop.scale_by_powerprop(alpha), inner)
  return method.wrap(inner, seed, scores)


def _sparse(make, exclude, link=None, **options) -> Method:
  """Returns the method `make(inner, seed=..., select=..., **options)`."""
  select = sparsity.all_of(
    sparsity.is_weight, sparsity.none_of(*map(sparsity.matching, exclude))
  )

  def wrap(inner, seed, scores):
    more = {} if scores is None else {'scores': scores}
    return make(inner, seed=seed, select=select, **options, **more)

  wrap(optax.identity(), 0, None)  # so that a bad argument is an error at once
  return Method(
    wrap,
    sparsity.forward_weights,
    _density,
    lambda state: sparsity.active_sets(state).forward,
    link or optax.identity(),
    exclude=exclude,
  )


def _without_seed(make):
  return lambda inner, *, seed, **options: make(inner, **options)


def _pattern(section: dict) -> sparsity.patterns.Pattern:
  return build.build(PATTERNS, section, name='config.method.pattern')


def _density(opt_state):
  forward = sparsity.active_sets(opt_state).forward
  weights = sparsity.select.selected_paths(forward, sparsity.is_weight)
  return sparsity.density(weights)
