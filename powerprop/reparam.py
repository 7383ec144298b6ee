"""The reparameterization theta = phi |phi|^(alpha - 1) and its inverse.

phi is stored and trained, theta is used by the network. A general power costs
more than a small network. Therefore alpha is a static Python number, its power
is built from products and square roots, and value and derivative share it.
"""

from collections.abc import Mapping
import functools
import math
import numbers
import operator
from typing import Any

import jax
import jax.numpy as jnp

from sparsity import select as select_lib

Alpha = float | Mapping[str, float]


def to_weights(
  params: Any,
  alpha: Alpha,
  select: select_lib.Predicate = select_lib.is_weight,
) -> Any:
  """Returns theta = phi |phi|^(alpha - 1), the weights of the network.

  The derivative alpha |phi|^(alpha - 1) is written by hand, because automatic
  differentiation gives NaN at phi = 0 for alpha < 2, and pruned entries are
  exactly zero. Second derivatives that do not exist at zero are zero there.
  The power of 16-bit parameters is computed in float32 and rounded once.

  Example:
    >>> to_weights(jnp.array([-2.0, 0.0, 3.0]), 2)
    Array([-4.,  0.,  9.], dtype=float32)
    >>> params = {'net/linear': {'w': jnp.full((1, 2), 2.0), 'b': jnp.ones(2)}}
    >>> to_weights(params, {'net/linear': 2})['net/linear']['w']
    Array([[4., 4.]], dtype=float32)

  Args:
    alpha: a number of at least 1, or a mapping from parameter path
      (`'module/name'`) or module name to numbers; a path takes precedence.
      Layers not listed have alpha 1.
    select: predicate for the leaves of a tree; an array is always selected.

  Raises:
    ValueError: If an alpha is less than 1, not finite or traced; if nothing is
      selected, or a key of `alpha` names nothing selected; if a selected
      parameter is not floating-point.

  Reference:
    Schwarz et al., 2021, "Powerpropagation: A sparsity inducing weight
    reparameterisation". https://arxiv.org/abs/2110.00296
  """
  return jax.tree.map(
    lambda a, phi: phi if a == 1 else _theta(_floating(phi), a),
    _alphas(params, alpha, select),
    params,
  )


def from_weights(
  weights: Any,
  alpha: Alpha,
  select: select_lib.Predicate = select_lib.is_weight,
) -> Any:
  """Returns phi = sign(theta) |theta|^(1 / alpha), the inverse of `to_weights`.

  Initialize with `params = from_weights(net.init(...), alpha)`, so that the
  network starts from its usual weights.

  Example:
    >>> from_weights(jnp.array([-4.0, 0.0, 9.0]), 2)
    Array([-2.,  0.,  3.], dtype=float32)

  Raises:
    ValueError: As in `to_weights`.
  """
  return jax.tree.map(
    lambda a, theta: theta if a == 1 else _phi(_floating(theta), a),
    _alphas(weights, alpha, select),
    weights,
  )


def scale_by_derivative(
  updates: Any,
  params: Any,
  alpha: Alpha,
  select: select_lib.Predicate = select_lib.is_weight,
) -> Any:
  """Returns `updates` times alpha |phi|^(alpha - 1), in their own dtype.

  In a jitted step XLA computes the power once for this and `to_weights`.
  """

  def scale(a, phi, update):
    if a == 1:
      return update
    slope = a * _power(_wide(_floating(phi)), a - 1)
    return (slope * _wide(update)).astype(update.dtype)

  return jax.tree.map(scale, _alphas(params, alpha, select), params, updates)


def check_alpha(alpha: Alpha) -> None:
  """Raises ValueError unless every alpha is finite, static and at least 1."""
  alphas = alpha if isinstance(alpha, Mapping) else {None: alpha}
  for key, value in alphas.items():
    where = '' if key is None else f' for {key!r}'
    if not isinstance(value, numbers.Real):
      raise ValueError(
        f'expected alpha to be a Python number, or a mapping to them, got '
        f'{value!r}{where}: pass it as a static argument, not as an array'
      )
    if not (math.isfinite(value) and value >= 1):
      raise ValueError(
        f'expected a finite alpha of at least 1, got {value!r}{where}'
      )


def alpha_of(alpha: Alpha, module_name: str, name: str) -> float:
  """Returns the alpha of a selected parameter, by default 1."""
  if isinstance(alpha, Mapping):
    path = select_lib.join(module_name, name)
    alpha = alpha.get(path, alpha.get(module_name, 1.0))
  return float(alpha)


def check_matched(alpha: Alpha, paths: Any) -> None:
  """Raises ValueError if a key of `alpha` is no path or module of `paths`."""
  if not isinstance(alpha, Mapping):
    return
  known = {*paths, *(path.rpartition('/')[0] for path in paths)}
  if unknown := [key for key in alpha if key not in known]:
    listing = '\n  '.join(paths)
    raise ValueError(
      f'expected the keys of alpha to name selected parameters, got {unknown}; '
      f'selected are:\n  {listing}'
    )


def _alphas(params: Any, alpha: Alpha, select: select_lib.Predicate) -> Any:
  """Returns a tree of alphas like `params`, with 1 for unselected leaves."""
  check_alpha(alpha)
  leaves = list(select_lib.named_leaves(params))
  if not leaves:
    return params
  structure = jax.tree.structure(params)
  if jax.tree_util.treedef_is_leaf(structure):
    if isinstance(alpha, Mapping):
      raise ValueError(f'expected one alpha for one array, got {alpha!r}')
    return float(alpha)
  paths = select_lib.selected_paths(params, select)
  check_matched(alpha, list(paths))
  alphas = [
    alpha_of(alpha, module, name)
    if select_lib.join(module, name) in paths
    else 1.0
    for module, name, _ in leaves
  ]
  return jax.tree.unflatten(structure, alphas)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _theta(phi: jax.Array, alpha: float) -> jax.Array:
  x = _wide(phi)
  return (x * _power(x, alpha - 1)).astype(phi.dtype)


@_theta.defjvp
def _theta_jvp(alpha, primals, tangents):
  (phi,), (tangent,) = primals, tangents
  x = _wide(phi)
  power = _power(x, alpha - 1)
  value = (x * power).astype(phi.dtype)
  return value, (alpha * power * _wide(tangent)).astype(phi.dtype)


def _phi(theta: jax.Array, alpha: float) -> jax.Array:
  x = _wide(theta)
  return (jnp.sign(x) * _power(x, 1 / alpha)).astype(theta.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _power(x: jax.Array, exponent: float) -> jax.Array:
  """Returns |x|^exponent to within a few ulps.

  The exponent is split into an integer (products), sixteenths (a square root
  for each binary digit) and a rest (exp(rest log|x|), whose error is small).
  """
  # Derivatives that do not exist at zero: 1, which sign(x) = 0 multiplies.
  if exponent < 0:
    return 1 / _power(jnp.where(x == 0, 1, x), -exponent)
  square = root = x = jnp.abs(x)
  whole, rest = int(exponent), exponent - int(exponent)
  factors = []
  while whole:
    if whole % 2:
      factors.append(square)
    whole //= 2
    if whole:
      square = square * square
  for digit in (1 / 2, 1 / 4, 1 / 8, 1 / 16):
    if rest < _NEGLIGIBLE:
      break
    root = jnp.sqrt(root)
    if rest >= digit:
      factors.append(root)
      rest -= digit
  if rest >= _NEGLIGIBLE:
    # Without log(0), which jax_debug_infs reports.
    is_zero = x == 0
    power = jnp.exp(rest * jnp.log(jnp.where(is_zero, 1, x)))
    factors.append(jnp.where(is_zero, 0, power))
  return (
    functools.reduce(operator.mul, factors) if factors else jnp.ones_like(x)
  )


@_power.defjvp
def _power_jvp(exponent, primals, tangents):
  (x,), (tangent,) = primals, tangents
  slope = exponent * jnp.sign(x) * _power(x, exponent - 1)
  return _power(x, exponent), slope * tangent


# A smaller rest of an exponent is rounding error.
_NEGLIGIBLE = 1e-12


def _wide(x: jax.Array) -> jax.Array:
  return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)


def _floating(x: Any) -> jax.Array:
  if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
    raise ValueError(
      f'expected floating-point parameters, got {jnp.result_type(x)} of shape '
      f'{jnp.shape(x)}: exclude them from the selection'
    )
  return jnp.asarray(x)
