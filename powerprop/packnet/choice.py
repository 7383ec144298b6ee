"""Which weights a task uses: a fixed share, or as few as its accuracy allows.

Shapes:
  N: number of densities that a search may try.
"""

from collections.abc import Callable
from collections.abc import Sequence
import itertools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from powerprop.packnet import ownership
from sparsity import masks as masks_lib
from sparsity import select as select_lib
from sparsity import threshold


class Search(NamedTuple):
  """What a search found."""

  masks: ownership.Layers  # by path, boolean, for `claim`
  density: float  # of the masks; 1 if even the first density was too low
  accuracy: float  # with the masks
  full_accuracy: float  # with all weights
  tried: tuple[tuple[float, float], ...]  # densities, accuracies, in order


def fixed_share(
  params: Any, state: ownership.PackState, density: float
) -> ownership.Layers:
  """Returns PackNet's masks for the next task.

  They hold all that earlier tasks own, and of the free entries of each layer
  the largest: `density` of them, and at least one if there is one.

  Example:
    >>> params = {'linear': {'w': jnp.array([[1.0, -4.0, 3.0, 2.0]])}}
    >>> state = ownership.init(params, num_tasks=2)
    >>> fixed_share(params, state, 0.5)['linear/w']
    Array([[False,  True,  True, False]], dtype=bool)

  Args:
    params: Parameters at the end of the task's training.
    state: The state.
    density: In (0, 1]. With T tasks, 1 / (T - t + 1) gives each the same.

  Raises:
    ValueError: If the density is outside (0, 1].

  Reference:
    Mallya and Lazebnik, 2018, "PackNet: Adding multiple tasks to a single
    network by iterative pruning". https://arxiv.org/abs/1711.05769
  """
  free = {path: jnp.sum(owner == 0) for path, owner in state.owner.items()}
  ks = {
    path: jnp.int32(min(int(n), masks_lib.num_kept(density, max(1, int(n)))))
    for path, n in jax.device_get(free).items()
  }
  return _fixed_share(select_lib.pick(params, state.owner), state.owner, ks)


def search(
  evaluate: Callable[[Any], Any],
  params: Any,
  state: ownership.PackState,
  *,
  densities: Sequence[float],
  gamma: float,
  method: str = 'linear',
) -> Search:
  """Returns EfficientPackNet's masks: the sparsest with enough accuracy.

  The masks keep the largest of all weights of each layer, so that a task may
  use what earlier tasks own. If even the first density is too low it uses all
  weights, and leaves none free.

  Each layer is ranked once for all densities, and nothing is compiled anew for
  a further density, task or search.

  Example:
    >>> params = {'linear': {'w': jnp.array([[1.0, -4.0, 3.0, 2.0]])}}
    >>> state = ownership.init(params, num_tasks=2)
    >>> largest = lambda params: jnp.max(params['linear']['w']) / 3
    >>> found = search(
    ...   largest, params, state, densities=(0.75, 0.5, 0.25), gamma=0.9)
    >>> found.masks['linear/w'], found.density
    (Array([[False,  True,  True, False]], dtype=bool), 0.5)

  Args:
    evaluate: From parameters like `params`, packed layers masked, to the
      accuracy on validation data; compiled by the caller.
    params: Parameters at the end of the task's training.
    state: The state.
    densities: What to try: decreasing, each in (0, 1].
    gamma: In [0, 1]: the share of the accuracy with all weights to be kept.
    method: 'linear' tries one density after another and ends before the first
      with too low an accuracy, as in the paper; 'bisection' takes the accuracy
      to fall with the density, and tries about log2(N + 1).

  Raises:
    ValueError: If an argument is not as above, or an accuracy with all weights
      is negative or not finite.

  Reference:
    Schwarz et al., 2021, "Powerpropagation: A sparsity inducing weight
    reparameterisation". https://arxiv.org/abs/2110.00296
  """
  check_search(densities, gamma, method)
  full_accuracy = float(evaluate(params))
  if not (math.isfinite(full_accuracy) and full_accuracy >= 0):
    raise ValueError(
      'expected evaluate to return an accuracy, finite and not negative, got '
      f'{full_accuracy} with all weights'
    )
  layers = select_lib.pick(params, state.owner)
  cuts = _cuts(layers, _all_ks(layers, densities))
  tried = {}

  def is_enough(level):
    masked = select_lib.put(params, _masked(layers, cuts, level))
    tried[level] = float(evaluate(masked))
    return tried[level] >= gamma * full_accuracy  # False if it is NaN

  find = _first_failure if method == 'linear' else _bisect
  level = find(is_enough, len(densities)) - 1
  is_found = level >= 0
  return Search(
    _masks(layers, cuts, level) if is_found else _everything(layers),
    float(densities[level]) if is_found else 1.0,
    tried[level] if is_found else full_accuracy,
    full_accuracy,
    tuple((float(densities[n]), accuracy) for n, accuracy in tried.items()),
  )


def _first_failure(is_enough, num_levels: int) -> int:
  """Returns the first level that is not enough, tried one by one."""
  return next((n for n in range(num_levels) if not is_enough(n)), num_levels)


def _bisect(is_enough, num_levels: int) -> int:
  """Returns the first level that is not enough, if all after it are not."""
  low, high = 0, num_levels
  while low < high:
    middle = (low + high) // 2
    if is_enough(middle):
      low = middle + 1
    else:
      high = middle
  return low


def check_search(densities: Sequence[float], gamma: float, method: str) -> None:
  """Raises unless the arguments of a search are as `search` says.

  Raises:
    ValueError: Otherwise.
  """
  if not 0 <= gamma <= 1:
    raise ValueError(f'expected gamma in [0, 1], got {gamma}')
  densities = list(densities)
  if not densities or not all(0 < density <= 1 for density in densities):
    raise ValueError(f'expected densities in (0, 1], got {densities}')
  if any(a <= b for a, b in itertools.pairwise(densities)):
    raise ValueError(
      f'expected decreasing densities (increasing sparsities), got {densities}'
    )
  if method not in ('linear', 'bisection'):
    raise ValueError(f"expected method 'linear' or 'bisection', got {method!r}")


def _all_ks(layers, densities) -> ownership.Layers:
  """Returns by path how many to keep at each density, int32 [N]."""
  return {
    path: jnp.array(
      [masks_lib.num_kept(density, layer.size) for density in densities],
      jnp.int32,
    )
    for path, layer in layers.items()
  }


# One cut after another: with all N in one pass the passes are fewer but the
# program grows with N, and compiling it takes longer than a search.
@jax.jit
def _cuts(layers, ks):
  """Returns by path a `threshold.Cut` with arrays [N]."""

  def find(layer, k):
    [cut] = threshold.find([layer], k[None], magnitude=True)
    return cut

  return {
    path: jax.lax.map(lambda k, layer=layer: find(layer, k), ks[path])
    for path, layer in layers.items()
  }


@jax.jit
def _masks(layers, cuts, level):
  return {
    path: threshold.keep(
      layer, jax.tree.map(lambda x: x[level], cuts[path]), magnitude=True
    )
    for path, layer in layers.items()
  }


@jax.jit
def _masked(layers, cuts, level):
  masks = _masks(layers, cuts, level)
  return {
    path: jnp.where(masks[path], layer, jnp.zeros_like(layer))
    for path, layer in layers.items()
  }


@jax.jit
def _fixed_share(layers, owner, ks):
  scores = {
    path: jnp.where(owner[path] == 0, layer, jnp.nan)
    for path, layer in layers.items()
  }
  largest = masks_lib.topk_masks(scores, ks, magnitude=True)
  return {path: mask | (owner[path] > 0) for path, mask in largest.items()}


def _everything(layers):
  return {path: jnp.ones(x.shape, bool) for path, x in layers.items()}
