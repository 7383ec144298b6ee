"""The reparameterisation theta = phi |phi|^(alpha - 1), both ways.

phi is what is stored and trained, theta what the network computes with. The
power is what the method costs, and a general power is dearer than a small
network: here alpha is a Python number, known when a step is compiled, so that
its power is built of products and square roots, and value and derivative are
the same power times something.
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

  The derivative alpha |phi|^(alpha - 1) is written by hand: automatic
  differentiation gives NaN at phi = 0 for alpha < 2, and pruned entries are
  exactly zero. Second derivatives that do not exist at zero are zero there.
  alpha = 1 is the identity, and costs nothing.

  Parameters of 16 bits, in which small powers vanish (the fourth power of 0.01
  is below the smallest float16), are raised in float32 and rounded once.

  Example:
    >>> to_weights(jnp.array([-2.0, 0.0, 3.0]), 2)
    Array([-4.,  0.,  9.], dtype=float32)
    >>> params = {'net/linear': {'w': jnp.full((1, 2), 2.0), 'b': jnp.ones(2)}}
    >>> to_weights(params, 3)['net/linear']['w']
    Array([[8., 8.]], dtype=float32)
    >>> to_weights(params, {'net/linear': 2})['net/linear']['w']
    Array([[4., 4.]], dtype=float32)

  Args:
    params: phi: a tree, of which the selected leaves are transformed, or one
      array. A tree without leaves stays as it is.
    alpha: A number of at least 1, or numbers by layer: each key is the path of
      a parameter (`'module/name'`), or the name of a module and so stands for
      all that is selected of it; the path wins. Layers not named have alpha 1.
    select: Which leaves of a tree, `(module_name, name, value)`.

  Returns:
    The same structure, shapes and dtypes.

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

  Initialise with it, `params = from_weights(net.init(...), alpha)`, so that the
  network starts from the weights it would start from without the method.

  Example:
    >>> from_weights(jnp.array([-4.0, 0.0, 9.0]), 2)
    Array([-2.,  0.,  3.], dtype=float32)

  Args:
    weights: theta, a tree or one array, as in `to_weights`.
    alpha: As in `to_weights`.
    select: As in `to_weights`.

  Raises:
    ValueError: As `to_weights`.

  Reference:
    Schwarz et al., 2021, "Powerpropagation: A sparsity inducing weight
    reparameterisation". https://arxiv.org/abs/2110.00296
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
  """Returns `updates` times alpha |phi|^(alpha - 1), where selected.

  In one jitted step with `to_weights(params)` the power is taken once: the two
  contain the same expression, which the compiler shares.

  Example:
    >>> scale_by_derivative(jnp.ones(3), jnp.array([-2.0, 0.0, 3.0]), 2)
    Array([4., 0., 6.], dtype=float32)

  Args:
    updates: A tree or array like `params`; its dtypes are kept.
    params: phi, not theta.
    alpha: As in `to_weights`.
    select: As in `to_weights`.

  Raises:
    ValueError: As `to_weights`.
  """

  def scale(a, phi, update):
    if a == 1:
      return update
    slope = a * _power(_wide(_floating(phi)), a - 1)
    return (slope * update).astype(update.dtype)

  return jax.tree.map(scale, _alphas(params, alpha, select), params, updates)


def check_alpha(alpha: Alpha) -> None:
  """Raises unless every alpha is a finite, static number of at least 1.

  Raises:
    ValueError: Otherwise; says what was given.
  """
  alphas = alpha if isinstance(alpha, Mapping) else {None: alpha}
  for key, value in alphas.items():
    where = '' if key is None else f' for {key!r}'
    if not isinstance(value, numbers.Real):
      raise ValueError(
        f'expected alpha to be a Python number, or a mapping to them, got '
        f'{value!r}{where}: it is part of the compiled program, so pass it as '
        'a static argument, not as an array'
      )
    if not (math.isfinite(value) and value >= 1):
      raise ValueError(
        f'expected a finite alpha of at least 1, got {value!r}{where}'
      )


def alpha_of(alpha: Alpha, module_name: str, name: str) -> float:
  """Returns the alpha of one selected parameter: 1 where none is given.

  Example:
    >>> alpha_of({'net/linear': 2}, 'net/linear', 'w')
    2.0
  """
  if isinstance(alpha, Mapping):
    path = select_lib.join(module_name, name)
    alpha = alpha.get(path, alpha.get(module_name, 1.0))
  return float(alpha)


def check_matched(alpha: Alpha, paths: Any) -> None:
  """Raises if a key of `alpha` is none of `paths` nor the module of one.

  Raises:
    ValueError: If so; lists the paths.
  """
  if not isinstance(alpha, Mapping):
    return
  known = {*paths, *(path.rpartition('/')[0] for path in paths)}
  unknown = [key for key in alpha if key not in known]
  if unknown:
    listing = '\n  '.join(paths)
    raise ValueError(
      f'expected the keys of alpha to name selected parameters, got {unknown}; '
      f'selected are:\n  {listing}'
    )


def _alphas(params: Any, alpha: Alpha, select: select_lib.Predicate) -> Any:
  """Returns a tree like `params` of alphas: 1 for what is not selected."""
  check_alpha(alpha)
  structure = jax.tree.structure(params)
  if not structure.num_leaves:
    return params
  if jax.tree_util.treedef_is_leaf(structure):
    if isinstance(alpha, Mapping):
      raise ValueError(f'expected one alpha for one array, got {alpha!r}')
    return float(alpha)
  check_matched(alpha, list(select_lib.selected_paths(params, select)))
  flags = jax.tree.leaves(select_lib.selected(params, select))
  return jax.tree.unflatten(
    structure,
    [
      alpha_of(alpha, module, name) if flag else 1.0
      for flag, (module, name, _) in zip(
        flags, select_lib.named_leaves(params), strict=True
      )
    ],
  )


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
  return value, (alpha * power * tangent).astype(phi.dtype)


def _phi(theta: jax.Array, alpha: float) -> jax.Array:
  x = _wide(theta)
  return (jnp.sign(x) * _power(x, 1 / alpha)).astype(theta.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _power(x: jax.Array, exponent: float) -> jax.Array:
  """Returns |x|^exponent to a few units in the last place.

  exponent = whole part + sixteenths + rest: products for the whole part, one
  square root for each binary digit, exp(rest log|x|) only for what is left.
  That is as exact as it is fast: the error of exp(e log|x|) grows with
  |e log|x||, and the rest is below a sixteenth.

  Negative exponents, of derivatives that do not exist at zero, give 1 there:
  finite, and annulled by the sign of x that stands before them.
  """
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
    factors.append(jnp.exp(rest * jnp.log(x)))
  return (
    functools.reduce(operator.mul, factors) if factors else jnp.ones_like(x)
  )


@_power.defjvp
def _power_jvp(exponent, primals, tangents):
  (x,), (tangent,) = primals, tangents
  slope = exponent * jnp.sign(x) * _power(x, exponent - 1)
  return _power(x, exponent), slope * tangent


# What remains of an exponent below this is rounding: |x| to it is 1.
_NEGLIGIBLE = 1e-12


def _wide(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _floating(x: Any) -> jax.Array:
  if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
    raise ValueError(
      f'expected floating-point parameters, got {jnp.result_type(x)} of shape '
      f'{jnp.shape(x)}'
    )
  return jnp.asarray(x)
