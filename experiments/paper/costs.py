"""Costs of a run's network, from its config."""

from collections.abc import Mapping
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp

from experiments import flops
from experiments.tasks import pruning
from sparsity import flops as flops_lib

COSTS = (
  'density', 'inference_flops', 'inference_share', 'train_flops',
  'train_share', 'num_bytes',
)  # fmt: skip


def of_network(
  config: Mapping[str, Any], share: float | None = None
) -> dict[str, float]:
  """Returns the `COSTS` of a network; {} where they are unknown.

  `density` is over all parameters, FLOPs of inference are those of one example,
  of training those of all steps; shares are relative to dense. Unknown:
  continual learning, and a sparse network pruned further.

  Args:
    config: of its run.
    share: its pruning level; None for the network as trained.

  Raises:
    ValueError: If the config does not build.
  """
  is_sparse = config.get('method', {'name': ''})['name'] != 'dense'
  if config['experiment'] == 'continual_learning' or (share and is_sparse):
    return {}
  text = json.dumps({**config, 'seed': 0}, sort_keys=True)
  report = _report(text)
  found = (
    report.active_entries / report.entries, report.sparse_flops,
    report.inference_share, report.total_train_flops, report.train_share,
    report.sparse_bytes,
  )  # fmt: skip
  costs = dict(zip(COSTS, map(float, found), strict=True))
  return costs | _pruned(report, config['prune'], share) if share else costs


def _pruned(
  report: Any, section: Mapping[str, Any], share: float
) -> dict[str, float]:
  """Returns the costs of inference with a dense network after pruning."""
  params: dict[str, dict[str, Any]] = {}
  for row in report.rows:
    module, name = row.path.rsplit('/', 1)
    shape = jax.ShapeDtypeStruct(row.shape, jnp.float32)
    params.setdefault(module, {})[name] = shape
  levels = pruning.make_levels(
    params,
    lowest=share,
    highest=share,
    num_levels=1,
    output_layer=section['output_layer'],
    output_factor=section['output_factor'],
  )
  kept = {row.path: row.entries for row in report.rows}
  kept |= {path: int(numbers[0]) for path, numbers in levels.kept.items()}
  inference = report.other_flops + sum(
    row.flops * kept[row.path] / row.entries for row in report.rows
  )
  return {
    'density': sum(kept.values()) / report.entries,
    'inference_flops': float(inference),
    'inference_share': inference / report.flops,
    'num_bytes': float(
      sum(
        flops_lib.num_bytes(row.entries, kept[row.path]) for row in report.rows
      )
    ),
  }


@functools.cache
def _report(text: str) -> Any:
  return flops.report(json.loads(text))
