"""Methods by name: parameterization, optimizer, active sets and storage.

The section `config.method` holds the keywords of one library function. Two keys
come on top: `exclude`, regular expressions of layers that stay dense and do not
count in the densities (those in `dense` do count); and `storage`, 'masked' or
'compact'.
"""

from collections.abc import Callable
import inspect
import math
import re
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from experiments import build
from experiments import optimizers
from experiments import storage as storage_lib
import powerprop as powerprop_lib
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
  """How a network is parameterized, made sparse and optimized."""

  # (seed, scores or None) -> the whole optimizer, and its storage
  make: Callable[..., tuple[Any, storage_lib.Storage]]
  to_weights: Callable[[Any], Any]  # phi -> theta
  from_weights: Callable[[Any], Any]  # theta -> phi
  # (theta, optimizer state) -> theta on the forward set, zero elsewhere
  forward_weights: Callable[[Any, Any], Any]
  density: Callable[[Any, Any], Any]  # (params, optimizer state) -> []
  masks: Callable[[Any, Any], Any]  # the same -> masks of the forward set
  exclude: tuple[str, ...] = ()
  num_score_batches: int = 0  # batches of SNIP's saliency; 0: no scores


class Sparse(NamedTuple):
  """The section `config.method`, checked."""

  wrap: Callable[..., Any]  # (inner, seed, scores) -> optimizer
  link: Optimizer  # precedes the inner optimizer, in theta
  storage: str
  exclude: tuple[str, ...]
  num_score_batches: int


def make_method(
  method: dict, powerprop: dict, optimizer: dict, num_devices: int
) -> Method:
  """Returns the method that three sections of a config describe.

  Raises:
    ValueError: If a key is unknown, missing, mistyped or out of range.
  """
  sparse = build.build(METHODS, method, name='config.method')
  inner = build.build(optimizers.OPTIMIZERS, optimizer, name='config.optimizer')
  inner, alpha = build.call(
    _parameterize,
    powerprop,
    name='config.powerprop',
    inner=optax.chain(sparse.link, inner),
  )
  is_dense = method['name'] == 'dense'

  def make(seed, scores=None):
    tx = sparse.wrap(inner, seed, scores)
    tx, storage = storage_lib.STORAGES[sparse.storage](tx, num_devices)
    if is_dense:
      storage = storage._replace(forward_weights=_all_weights)
    return tx, storage

  return Method(
    make=make,
    to_weights=lambda phi: powerprop_lib.to_weights(phi, alpha),
    from_weights=lambda theta: powerprop_lib.from_weights(theta, alpha),
    forward_weights=_all_weights if is_dense else sparsity.forward_weights,
    density=(lambda *_: jnp.ones([])) if is_dense else _density,
    masks=(lambda *_: None) if is_dense else _masks,
    exclude=sparse.exclude,
    num_score_batches=sparse.num_score_batches,
  )


def _parameterize(
  *, alpha: float, optimizer_in: str, inner: Optimizer
) -> tuple[Optimizer, float]:
  """Returns the optimizer of phi, where `inner` acts on theta or phi; alpha."""
  if not 1 <= alpha < np.inf:
    raise ValueError(
      f'config.powerprop.alpha: expected a finite alpha >= 1, got {alpha}'
    )
  if optimizer_in not in SPACES:
    raise ValueError(
      f'config.powerprop.optimizer_in: expected one of {SPACES}, got '
      f'{optimizer_in!r}'
    )
  if optimizer_in == 'theta':
    return powerprop_lib.powerprop(inner, alpha), alpha
  return optax.chain(powerprop_lib.scale_by_powerprop(alpha), inner), alpha


def _dense(*, storage: str) -> Sparse:
  """Leaves every weight active."""
  if storage != 'masked':
    raise ValueError(
      "config.method.storage: expected 'masked' with the dense method, whose "
      f'entries are all active, got {storage!r}'
    )
  return Sparse(lambda inner, *_: inner, optax.identity(), storage, (), 0)


def _constructor(make: Callable, **extra: type) -> Callable[..., Sparse]:
  """Returns the constructor of a library method's section.

  Its keywords are those of `make` except `inner`, `layout`, `scores`, `seed`
  and `select`; then `extra`, `exclude` and `storage`.
  """
  known = inspect.signature(make).parameters

  def construct(*, exclude, storage, **options):
    storage_lib.check(make.__name__, storage, options)
    link, num_batches = optax.identity(), 0
    if 'penalty' in extra:
      penalty, kind = options.pop('penalty'), options.pop('penalty_kind')
      if penalty:
        link = topkast.exploration_penalty(penalty, kind)
    if 'num_batches' in extra:
      num_batches = options.pop('num_batches')
      build.check_least('config.method', 1, num_batches=num_batches)
    if 'pattern' in options:
      options['pattern'] = build.build(
        PATTERNS, options['pattern'], name='config.method.pattern'
      )
    select = sparsity.all_of(
      sparsity.is_weight, sparsity.none_of(*map(sparsity.matching, exclude))
    )

    def wrap(inner, seed, scores):
      given = {'seed': seed, 'scores': scores}
      given = {name: x for name, x in given.items() if name in known}
      return make(inner, select=select, **options, **given)

    tx = wrap(optax.identity(), 0, None)  # raises for bad arguments
    try:
      storage_lib.STORAGES[storage](tx, 1)
    except ValueError as error:
      raise ValueError(f'config.method.storage: {error}') from error
    return Sparse(wrap, link, storage, exclude, num_batches)

  construct.__name__ = make.__name__
  construct.__signature__ = _signature(known, extra)
  return construct


def _signature(known, extra: dict[str, type]) -> inspect.Signature:
  given = ('inner', 'layout', 'scores', 'seed', 'select')
  types = {
    name: _TYPES.get(name, parameter.annotation)
    for name, parameter in known.items()
    if name not in given
  }
  types |= {**extra, 'exclude': tuple[str, ...], 'storage': str}
  return inspect.Signature(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    for name, kind in types.items()
  )


# Types of the config where the library's annotation admits more.
_TYPES = {
  'dense': tuple[str, ...],
  'distribution': str,
  'pattern': dict,
  'score': str,
}

METHODS = {
  'dense': _dense,
  'gradual': _constructor(sparsity.gradual),
  'magnitude': _constructor(sparsity.magnitude),
  'rigl': _constructor(sparsity.rigl),
  'set': _constructor(sparsity.set_),
  'snip': _constructor(sparsity.snip, num_batches=int),
  'static': _constructor(sparsity.static),
  'topkast': _constructor(topkast.topkast, penalty=float, penalty_kind=str),
}


def check_exclude(method: Method, params: Any) -> None:
  """Raises ValueError unless each pattern of `exclude` matches a weight."""
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  for pattern in method.exclude:
    if not any(re.search(pattern, path) for path in weights):
      raise ValueError(
        'config.method.exclude: expected patterns that match one of '
        f'{sorted(weights)}, got {pattern!r}, which matches none'
      )


def _all_weights(weights, opt_state):
  del opt_state
  return weights


def _masks(params, opt_state):
  return sparsity.active_sets(opt_state, params).forward


def _density(params, opt_state):
  """Returns the density of the forward set, masked or compact."""
  if not isinstance(opt_state, sparsity.compact.CompactState):
    forward = sparsity.active_sets(opt_state).forward
    weights = sparsity.select.selected_paths(forward, sparsity.is_weight)
    return sparsity.density(weights)
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  counts = {path: (x.size, x.size) for path, x in weights.items()}
  counts |= {
    path: (entries.num_forward, math.prod(entries.shape))
    for path, entries in opt_state.entries.items()
  }
  active, sizes = zip(*counts.values(), strict=True)
  return jnp.float32(sum(active) / sum(sizes))
