"""How many units of a pattern are kept: counts, as of entries without one."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
import warnings

from sparsity import counts as counts_lib
from sparsity import masks
from sparsity import patterns
from sparsity import select as select_lib


def make_counts(
  pattern: patterns.Pattern,
  *,
  density: float,
  distribution: Any = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  select: select_lib.Predicate = select_lib.is_weight,
) -> Callable[[Any], counts_lib.Counts]:
  """Returns `sparsity.make_counts` in units of a pattern.

  Layers that do not fit and stay dense are left out of the selection, and so
  do not count in `density`.

  Raises:
    ValueError: As `sparsity.make_counts`; if scope 'global' has a pattern. The
      function returned: if a layer does not fit, or is to be denser than the
      pattern allows; names it.
  """
  if scope == 'global' and pattern.name != 'unstructured':
    raise ValueError(
      f"expected scope='layer' with a pattern, got 'global' with {pattern.name}"
    )
  if pattern.otherwise == 'dense':
    selection = select_lib.all_of(
      select, lambda module, name, x: pattern.fits(tuple(x.shape))
    )
  else:
    selection = select
  make = counts_lib.make_counts(
    forward_density=density,
    distribution=distribution,
    scope=scope,
    dense=dense,
    select=selection,
  )

  def counts(params):
    _name_misfits(pattern, params, select)
    found = make(params)
    if scope == 'global':
      return found
    shapes = {
      path: tuple(x.shape)
      for path, x in select_lib.pick(params, found.sizes).items()
    }
    return _in_units(pattern, found, shapes)

  return counts


def _name_misfits(pattern, params, select):
  misfits = [
    f'{path} {tuple(x.shape)}'
    for path, x in select_lib.selected_paths(params, select).items()
    if not pattern.fits(tuple(x.shape))
  ]
  if not misfits:
    return
  if pattern.otherwise == 'error':
    raise ValueError(
      f'expected layers that fit the pattern {pattern.name}, got '
      f'{", ".join(misfits)}: leave them out of the selection, or give the '
      "pattern otherwise='dense' or otherwise='unstructured'"
    )
  warnings.warn(
    f'the pattern {pattern.name} does not fit {", ".join(misfits)}, which '
    f'{"stay" if len(misfits) > 1 else "stays"} {pattern.otherwise}',
    stacklevel=3,
  )


def _in_units(pattern, counts, shapes) -> counts_lib.Counts:
  """Returns the counts of entries as counts of units."""
  sizes, kept = {}, {}
  for path, shape in shapes.items():
    own = patterns.of_layer(pattern, shape)
    density = counts.forward[path] / counts.sizes[path]
    if density > own.most:
      raise ValueError(
        f'expected densities up to {own.most:g} for the pattern {own.name}, '
        f'got {density:.4g} for {path} {shape}'
      )
    sizes[path] = own.num_units(shape)
    kept[path] = (
      counts.forward[path]
      if sizes[path] == counts.sizes[path]
      else masks.num_kept(density, sizes[path])
    )
  return counts._replace(sizes=sizes, forward=kept, backward=dict(kept))
