"""What the networks of a run cost, from its config; each config once."""

from collections.abc import Mapping
import functools
import json
from typing import Any
from typing import NamedTuple

import numpy as np

from experiments import costs
from experiments import pruning
from experiments.common import build
from sparsity import flops

# They change no cost.
_FREE = ('seeds', 'side_by_side', 'loss')


class Costs(NamedTuple):
  """Of one network; FLOPs of inference and a step are of one example."""

  density: float  # of all parameters
  inference_flops: float
  inference_share: float  # of dense
  train_flops: float  # of all steps and examples
  train_share: float  # of dense training in as many steps
  num_bytes: int


class _Counted(NamedTuple):
  subject: costs.Subject
  network: flops.Network
  report: costs.Report


def of(config: Mapping[str, Any], share: float | None = None) -> Costs | None:
  """Returns the costs of a network, or None where they are not known.

  Those of tasks one after another are not, nor those of a sparse network that
  was pruned further.

  Args:
    config: of its run.
    share: at which level it was pruned after training; None: it was not.

  Raises:
    ValueError: If the config is of another version.
  """
  if config['experiment'] not in costs.SUBJECTS:
    return None
  kept = {name: value for name, value in config.items() if name not in _FREE}
  counted = _count(json.dumps({**kept, 'seeds': [0]}, sort_keys=True))
  report = counted.report
  trained = Costs(
    report.active_entries / report.entries,
    report.sparse_flops,
    report.inference_share,
    report.total_train_flops,
    report.train_share,
    report.sparse_bytes,
  )
  if share is None:
    return trained
  if config['method']['name'] != 'dense':
    return None
  return _pruned(counted, config['prune'], share, trained)


def _pruned(
  counted: _Counted, section: Mapping[str, Any], share: float, trained: Costs
) -> Costs:
  """Returns the costs of a dense network after pruning."""
  levels = build.call(
    pruning.make_levels,
    section,
    name='config.prune',
    params=counted.subject.params,
  )
  level = int(np.argmin(np.abs(np.array(levels.shares) - share)))
  kept = {path: int(numbers[level]) for path, numbers in levels.kept.items()}
  sizes = {row.path: row.entries for row in counted.report.rows}
  forward = {path: number / sizes[path] for path, number in kept.items()}
  inference = flops.forward(counted.network, forward)
  active = sum(kept.get(path, size) for path, size in sizes.items())
  return trained._replace(
    density=active / counted.report.entries,
    inference_flops=inference,
    inference_share=inference / counted.report.flops,
    num_bytes=sum(
      flops.num_bytes(size, kept.get(path, size))
      for path, size in sizes.items()
    ),
  )


@functools.cache
def _count(text: str) -> _Counted:
  config = json.loads(text)
  more = (
    {}
    if config['experiment'] == 'language_modelling'
    else {'side_by_side': 'never', 'loss': {'label_smoothing': 0.0}}
  )
  subject = build.build(costs.SUBJECTS, {**config, **more}, key='experiment')
  network = flops.count(subject.fn, subject.params, *subject.args)
  return _Counted(subject, network, costs.report(subject))
