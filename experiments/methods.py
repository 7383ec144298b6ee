"""Methods by name: parameterization, optimizer, active sets and storage.

The section `config.method` holds the keywords of one library function. Two keys
come on top: `exclude`, regular expressions of layers that stay dense and do not
count in the densities (those in `dense` do count); and `storage`, 'masked' or
'compact'.
"""

from collections.abc import Callable
import functools
import inspect
import math
import re
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import build
from experiments import optimizers
from experiments import storage as storage_lib
import powerprop as powerprop_lib
import sparsity
import topkast

SPACES = ('theta', 'phi')
# Initial weights as drawn for a dense layer, or by the fan-in that is left.
INITS = ('dense', 'layer', 'neuron')
PRNGS = ('threefry2x32', 'rbg')  # generators of random numbers in training
MOVING = ('acdc', 'gradual', 'rigl', 'set', 'topkast')  # entries enter

Optimizer = optax.GradientTransformation
# From a transformation of theta's gradient to the optimizer of phi after it.
Optimize = Callable[[Optimizer], Optimizer]


class Method(NamedTuple):
  """How a network is parameterized, made sparse and optimized."""

  # (seed, scores or None) -> the whole optimizer, and its storage
  make: Callable[..., tuple[Any, storage_lib.Storage]]
  # (theta, optimizer state) -> theta on the forward set, zero elsewhere
  forward_weights: Callable[[Any, Any], Any]
  density: Callable[[Any, Any], Any]  # (params, optimizer state) -> []
  masks: Callable[[Any, Any], Any]  # the same -> masks of the forward set
  exclude: tuple[str, ...] = ()
  needs_scores: bool = False  # SNIP's saliency of the first batch
  alpha: float = 1.0
  last_phase: int = 0  # of AC/DC: update after which it stays sparse
  init: str = 'dense'  # scale of the initial weights, one of INITS

  def to_weights(self, phi: Any) -> Any:
    """Returns theta."""
    return powerprop_lib.to_weights(phi, self.alpha)

  def from_weights(self, theta: Any) -> Any:
    """Returns phi."""
    return powerprop_lib.from_weights(theta, self.alpha)


def make_method(
  method: dict, powerprop: dict, optimizer: dict, num_devices: int
) -> Method:
  """Returns the method that three sections of a config describe."""
  inner = functools.partial(
    build.build,
    optimizers.OPTIMIZERS,
    optimizer,
    name='config.optimizer',
    sets_move='name' in method and method['name'] in MOVING,
  )
  alpha, optimize = build.call(
    _parameterize, powerprop, name='config.powerprop', inner=inner
  )
  made = build.build(
    METHODS,
    method,
    name='config.method',
    optimize=optimize,
    num_devices=num_devices,
  )
  return made._replace(alpha=alpha)


def _parameterize(
  *, alpha: float, optimizer_in: str, inner: Callable[..., Optimizer]
) -> tuple[float, Optimize]:
  """Returns alpha, and the optimizer of phi whose `inner` acts on a space."""
  build.check_range(1, math.inf, **{'config.powerprop.alpha': alpha})
  if optimizer_in not in SPACES:
    raise ValueError(
      f'config.powerprop.optimizer_in: expected one of {SPACES}, got '
      f'{optimizer_in!r}'
    )

  def optimize(penalty):
    tx = inner(penalty=penalty)
    if optimizer_in == 'theta':
      return powerprop_lib.powerprop(tx, alpha)
    return optax.chain(powerprop_lib.scale_by_powerprop(alpha), tx)

  return alpha, optimize


def _dense(*, storage: str, optimize: Optimize, num_devices: int) -> Method:
  """Leaves every weight active."""
  del num_devices
  if storage != 'masked':
    raise ValueError(
      "config.method.storage: expected 'masked' with the dense method, whose "
      f'entries are all active, got {storage!r}'
    )
  tx = optimize(optax.identity())
  storage = storage_lib.Storage(lambda weights, opt_state: weights)
  return Method(
    make=lambda seed, scores=None: (tx, storage),
    forward_weights=storage.forward_weights,
    density=lambda *_: jnp.ones([]),
    masks=lambda *_: None,
  )


def _constructor(library: Callable, **extra: type) -> Callable[..., Method]:
  """Returns the constructor of the section of a library method."""
  known = inspect.signature(library).parameters

  def construct(*, exclude, storage, optimize, num_devices, **options):
    storage_lib.check(library.__name__, storage, options)
    regularizer, init = optax.identity(), options.pop('init', 'dense')
    if init not in INITS:
      raise ValueError(
        f'config.method.init: expected one of {INITS}, got {init!r}'
      )
    if 'pattern' in options:
      options['pattern'] = make_pattern(options['pattern'])
    if 'penalty' in extra:
      penalty, kind = options.pop('penalty'), options.pop('penalty_kind')
      if penalty:
        regularizer = topkast.exploration_penalty(penalty, kind)
    select = sparsity.all_of(
      sparsity.is_weight, sparsity.none_of(*map(sparsity.matching, exclude))
    )
    inner = optimize(regularizer)

    def make(seed, scores=None):
      given = {'seed': seed, 'scores': scores}
      given = {name: x for name, x in given.items() if name in known}
      tx = library(inner, select=select, **options, **given)
      return storage_lib.STORAGES[storage](tx, num_devices)

    make(0)  # raises for bad arguments
    needs_scores = 'scores' in known
    last_phase = options['end'] if 'phase_steps' in options else 0
    return Method(
      make,
      sparsity.forward_weights,
      density,
      _masks,
      exclude,
      needs_scores,
      last_phase=last_phase,
      init=init,
    )

  types = {
    name: _TYPES.get(name, parameter.annotation)
    for name, parameter in known.items()
    if name not in _GIVEN
  }
  types |= {**extra, 'exclude': tuple[str, ...], 'storage': str}
  types |= {'optimize': Optimize, 'num_devices': int}
  construct.__name__ = library.__name__
  construct.__signature__ = inspect.Signature(
    inspect.Parameter(
      name,
      inspect.Parameter.KEYWORD_ONLY,
      annotation=kind,
      default=_DEFAULTS.get(name, inspect.Parameter.empty),
    )
    for name, kind in types.items()
  )
  return construct


def make_pattern(section: dict) -> sparsity.patterns.Pattern:
  """Returns the pattern that a section `config.method.pattern` describes."""
  return build.build(PATTERNS, section, name='config.method.pattern')


PATTERNS = {
  'block': sparsity.patterns.block,
  'fan_in': sparsity.patterns.fan_in,
  'n_of_m': sparsity.patterns.n_of_m,
  'unstructured': sparsity.patterns.unstructured,
}
# Keys that a section may leave out.
_DEFAULTS = {'pattern': {'name': 'unstructured'}, 'otherwise': 'error'}
# Arguments that no section has: the program's, and the library's defaults.
_GIVEN = ('inner', 'layout', 'pattern', 'scores', 'seed', 'select')
# Types of the config where the library's annotation admits more.
_TYPES = {'dense': tuple[str, ...], 'distribution': str, 'score': str}

METHODS = {
  'acdc': _constructor(sparsity.acdc),
  'dense': _dense,
  'gradual': _constructor(sparsity.gradual),
  'magnitude': _constructor(sparsity.magnitude),
  'rigl': _constructor(sparsity.rigl, init=str),
  'set': _constructor(sparsity.set_, init=str),
  'snip': _constructor(sparsity.snip, init=str),
  'static': _constructor(sparsity.static, init=str),
  'topkast': _constructor(
    topkast.topkast, penalty=float, penalty_kind=str, pattern=dict
  ),
}


def check_phases(method: Method, num_steps: int) -> None:
  """Raises ValueError if AC/DC's last sparse phase has no step."""
  if method.last_phase >= num_steps:
    raise ValueError(
      f'config.method.end: expected less than num_steps={num_steps}, so that '
      f'the run ends with a sparse phase, got {method.last_phase}'
    )


def check_exclude(method: Method, params: Any) -> None:
  """Raises ValueError unless each pattern of `exclude` matches a weight."""
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  for pattern in method.exclude:
    if not any(re.search(pattern, path) for path in weights):
      raise ValueError(
        'config.method.exclude: expected patterns that match one of '
        f'{sorted(weights)}, got {pattern!r}, which matches none'
      )


def init_state(
  method: Method,
  init: Callable[[jax.Array], tuple[Any, Any]],
  seed: Any,
  scores: Any = None,
) -> storage_lib.TrainState:
  """Returns the masked state before the first step; the seed may be traced."""
  weights, net_state = init(init_key(seed))
  params = method.from_weights(weights)
  tx, _ = method.make(seed, scores)
  if method.init != 'dense':
    weights = sparsity.rescale(weights, tx.init(params), method.init)
    params = method.from_weights(weights)
  return storage_lib.TrainState(
    jnp.zeros([], jnp.int32), params, net_state, tx.init(params)
  )


def init_key(seed: Any) -> jax.Array:
  """Returns the key of the initial weights."""
  return jax.random.fold_in(jax.random.key(seed), 0)


def training_key(seed: Any, prng: str = PRNGS[0]) -> jax.Array:
  """Returns the key of the training; each step folds in its number.

  With 'rbg' the hardware of a TPU draws the numbers, a few instructions in
  place of hundreds. They depend on platform, compiler and number of devices.
  """
  return jax.random.fold_in(jax.random.key(seed, impl=prng), 1)


def forward_weights(method: Method, state: storage_lib.TrainState) -> Any:
  """Returns theta on the forward set, as evaluation uses it."""
  weights = method.to_weights(state.params)
  return method.forward_weights(weights, state.opt_state)


def _masks(params, opt_state):
  return sparsity.active_sets(opt_state, params).forward


def density(params: Any, opt_state: Any) -> jax.Array:
  """Returns the density of the forward set, masked or compact."""
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  if not isinstance(opt_state, sparsity.compact.CompactState):
    forward = sparsity.active_sets(opt_state).forward
    return sparsity.density(sparsity.select.pick(forward, weights), weights)
  counts = {path: (x.size, x.size) for path, x in weights.items()}
  counts |= {
    path: (entries.num_forward, math.prod(entries.shape))
    for path, entries in opt_state.entries.items()
  }
  active, sizes = zip(*counts.values(), strict=True)
  return jnp.float32(sum(active) / sum(sizes))
