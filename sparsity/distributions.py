"""Distributions of a total density over layers.

Each maps the shapes of the layers, by path `'module/name'`, and the density of
all entries together to the density of each layer. Layers in `dense` stay dense
and count towards the total, so that the others get less.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import math
from typing import Any
import warnings

import jax
import jax.numpy as jnp

from sparsity import schedules
from sparsity import select as select_lib

Shapes = Mapping[str, tuple[int, ...]]
Distribution = Callable[..., dict[str, float]]


def uniform(
  shapes: Shapes, density: float, *, dense: Iterable[str] = ()
) -> dict[str, float]:
  """Returns the same density for every layer outside `dense`.

  Example:
    >>> uniform({'a/w': (10, 10), 'b/w': (5, 20)}, 0.25)
    {'a/w': 0.25, 'b/w': 0.25}

  Raises:
    ValueError: If `density` is outside (0, 1], `dense` names an unknown layer,
      or the dense layers leave no entry to the others.
  """
  return _solve(shapes, density, dense, lambda shape: 1.0)


def erdos_renyi(
  shapes: Shapes, density: float, *, dense: Iterable[str] = ()
) -> dict[str, float]:
  """Returns densities proportional to (in + out) / (in * out).

  In and out are the last two axes; the spatial axes of a convolution kernel are
  ignored. Layers whose density would exceed 1 are dense, and their surplus is
  divided among the others.

  Raises:
    ValueError: As for `uniform`.

  Reference:
    Mocanu et al., 2018, "Scalable training of artificial neural networks with
    adaptive sparse connectivity". https://arxiv.org/abs/1707.04780
  """
  return _solve(
    shapes,
    density,
    dense,
    lambda shape: sum(shape[-2:]) / math.prod(shape[-2:]),
  )


def erdos_renyi_kernel(
  shapes: Shapes, density: float, *, dense: Iterable[str] = ()
) -> dict[str, float]:
  """Returns densities proportional to sum(shape) / prod(shape).

  Like `erdos_renyi`, but includes the spatial axes of a convolution kernel.

  Example:
    >>> shapes = {'conv/w': (3, 3, 16, 16), 'linear/w': (256, 256)}
    >>> densities = erdos_renyi_kernel(shapes, 0.1)
    >>> {path: round(density, 4) for path, density in densities.items()}
    {'conv/w': 0.2034, 'linear/w': 0.0964}

  Raises:
    ValueError: As for `uniform`.

  Reference:
    Evci et al., 2020, "Rigging the lottery: making all tickets winners".
    https://arxiv.org/abs/1911.11134
  """
  return _solve(
    shapes, density, dense, lambda shape: sum(shape) / math.prod(shape)
  )


def _solve(
  shapes: Shapes,
  density: float,
  dense: Iterable[str],
  weight: Callable[[tuple[int, ...]], float],
) -> dict[str, float]:
  """Returns min(1, eps * weight(shape)) by layer; the total sets eps."""
  schedules.check_density('a density', density)
  full = set(dense)
  if unknown := sorted(full - set(shapes)):
    raise ValueError(
      f'expected dense layers out of {sorted(shapes)}, got {unknown}'
    )
  sizes = {path: math.prod(shape) for path, shape in shapes.items()}
  if not all(sizes.values()):
    raise ValueError(f'expected layers with entries, got {shapes}')
  raw = {path: weight(shapes[path]) for path in shapes}
  total = sum(sizes.values())
  used = sum(sizes[path] for path in full)
  others = [path for path in shapes if path not in full]
  if used > density * total or (others and full and used == density * total):
    raise ValueError(
      f'expected dense layers within density {density} ({density * total:.0f} '
      f'entries), got {sorted(full)} with {used}, {used / total:.4g} of all, '
      f'which leaves none to {others}: raise the density, keep fewer layers '
      'dense, or exclude them from the selection'
    )
  epsilon = 1.0
  # Clipping layers to 1 only raises eps, so a clipped layer stays clipped.
  while rest := [path for path in shapes if path not in full]:
    used = sum(sizes[path] for path in full)
    shares = sum(raw[path] * sizes[path] for path in rest)
    epsilon = density * (total / shares) - used / shares
    over = [path for path in rest if epsilon * raw[path] > 1]
    if not over:
      break
    full.update(over)
  return {path: 1.0 if path in full else epsilon * raw[path] for path in shapes}


def warn_of_empty(masks: Any) -> None:
  """Warns of the layers of a tree of masks without an active entry.

  With `scope='global'` a layer whose scores are small may keep none: then the
  network's output does not depend on its input through this layer. Nothing is
  known of masks that are traced.
  """
  leaves = select_lib.path_leaves(masks)
  if any(isinstance(x, jax.core.Tracer) for _, x in leaves):
    return
  empty = [path for path, x in leaves if not jnp.any(x)]
  if empty:
    warnings.warn(
      f"scope='global' leaves no active entry in {', '.join(empty)}: raise the "
      "density, keep the layer dense, or take scope='layer'",
      stacklevel=3,
    )
