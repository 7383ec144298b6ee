"""How many entries of which layers are active: static numbers.

The number kept is exact, so every shape and every k is known when a step is
traced.
"""

from collections.abc import Callable
from collections.abc import Sequence
import math
import re
from typing import Any
from typing import NamedTuple

from sparsity import distributions
from sparsity import masks
from sparsity import select as select_lib

DISTRIBUTIONS = {
  'uniform': distributions.uniform,
  'erdos_renyi': distributions.erdos_renyi,
  'erdos_renyi_kernel': distributions.erdos_renyi_kernel,
}
SCOPES = ('layer', 'global')


class Counts(NamedTuple):
  """What is kept of each sparse layer, or of all of them together."""

  sizes: dict[str, int]  # entries of each sparse layer, by path
  forward: dict[str, int] | int  # kept in A, by path; scope 'global': in all
  backward: dict[str, int] | int  # kept in B
  scope: str  # 'layer' | 'global'
  forward_densities: dict[str, float]  # of each selected layer, dense or not


def make_counts(
  *,
  forward_density: float,
  backward_density: float | None = None,
  distribution: str | distributions.Distribution = 'uniform',
  scope: str = 'layer',
  dense: Sequence[str] = (),
  select: select_lib.Predicate = select_lib.is_weight,
) -> Callable[[Any], Counts]:
  """Returns a function from parameters, or their shapes, to `Counts`.

  Selected layers of which everything is kept do not count as sparse.

  Args:
    forward_density: share of the selected entries that the network sees.
    backward_density: share that updates reach; by default the same.
    distribution: a function of `sparsity.distributions`, or its name.
    scope: 'layer' keeps a number in each layer, 'global' in all together (the
      distribution then does not matter).
    dense: regular expressions; layers whose path one of them matches stay
      dense, and count towards the densities.
    select: which parameters may be sparse.

  Raises:
    ValueError: If a density is outside (0, 1], the forward density exceeds
      the backward density, or an option is unknown.
  """
  if backward_density is None:
    backward_density = forward_density
  for name, density in (
    ('forward_density', forward_density),
    ('backward_density', backward_density),
  ):
    if not 0 < density <= 1:
      raise ValueError(f'expected {name} in (0, 1], got {density}')
  if forward_density > backward_density:
    raise ValueError(
      'expected a backward density that is not below the forward density, got '
      f'forward_density={forward_density}, backward_density={backward_density}'
    )
  if scope not in SCOPES:
    raise ValueError(f'expected scope out of {SCOPES}, got {scope!r}')
  if not callable(distribution):
    if distribution not in DISTRIBUTIONS:
      raise ValueError(
        f'expected distribution out of {sorted(DISTRIBUTIONS)}, got '
        f'{distribution!r}'
      )
    distribution = DISTRIBUTIONS[distribution]
  if isinstance(dense, str):
    dense = (dense,)
  if scope == 'global' and dense:
    raise ValueError(
      "expected no dense layers with scope='global', got "
      f'{tuple(dense)}: leave them out of the selection instead'
    )

  def counts(params) -> Counts:
    selected = select_lib.selected_paths(params, select)
    if not selected:  # a tree without leaves, such as Optax's placeholder
      return Counts({}, {}, {}, scope, {})
    shapes = {path: tuple(x.shape) for path, x in selected.items()}
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    if scope == 'global':
      return _in_all(sizes, forward_density, backward_density)
    full = _matching(dense, shapes)
    densities = distribution(shapes, forward_density, dense=full)
    forward = _kept(densities, sizes)
    backward = _kept(distribution(shapes, backward_density, dense=full), sizes)
    sparse = {path: n for path, n in sizes.items() if forward[path] < n}
    return Counts(
      sparse,
      {path: forward[path] for path in sparse},
      {path: max(forward[path], backward[path]) for path in sparse},
      scope,
      densities,
    )

  return counts


def _kept(densities, sizes):
  return {
    path: masks.num_kept(density, sizes[path])
    for path, density in densities.items()
  }


def _in_all(sizes, forward_density, backward_density) -> Counts:
  total = sum(sizes.values())
  forward = masks.num_kept(forward_density, total)
  backward = masks.num_kept(backward_density, total)
  sparse = sizes if forward < total else {}
  densities = dict.fromkeys(sizes, forward_density)
  return Counts(sparse, forward, backward, 'global', densities)


def _matching(patterns: Sequence[str], paths) -> list[str]:
  """Returns the paths that a pattern matches; each has to match one."""
  for pattern in patterns:
    if not any(re.search(pattern, path) for path in paths):
      raise ValueError(
        f'expected dense layers out of {sorted(paths)}, got {pattern!r}, which '
        'matches none'
      )
  return [path for path in paths if any(re.search(p, path) for p in patterns)]
