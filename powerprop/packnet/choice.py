"""The masks of a task: a fixed fraction, or the sparsest accurate enough."""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import itertools
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from powerprop.packnet import ownership
from sparsity import select as select_lib
from sparsity import state as state_lib
from sparsity import topk

SCOPES = ('layer', 'global')


class Search(NamedTuple):
  """Result of a search."""

  masks: ownership.Layers  # boolean, by path, for `claim`
  density: float  # of the masks; 1 if even the first candidate was too low
  accuracy: float  # with the masks
  full_accuracy: float  # with all weights
  tried: tuple[tuple[float, float], ...]  # (density, accuracy), in order


def fixed_share(
  params: Any, state: ownership.PackState, density: float
) -> ownership.Layers:
  """Returns PackNet's masks for the next task.

  They include all owned entries and a fraction `density` of the free entries of
  each layer: the largest, at least one if any is free. 1 / (T - t + 1) gives
  each of T tasks the same number.

  Example:
    >>> params = {'linear': {'w': jnp.array([[1.0, -4.0, 3.0, 2.0]])}}
    >>> state = ownership.init(params, num_tasks=2)
    >>> fixed_share(params, state, 0.5)['linear/w']
    Array([[False,  True,  True, False]], dtype=bool)

  Raises:
    ValueError: If the density is outside (0, 1].
  """
  ks = {
    path: jnp.int32(min(n, topk.num_kept(density, max(1, n))))
    for path, n in ownership.free_by_layer(state).items()
  }
  return _fixed_share(select_lib.pick(params, state.owner), state.owner, ks)


def search(
  evaluate: Callable[[Any], Any],
  params: Any,
  state: ownership.PackState,
  *,
  densities: Sequence[float],
  gamma: float,
  scope: str = 'layer',
) -> Search:
  """Returns EfficientPackNet's masks: the sparsest with enough accuracy.

  The masks keep the largest weights, owned or free, of each layer or, with
  scope 'global', of all layers together. One density after another is tried, up
  to the first with too low an accuracy. If even the first is too low, the task
  uses all weights and leaves none free.

  Nothing is recompiled for further densities, tasks or searches.

  Example:
    >>> params = {'linear': {'w': jnp.array([[1.0, -4.0, 3.0, 2.0]])}}
    >>> state = ownership.init(params, num_tasks=2)
    >>> largest = lambda params: jnp.max(params['linear']['w']) / 3
    >>> found = search(
    ...   largest, params, state, densities=(0.75, 0.5, 0.25), gamma=0.9)
    >>> found.masks['linear/w'], found.density
    (Array([[False,  True,  True, False]], dtype=bool), 0.5)

  Args:
    evaluate: maps parameters, with packed layers masked, to the validation
      accuracy; compiled by the caller.
    densities: candidates, decreasing, each in (0, 1].
    gamma: fraction of the accuracy with all weights to retain, in [0, 1].
    scope: 'layer' or 'global'.

  Raises:
    ValueError: If an argument is out of range, or the accuracy with all weights
      is negative or not finite.
  """
  check_search(densities, gamma, scope)
  full_accuracy = float(evaluate(params))
  if not (math.isfinite(full_accuracy) and full_accuracy >= 0):
    raise ValueError(
      'expected evaluate to return an accuracy, finite and not negative, got '
      f'{full_accuracy} with all weights'
    )
  layers = select_lib.pick(params, state.owner)
  tried = []
  best = state_lib.trues(layers), 1.0, full_accuracy
  for density in map(float, densities):
    masks, masked = _largest(layers, _num_kept(layers, density, scope), scope)
    accuracy = float(evaluate(select_lib.put(params, masked)))
    tried.append((density, accuracy))
    if not accuracy >= gamma * full_accuracy:  # also if it is NaN
      break
    best = masks, density, accuracy
  return Search(*best, full_accuracy, tuple(tried))


def check_search(
  densities: Sequence[float], gamma: float, scope: str = 'layer'
) -> None:
  """Raises ValueError unless the arguments of a `search` are valid."""
  if scope not in SCOPES:
    raise ValueError(f'expected scope, one of {SCOPES}, got {scope!r}')
  if not 0 <= gamma <= 1:
    raise ValueError(f'expected gamma in [0, 1], got {gamma}')
  densities = list(densities)
  if not densities or not all(0 < density <= 1 for density in densities):
    raise ValueError(f'expected densities in (0, 1], got {densities}')
  if any(a <= b for a, b in itertools.pairwise(densities)):
    raise ValueError(
      f'expected decreasing densities (increasing sparsities), got {densities}'
    )


def _num_kept(layers, density: float, scope: str):
  """Returns the number of weights to keep: of each layer, or of all."""
  if scope == 'global':
    total = sum(x.size for x in layers.values())
    return jnp.int32(topk.num_kept(density, total))
  return {
    path: jnp.int32(topk.num_kept(density, x.size))
    for path, x in layers.items()
  }


@functools.partial(jax.jit, static_argnames='scope')
def _largest(layers, ks, scope):
  """Returns the masks of the largest weights, and the masked layers."""
  masks = topk.topk_masks(layers, ks, scope, magnitude=True)
  return masks, jax.tree.map(state_lib.masked, masks, layers)


@jax.jit
def _fixed_share(layers, owner, ks):
  scores = {
    path: jnp.where(owner[path] == 0, layer, jnp.nan)
    for path, layer in layers.items()
  }
  largest = topk.topk_masks(scores, ks, magnitude=True)
  return {path: mask | (owner[path] > 0) for path, mask in largest.items()}
