"""Pruning after training: accuracy against the share of weights that is kept.

The protocol of Powerpropagation's MNIST experiment: once, by magnitude, in each
layer, with no training afterwards; the output layer keeps twice the share.
"""

from collections.abc import Mapping
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
import sparsity
from sparsity import select

Array = jax.Array


class Levels(NamedTuple):
  """Pruning levels: how many weights of each layer are kept at each."""

  shares: tuple[float, ...]  # p, as configured
  kept: dict[str, np.ndarray]  # int [L] by layer path


def make_levels(
  params: Any,
  *,
  lowest: float,
  highest: float,
  num_levels: int,
  output_layer: str | None,
  output_factor: float,
) -> Levels:
  """Returns geometrically spaced levels for the weights among `params`.

  Each layer keeps int(p * size) weights, the output layer ('module/name', or
  None) int(min(1, p * output_factor) * size). ValueError if a layer keeps none.
  """
  if not 0 < lowest <= highest <= 1:
    raise ValueError(
      'expected shares 0 < lowest <= highest <= 1, got '
      f'lowest={lowest}, highest={highest}'
    )
  build.check_range(0, math.inf, num_levels=num_levels)
  build.check_range(0, math.inf, output_factor=output_factor)
  sizes = {
    path: math.prod(x.shape)
    for path, x in select.selected_paths(params, sparsity.is_weight).items()
  }
  if output_layer is not None and output_layer not in sizes:
    raise ValueError(
      f'expected output_layer out of {sorted(sizes)}, got {output_layer!r}'
    )
  shares = tuple(float(p) for p in np.geomspace(lowest, highest, num_levels))
  factors = {**dict.fromkeys(sizes, 1.0), output_layer: output_factor}
  kept = {
    path: np.array(
      [int(min(1.0, factors[path] * p) * size) for p in shares], np.int32
    )
    for path, size in sizes.items()
  }
  for path, numbers in kept.items():
    if num_levels and not numbers.min():
      raise ValueError(
        f'expected levels that keep a weight in each layer, but of {path} with '
        f'{sizes[path]} weights the level {shares[0]:g} keeps none: raise '
        'lowest'
      )
  return Levels(shares, kept)


def at_level(
  weights: Any, initial: Any, kept: Mapping[str, Any]
) -> tuple[Any, dict[str, Array]]:
  """Returns the weights with `kept` in each layer, and two metrics.

  `density` is the share of weights that remain, less than asked for where a
  sparse network has no more; `overlap` the share of the kept weights that would
  have been kept before training, among `initial`.
  """
  layers = select.pick(weights, kept)
  now, before = (
    sparsity.topk_masks(select.pick(tree, kept), dict(kept), magnitude=True)
    for tree in (weights, initial)
  )
  pruned = {path: jnp.where(now[path], x, 0) for path, x in layers.items()}
  metrics = {
    'density': sparsity.density(jax.tree.map(lambda x: x != 0, pruned)),
    'overlap': sparsity.overlap(now, before),
  }
  return select.put(weights, pruned), metrics


def histogram(
  weights: Any, num_bins: int, limit: float
) -> dict[str, list[float]]:
  """Returns `edges` and `counts` of all weights, those beyond at the ends."""
  layers = select.selected_paths(weights, sparsity.is_weight).values()
  values = np.concatenate([np.asarray(x, np.float64).ravel() for x in layers])
  edges = np.linspace(-limit, limit, num_bins + 1)
  counts, _ = np.histogram(np.clip(values, -limit, limit), edges)
  return {'edges': edges.tolist(), 'counts': counts.tolist()}
