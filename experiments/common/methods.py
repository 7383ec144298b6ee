"""Sparse methods by name: a config section is the arguments of one of these.

What all of them share: `exclude`, regular expressions of layers that are not of
the method's business: they stay dense and do not count in its densities, unlike
those in `dense`; and `storage`, 'masked', 'masked_products' or 'compact': how
weights are held and multiplied.
"""

from collections.abc import Callable
import inspect
import re
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp
import optax

from experiments.common import build
from experiments.common import storage as storage_lib
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
  density: Callable[[Any, Any], Any]  # (params, state) -> share of them seen
  masks: Callable[[Any, Any], Any]  # (params, state) -> their masks, or None
  link: Optimizer  # goes before the optimizer, in theta
  # Batches whose mean gradient at the start gives the scores; 0: no scores.
  num_score_batches: int = 0
  exclude: tuple[str, ...] = ()
  storage: str = 'masked'


def dense(*, storage: str) -> Method:
  """Returns the method that leaves every weight active.

  Raises:
    ValueError: If `storage` is not 'masked'.
  """
  _check_storage(storage)
  if storage != 'masked':
    raise ValueError(
      "config.method.storage: expected 'masked' of the dense method, for all "
      f'entries are active, got {storage!r}'
    )
  return Method(
    wrap=lambda inner, *_: inner,
    weights=lambda weights, _: weights,
    density=lambda *_: jnp.ones([]),
    masks=lambda *_: None,
    link=optax.identity(),
  )


def _method(make) -> Callable[..., Method]:
  """Returns the constructor of a method of the libraries, for a config.

  Its arguments are the keywords of `make`, all of them and without defaults,
  but for `seed` and `select`, which the program gives, and `scores`, which come
  from data; and `exclude` and `storage`. A pattern is a section of its own.
  """
  known = inspect.signature(make).parameters
  own = [
    parameter.replace(
      annotation=_TYPES.get(name, parameter.annotation),
      default=inspect.Parameter.empty,
    )
    for name, parameter in known.items()
    if name not in ('inner', 'seed', 'select', 'scores')
  ]

  def construct(*, exclude, storage, **options):
    _check_storage(storage)
    if storage == 'compact':
      storage_lib.check_sets(make.__name__, options)
    if storage == 'masked_products':
      storage_lib.check_products()
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

    # So that a bad argument is an error at once.
    tx = wrap(optax.identity(), 0, None)
    try:
      storage_lib.STORAGES[storage](tx)
    except ValueError as error:
      raise ValueError(f'config.method.storage: {error}') from error
    return Method(
      wrap,
      sparsity.forward_weights,
      _density,
      lambda params, state: sparsity.active_sets(state, params).forward,
      optax.identity(),
      exclude=exclude,
      storage=storage,
    )

  construct.__name__ = make.__name__
  construct.__doc__ = f'See `{make.__module__}.{make.__name__}`.'
  construct.__signature__ = _and(own, exclude=tuple[str, ...], storage=str)
  return construct


_TYPES = {
  'dense': tuple[str, ...],
  'distribution': str,
  'pattern': dict,
  'score': str,
}


def _with_penalty(construct):
  """Adds Top-KAST's exploration penalty, a link of the inner chain."""

  def topkast_method(*, penalty, penalty_kind, **options):
    method = construct(**options)
    if not penalty:
      return method
    link = topkast.exploration_penalty(penalty, penalty_kind)
    return method._replace(link=link)

  topkast_method.__signature__ = _and(
    _keywords(construct), penalty=float, penalty_kind=str
  )
  return topkast_method


def _with_batches(construct):
  """Adds how many batches SNIP is scored on."""

  def snip(*, num_batches, **options):
    if num_batches < 1:
      raise ValueError(f'expected num_batches >= 1, got {num_batches}')
    return construct(**options)._replace(num_score_batches=num_batches)

  snip.__signature__ = _and(_keywords(construct), num_batches=int)
  return snip


def _keywords(construct) -> list[inspect.Parameter]:
  return list(inspect.signature(construct).parameters.values())


def _and(known: list[inspect.Parameter], **types) -> inspect.Signature:
  """Returns a signature with further keywords."""
  more = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    for name, kind in types.items()
  ]
  return inspect.Signature([*known, *more])


METHODS = {
  'dense': dense,
  'gradual': _method(sparsity.gradual),
  'magnitude': _method(sparsity.magnitude),
  'rigl': _method(sparsity.rigl),
  'set': _method(sparsity.set_),
  'snip': _with_batches(_method(sparsity.snip)),
  'static': _method(sparsity.static),
  'topkast': _with_penalty(_method(topkast.topkast)),
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


def _density(params, opt_state):
  """Returns the share of weights that the network sees, masked or compact."""
  if not isinstance(opt_state, sparsity.compact.CompactState):
    forward = sparsity.active_sets(opt_state).forward
    weights = sparsity.select.selected_paths(forward, sparsity.is_weight)
    return sparsity.density(weights)
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  numbers = {path: (x.size, x.size) for path, x in weights.items()}
  numbers |= {
    path: (entries.num_forward, entries.size)
    for path, entries in opt_state.entries.items()
  }
  seen, sizes = zip(*numbers.values(), strict=True)
  return jnp.float32(sum(seen) / sum(sizes))


def _check_storage(storage: str) -> None:
  if storage not in storage_lib.STORAGES:
    raise ValueError(
      'config.method.storage: expected one of '
      f'{tuple(storage_lib.STORAGES)}, got {storage!r}'
    )
