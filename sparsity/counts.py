"""The number of active entries in each layer, as static numbers.

Counts are exact and known at trace time, so every shape and every k is static.
"""

from collections.abc import Callable
from collections.abc import Sequence
import math
import re
from typing import Any
from typing import NamedTuple
import warnings

import jax.numpy as jnp
import numpy as np

from sparsity import distributions
from sparsity import paths as paths_lib
from sparsity import patterns
from sparsity import schedules
from sparsity import select as select_lib
from sparsity import topk

DISTRIBUTIONS = {
  'uniform': distributions.uniform,
  'erdos_renyi': distributions.erdos_renyi,
  'erdos_renyi_kernel': distributions.erdos_renyi_kernel,
}
SCOPES = ('layer', 'global')
OTHERWISE = ('error', 'dense')


class Counts(NamedTuple):
  """Number of units to keep; a unit is an entry unless a pattern is given."""

  sizes: dict[str, int]  # units of each sparse layer, by path
  forward: dict[str, int] | int  # kept in A, by path; scope 'global': in total
  backward: dict[str, int] | int  # kept in B
  scope: str  # 'layer' | 'global'
  forward_densities: dict[str, float]  # of all selected layers
  layout: str | None = None  # as in `make_counts`


def make_counts(
  *,
  forward_density: float,
  backward_density: float | None = None,
  distribution: str | distributions.Distribution = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  pattern: patterns.Pattern = patterns.UNSTRUCTURED,
  otherwise: str = 'error',
  layout: str | None = None,
  select: select_lib.Predicate = select_lib.is_weight,
) -> Callable[[Any], Counts]:
  """Returns a function from parameters, or their shapes, to `Counts`.

  The densities are fractions of the selected entries in the forward set A and
  the backward set B, by default the same.

  Selected layers that are kept whole are not listed as sparse.

  Args:
    scope: 'layer' keeps a number in each layer; 'global' keeps a total, and
      ignores the distribution.
    dense: regular expressions; layers whose path matches one stay dense and
      count towards the densities.
    pattern: entries kept together; see `sparsity.patterns`.
    otherwise: for layers that do not fit the pattern: 'error', or 'dense',
      which leaves them out of the selection.
    layout: order of a layer's axes, for distributions and patterns: 'in_out',
      (..., in, out) as in Haiku and Flax; 'out_in', (out, in, ...) as in
      Equinox and PyTorch; None: 'out_in' for leaves named `weight`, 'in_out'
      for all others.

  Raises:
    ValueError: If a density is outside (0, 1], the forward density exceeds
      the backward density, or an option is unknown. From the function returned:
      if a layer does not fit the pattern, or its forward set is denser than the
      pattern allows.
  """
  if backward_density is None:
    backward_density = forward_density
  _check_densities(forward_density, backward_density)
  if isinstance(dense, str):
    dense = (dense,)
  for expression in dense:
    select_lib.matching(expression)  # raises for bad ones
  _check_scope(scope, dense, pattern, otherwise)
  if layout not in (None, *paths_lib.LAYOUTS):
    raise ValueError(
      f'expected layout out of {paths_lib.LAYOUTS} or None, got {layout!r}'
    )
  if not callable(distribution):
    if distribution not in DISTRIBUTIONS:
      raise ValueError(
        f'expected distribution out of {sorted(DISTRIBUTIONS)}, got '
        f'{distribution!r}'
      )
    distribution = DISTRIBUTIONS[distribution]

  def counts(params) -> Counts:
    shapes = _in_out_shapes(params, select, layout)
    if otherwise == 'dense':
      shapes = {path: x for path, x in shapes.items() if pattern.fits(x)}
    if not shapes:  # a tree without leaves, such as Optax's placeholder
      return Counts({}, {}, {}, scope, {})
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    if scope == 'global':
      return _global_counts(sizes, forward_density, backward_density)
    full = _matching(dense, shapes)
    given = forward_density, backward_density
    densities, backward = (distribution(shapes, x, dense=full) for x in given)
    forward = _kept(densities, sizes, forward_density)
    backward = _kept(backward, sizes, backward_density)
    sparse = [path for path, n in sizes.items() if forward[path] < n]
    sizes, forward, backward = _in_units(
      pattern,
      {path: shapes[path] for path in sparse},
      given,
      {path: forward[path] for path in sparse},
      {path: max(forward[path], backward[path]) for path in sparse},
    )
    return Counts(sizes, forward, backward, scope, densities, layout)

  return counts


def warn_of_thin(layers: Any, counts: Counts) -> None:
  """Warns of layers with fewer active entries than inputs or outputs.

  Some of their neurons are cut off, so little of the signal passes. Inputs and
  outputs of a convolution are channels. With `scope='global'` the masks decide.

  Args:
    layers: parameters by path.
    counts: of `layers`.
  """
  if isinstance(counts.forward, int):  # of all layers together
    return
  thin = []
  for path, size in counts.sizes.items():
    shape = paths_lib.in_out_shape(path, np.shape(layers[path]), counts.layout)
    kept = counts.forward[path] * math.prod(shape) // size
    if len(shape) > 1 and kept < max(shape[-2:]):
      thin.append(f'{path} ({kept} of {shape[-2]} x {shape[-1]})')
  if thin:
    warnings.warn(
      'fewer active entries than neurons in '
      f"{', '.join(thin)}: take distribution='erdos_renyi_kernel', keep the "
      'layer dense, exclude it, or raise the density',
      stacklevel=3,
    )


def _check_densities(forward_density, backward_density):
  schedules.check_density('forward_density', forward_density)
  schedules.check_density('backward_density', backward_density)
  if forward_density > backward_density:
    raise ValueError(
      'expected a backward density not below the forward density, got '
      f'forward_density={forward_density}, backward_density={backward_density}'
    )


def _check_scope(scope, dense, pattern, otherwise):
  if otherwise not in OTHERWISE:
    raise ValueError(
      f'expected otherwise out of {OTHERWISE}, got {otherwise!r}'
    )
  if scope not in SCOPES:
    raise ValueError(f'expected scope out of {SCOPES}, got {scope!r}')
  if scope == 'global' and dense:
    raise ValueError(
      "expected no dense layers with scope='global', got "
      f'{tuple(dense)}: exclude them from the selection instead'
    )
  if scope == 'global' and pattern.name != 'unstructured':
    raise ValueError(
      f"expected scope='layer' with a pattern, got 'global' with {pattern.name}"
    )


def _in_out_shapes(params, select, layout) -> distributions.Shapes:
  """Returns the shapes of the selected layers, as (..., in, out)."""
  selected = select_lib.selected_paths(params, select)
  for path, x in selected.items():
    if jnp.issubdtype(jnp.result_type(x), jnp.complexfloating):
      raise ValueError(
        f'expected real weights, got {jnp.result_type(x)} at {path}: exclude '
        'them from the selection, or store real and imaginary parts apart'
      )
  return {
    path: paths_lib.in_out_shape(path, np.shape(x), layout)
    for path, x in selected.items()
  }


def _check_fit(pattern, shapes: distributions.Shapes):
  """Raises ValueError if layers do not fit the pattern."""
  if misfits := [
    f'{path} {shape}'
    for path, shape in shapes.items()
    if not pattern.fits(shape)
  ]:
    raise ValueError(
      f'expected layers that fit the pattern {pattern.name}, got '
      f'{", ".join(misfits)}: exclude them from the selection, keep them '
      "dense, or give otherwise='dense' to a method that takes it"
    )


def _kept(densities, sizes, given):
  for path, density in densities.items():
    if not 0 < density <= 1:
      raise ValueError(
        f'expected a density of {path} in (0, 1], got {density}, which the '
        f'distribution makes of a density {given} of all layers'
      )
  return {
    path: topk.num_kept(density, sizes[path])
    for path, density in densities.items()
  }


def _global_counts(sizes, forward_density, backward_density) -> Counts:
  total = sum(sizes.values())
  forward = topk.num_kept(forward_density, total)
  backward = topk.num_kept(backward_density, total)
  sparse = sizes if forward < total else {}
  densities = dict.fromkeys(sizes, forward_density)
  return Counts(sparse, forward, backward, 'global', densities)


def _in_units(pattern, shapes, given, *counts):
  """Returns sizes and counts in units of the pattern, given in entries."""
  _check_fit(pattern, shapes)
  sizes = {}

  def units(path, num_entries, total):
    sizes[path] = pattern.num_units(shapes[path])
    num_all = math.prod(shapes[path])
    density = num_entries / num_all
    if density > pattern.most and total == given[0]:
      raise ValueError(
        f'expected densities up to {pattern.most:g} for the pattern '
        f'{pattern.name}, got {density:.4g} for {path} {shapes[path]}, its '
        f'share of a density {total} of all layers'
      )
    if sizes[path] == num_all:
      return num_entries
    return topk.num_kept(density, sizes[path])

  kept = [
    {path: units(path, k, total) for path, k in x.items()}
    for x, total in zip(counts, given, strict=True)
  ]
  return sizes, *kept


def _matching(expressions: Sequence[str], paths) -> list[str]:
  """Returns the paths that match; each expression has to match at least one."""
  matching = set()
  for expression in expressions:
    found = {path for path in paths if re.search(expression, path)}
    if not found:
      raise ValueError(
        f'expected dense layers out of {sorted(paths)}, got {expression!r}, '
        'which matches none'
      )
    matching |= found
  return [path for path in paths if path in matching]
