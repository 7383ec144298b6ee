"""Costs of a run's network, from its config."""

from collections.abc import Mapping
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments import flops
from experiments.tasks import pruning
from sparsity import flops as flops_lib

COSTS = (
  'density', 'inference_flops', 'inference_share', 'train_flops',
  'train_share', 'num_bytes',
)  # fmt: skip

_report = functools.cache(lambda text: flops.report(json.loads(text)))


def of_network(
  config: Mapping[str, Any], share: float | None = None
) -> dict[str, float]:
  """Returns the `COSTS` of a network; {} where they are unknown.

  `density` is over all parameters, FLOPs of inference are those of one example,
  of training those of all steps; shares are relative to dense. `share` is the
  pruning level. Unknown: continual learning, and a sparse network pruned
  further. Raises ValueError if the config does not build.
  """
  if config['experiment'] == 'continual_learning':
    return {}
  if share and config['method']['name'] != 'dense':
    return {}
  found = _report(json.dumps({**config, 'seed': 0}, sort_keys=True))
  costs = (
    found.active_entries / found.entries, found.sparse_flops,
    found.inference_share, found.total_train_flops, found.train_share,
    found.sparse_bytes,
  )  # fmt: skip
  if share:
    rows, kept = found.rows, _kept(found.rows, config['prune'], share)
    sparse = found.other_flops + (rows.flops * kept / rows.entries).sum()
    num_bytes = sum(map(flops_lib.num_bytes, rows.entries, kept))
    costs = (
      kept.sum() / found.entries, sparse, sparse / found.flops, *costs[3:5],
      num_bytes,
    )  # fmt: skip
  return dict(zip(COSTS, map(float, costs), strict=True))


def _kept(
  rows: pd.DataFrame, section: Mapping[str, Any], share: float
) -> np.ndarray:
  """Returns the entries of each parameter after pruning to a level."""
  params: dict[str, dict[str, Any]] = {}
  for row in rows.itertuples():
    module, name = row.path.rsplit('/', 1)
    shape = jax.ShapeDtypeStruct(row.shape, jnp.float32)
    params.setdefault(module, {})[name] = shape
  one = {'lowest': share, 'highest': share, 'num_levels': 1}
  kept = pruning.make_levels(params, **{**section, **one}).kept
  return np.array([
    kept[row.path][0] if row.path in kept else row.entries
    for row in rows.itertuples()
  ])  # fmt: skip
