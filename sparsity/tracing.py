"""Attribution of the products in a jaxpr to parameters.

Each value is traced back to its origin: the data, or the parameters from which
it is derived entry by entry (cast, masked, raised to a power, reshaped, sliced,
concatenated).
"""

from collections import Counter
from collections.abc import Sequence
import math
from typing import NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp

# Floating-point operations by path; None: products without a parameter.
Flops = Counter[str | None]


class Origin(NamedTuple):
  """The parameters a value is derived from, and whether it depends on data."""

  entries: dict[str, float] = {}  # noqa: RUF012  # by path of the parameter
  is_data: bool = False


NOTHING = Origin()
DATA = Origin(is_data=True)

_MOVES = {
  'broadcast_in_dim', 'copy', 'dynamic_slice', 'expand_dims', 'gather',
  'reshape', 'rev', 'slice', 'split', 'squeeze', 'transpose',
}  # fmt: skip
_JOINS = {'concatenate', 'dynamic_update_slice', 'pad'}
# Primitives whose cost does not follow from the shapes.
_UNKNOWN = {'pallas_call', 'ragged_dot_general', 'shard_map'}


def origin_of_argument(x: jax.ShapeDtypeStruct) -> Origin:
  """Returns the origin of an argument: data, unless a mask or random key."""
  is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  return NOTHING if is_key or x.dtype == bool else DATA


def count(
  jaxpr: core.Jaxpr, origins: Sequence[Origin]
) -> tuple[list[Origin], Flops]:
  """Returns the origins of the results, and the FLOPs of all products."""
  env = dict(zip(jaxpr.invars, origins, strict=True))

  def read(variable):
    if isinstance(variable, core.Literal):
      return NOTHING
    return env.get(variable, NOTHING)  # a constant

  flops = Flops()
  for eqn in jaxpr.eqns:
    rule = _RULES.get(eqn.primitive.name, _any_other)
    results, more = rule(eqn, [read(variable) for variable in eqn.invars])
    flops += more
    env.update(zip(eqn.outvars, results, strict=True))
  return [read(variable) for variable in jaxpr.outvars], flops


def _dot(eqn, origins):
  (contracted, _), _ = eqn.params['dimension_numbers']
  lhs, out = eqn.invars[0].aval, eqn.outvars[0].aval
  length = math.prod(lhs.shape[axis] for axis in contracted)
  return _product(eqn, origins, 2 * out.size * length)


def _conv(eqn, origins):
  lhs, rhs = (variable.aval for variable in eqn.invars)
  out = eqn.outvars[0].aval
  out_axis, in_axis, *window_axes = eqn.params['dimension_numbers'].rhs_spec
  window = math.prod(rhs.shape[axis] for axis in window_axes)
  if math.prod(eqn.params['lhs_dilation']) > 1:
    # Transposed: each input entry is multiplied with every window entry.
    groups = eqn.params['feature_group_count']
    length = window * rhs.shape[out_axis] // groups
    return _product(eqn, origins, 2 * lhs.size * length)
  return _product(eqn, origins, 2 * out.size * window * rhs.shape[in_axis])


def _product(eqn, origins, flops):
  is_data = any(origin.is_data for origin in origins)
  entries = Counter()
  for origin in origins:
    entries.update(origin.entries)
  return [Origin(is_data=is_data)], _divide(flops, entries)


def _divide(flops: int, entries) -> Flops:
  """Splits FLOPs in proportion to entries, without a rounding remainder."""
  if not flops:
    return Flops()
  total, given, seen = sum(entries.values()), 0, 0.0
  divided = Flops()
  for path, number in entries.items():
    seen += number
    upto = flops if seen == total else round(flops * (seen / total))
    divided[path] = upto - given
    given = upto
  return divided or Flops({None: flops})


def _scan(eqn, origins):
  params = eqn.params
  body, times = params['jaxpr'].jaxpr, params['length']
  # By rank: only JAX before 0.12 names these numbers in the parameters.
  num_xs = _num_stacked(eqn.invars, body.invars)
  num_carry = len(eqn.outvars) - _num_stacked(eqn.outvars, body.outvars)
  num_consts = len(origins) - num_carry - num_xs
  given = [
    _fit(origin, variable.aval)
    for origin, variable in zip(origins, body.invars, strict=True)
  ]
  consts, carry = given[:num_consts], given[num_consts:][:num_carry]
  xs = given[num_consts + num_carry :]
  results, flops = _until_same(body, consts, carry, xs)
  return results, Flops({path: times * n for path, n in flops.items()})


def _num_stacked(outside, inside) -> int:
  """Returns how many variables of a scan have an axis of steps outside it."""
  return sum(
    a.aval.ndim > b.aval.ndim for a, b in zip(outside, inside, strict=True)
  )


def _while(eqn, origins):
  params = eqn.params
  num_cond, num_body = params['cond_nconsts'], params['body_nconsts']
  cond, body = params['cond_jaxpr'].jaxpr, params['body_jaxpr'].jaxpr
  carry = origins[num_cond + num_body :]
  results, flops = _until_same(body, origins[num_cond:][:num_body], carry, [])
  if flops + count(cond, [*origins[:num_cond], *results])[1]:
    raise ValueError(
      'expected products within loops of a known length (jax.lax.scan, '
      'fori_loop between integers), got some within jax.lax.while_loop'
    )
  return results, Flops()


def _until_same(body, consts, carry, xs):
  """Returns the results and FLOPs of a loop body at a fixed point of carry."""
  while True:
    results, flops = count(body, [*consts, *carry, *xs])
    after = [_either(a, b) for a, b in zip(carry, results, strict=False)]
    if after == carry:
      return results, flops
    carry = after


def _cond(eqn, origins):
  """Counts the most expensive branch."""
  branches = [
    count(branch.jaxpr, origins[1:]) for branch in eqn.params['branches']
  ]
  results = branches[0][0]
  for others, _ in branches[1:]:
    results = [_either(a, b) for a, b in zip(results, others, strict=True)]
  return results, max((flops for _, flops in branches), key=Flops.total)


def _any_other(eqn, origins):
  inner = [
    getattr(value, 'jaxpr', value)
    for value in eqn.params.values()
    if isinstance(value, core.Jaxpr | core.ClosedJaxpr)
  ]
  name = eqn.primitive.name
  if name not in _UNKNOWN:
    if len(inner) == 1 and len(inner[0].invars) == len(origins):
      return count(inner[0], origins)
    if not any(_has_products(jaxpr) for jaxpr in inner):
      return [_result(eqn, v.aval, origins) for v in eqn.outvars], Flops()
  raise ValueError(
    f'expected products outside of {name!r}, whose FLOPs cannot be counted'
  )


def _result(eqn, out, origins) -> Origin:
  """Returns the origin of a result of an operation without products."""
  if out.dtype == bool:
    return NOTHING
  if any(origin.is_data for origin in origins):
    return DATA
  name = eqn.primitive.name
  shapes = {variable.aval.shape for variable in eqn.invars}
  is_elementwise = shapes <= {out.shape, ()}
  if not (is_elementwise or name in _MOVES or name in _JOINS):
    return NOTHING
  entries: Counter = Counter()
  largest = max((sum(o.entries.values()) for o in origins), default=0)
  for origin in origins:
    if name in _JOINS:
      entries.update(origin.entries)
    elif sum(origin.entries.values()) == largest:
      entries |= origin.entries  # smaller ones broadcast, such as a norm
  return _fit(Origin(dict(entries)), out)


def _fit(origin: Origin, aval) -> Origin:
  """Returns the origin scaled down to the size of `aval`."""
  total = sum(origin.entries.values())
  share = min(1, aval.size / total) if total else 1
  entries = {path: share * n for path, n in origin.entries.items()}
  return origin._replace(entries=entries)


def _either(a: Origin, b: Origin) -> Origin:
  if a.is_data or b.is_data:
    return DATA
  return a if a.entries.keys() == b.entries.keys() else NOTHING


def _has_products(jaxpr) -> bool:
  return any(
    eqn.primitive.name in _PRODUCTS
    or any(map(_has_products, core.jaxprs_in_params(eqn.params)))
    for eqn in jaxpr.eqns
  )


_PRODUCTS = {'dot_general': _dot, 'conv_general_dilated': _conv}
_RULES = {
  **_PRODUCTS,
  'cond': _cond,
  'optimization_barrier': lambda eqn, origins: (origins, Flops()),
  'scan': _scan,
  'while': _while,
}
