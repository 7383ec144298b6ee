"""Parameters, bytes and FLOPs of a config's first network, dense and sparse.

  python -m experiments.flops --config=FILE[:VARIANT] [--json] \
      [--config.section.key=value ...]

Needs no data. Conventions: `sparsity.flops`. An example of language modelling
is one row of a batch: a segment with a full memory; the attention's products
without parameters are counted as `other_flops`.
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import json
import sys
from typing import Any
from typing import NamedTuple

import pandas as pd

from experiments import methods
from experiments import rundir
from experiments.sweep import plan
from experiments.tasks import pruning
from experiments.tasks import table as task_table
import sparsity
from sparsity import flops

USER_ERROR = 2  # exit code
SUMS = (
  'entries', 'active', 'num_bytes', 'sparse_bytes', 'flops', 'sparse_flops',
)  # fmt: skip

COSTS = (
  'density', 'inference_flops', 'inference_share', 'train_flops',
  'train_share', 'num_bytes',
)  # fmt: skip


class Report(NamedTuple):
  """Totals of a network; FLOPs of one example."""

  rows: pd.DataFrame  # a row for each parameter: path, shape, `SUMS`
  entries: int
  active_entries: int
  num_bytes: int
  sparse_bytes: int
  other_flops: int  # without parameters; in `flops` and `sparse_flops` too
  flops: float  # of inference, dense
  sparse_flops: float
  inference_share: float  # of dense
  train_flops: float  # of a training step, dense
  sparse_train_flops: float  # mean over the method's training
  train_share: float  # of dense
  total_train_flops: float  # of the method, all steps and examples


def report(config: Mapping[str, Any]) -> Report:
  """Returns the costs of a run's network, dense and sparse.

  With `scope='global'` every layer is taken to have the overall density. Raises
  ValueError if the config is wrong, or its task has no example to count.
  """
  task = task_table.make_task(config)
  if task.example is None:
    raise ValueError(
      'expected an experiment whose FLOPs are counted, got '
      f'{config["experiment"]!r}'
    )
  network = flops.count(task.example.fn, task.params, *task.example.args)
  method, num_steps = config['method'], task.num_steps
  forward, backward = densities(method, task.params)
  rows = pd.DataFrame(
    [_row(layer, forward.get(layer.path, 1.0)) for layer in network.layers],
    columns=['path', 'shape', *SUMS],
  )
  dense, sparse = flops.forward(network), flops.forward(network, forward)
  train = _train(network, method, num_steps, forward, backward)
  return Report(
    rows,
    entries=int(rows.entries.sum()),
    active_entries=int(rows.active.sum()),
    num_bytes=int(rows.num_bytes.sum()),
    sparse_bytes=int(rows.sparse_bytes.sum()),
    other_flops=network.other,
    flops=dense,
    sparse_flops=sparse,
    inference_share=sparse / dense,
    train_flops=flops.train(network),
    sparse_train_flops=train,
    train_share=train / flops.train(network),
    total_train_flops=train * num_steps * task.training.batch_size,
  )


def costs(
  config: Mapping[str, Any], share: float | None = None
) -> dict[str, float]:
  """Returns the `COSTS` of a network; {} where they are unknown.

  `density` is over all parameters, FLOPs of inference are those of one example,
  of training those of all steps; shares are relative to dense. `share` is the
  pruning level. Unknown: continual learning, and a sparse network pruned
  further.
  """
  if config['experiment'] == 'continual_learning':
    return {}
  if share and config['method']['name'] != 'dense':
    return {}
  found = _cached(json.dumps({**config, 'seed': 0}, sort_keys=True))
  rows, kept = found.rows, found.rows.active
  if share:
    one = {'lowest': share, 'highest': share, 'num_levels': 1}
    params, section = task_table.make_task(config).params, config['prune']
    levels = pruning.make_levels(params, **{**section, **one}).kept
    pruned = {path: x[0] for path, x in levels.items()}
    kept = rows.path.map(pruned).fillna(rows.entries).astype(int)
  sparse = found.other_flops + (rows.flops * kept / rows.entries).sum()
  values = (
    kept.sum() / found.entries, sparse, sparse / found.flops,
    found.total_train_flops, found.train_share,
    sum(map(flops.num_bytes, rows.entries, kept)),
  )  # fmt: skip
  return dict(zip(COSTS, map(float, values), strict=True))


@functools.cache
def _cached(text: str) -> Report:
  return report(json.loads(text))


def densities(
  section: Mapping[str, Any], params: Any
) -> tuple[dict[str, float], dict[str, float]]:
  """Returns the exact densities k / n of the forward and the backward sets."""
  if section['name'] == 'dense':
    return {}, {}
  select = sparsity.all_of(
    sparsity.is_weight,
    sparsity.none_of(*map(sparsity.matching, section['exclude'])),
  )
  names = (
    'forward_density', 'backward_density', 'distribution', 'scope', 'dense',
    'otherwise',
  )  # fmt: skip
  options = {name: section[name] for name in names if name in section}
  if 'density' in section:
    options['forward_density'] = section['density']
  if 'pattern' in section:
    options['pattern'] = methods.make_pattern(section['pattern'])
  counts = sparsity.make_counts(select=select, **options)(params)
  return _shares(counts.forward, counts), _shares(counts.backward, counts)


def _shares(kept: Mapping[str, int] | int, counts: sparsity.Counts):
  if counts.scope == 'global':
    return dict.fromkeys(counts.sizes, kept / sum(counts.sizes.values()))
  return {path: kept[path] / size for path, size in counts.sizes.items()}


def _row(layer: flops.Layer, density: float) -> tuple[Any, ...]:
  size, active = layer.size, round(density * layer.size)
  num_bytes = flops.num_bytes(size, size), flops.num_bytes(size, active)
  both = layer.flops, density * layer.flops
  return (layer.path, layer.shape, size, active, *num_bytes, *both)


def _train(network, section, num_steps, forward, backward) -> float:
  """Returns the mean FLOPs of a training step of a method."""
  match section['name']:
    case 'dense' | 'static' | 'set':
      return flops.train(network, forward)
    case 'topkast':
      return flops.train(network, forward, backward)
    case 'rigl':
      every = section['refresh_every']
      return flops.train_rigl(network, forward, refresh_every=every)
    case 'snip':  # scores: a gradient of the dense network
      scores = flops.train(network)
      return flops.train(network, forward) + scores / num_steps
    case 'magnitude':
      unpruned = min(1.0, section['at'] / num_steps)
      return flops.train_pruned(network, forward, unpruned=unpruned)
    case 'acdc':
      unpruned = flops.unpruned_acdc(
        num_steps=num_steps,
        start=section['start'],
        end=section['end'],
        phase_steps=section['phase_steps'],
      )
      return flops.train_pruned(network, forward, unpruned=unpruned)
    case 'gradual':
      unpruned = flops.unpruned_gradual(
        num_steps=num_steps,
        start=section['start'],
        end=section['end'],
        prune_every=section['prune_every'],
      )
      return flops.train_pruned(network, forward, unpruned=unpruned)
  raise ValueError(f'expected a method of known cost, got {section["name"]!r}')


def show(found: Report) -> None:
  """Prints a row for each parameter in a product, the rest, and the totals."""
  shapes = [' x '.join(map(str, shape)) for shape in found.rows['shape']]
  rows, whole = found.rows.assign(shape=shapes), found.rows.assign(shape='')
  rest = whole[whole.flops == 0].assign(path='(in no product)')
  rows = pd.concat([rows[rows.flops > 0], rest, whole.assign(path='all')])
  table = rows.groupby(['path', 'shape'], sort=False)[[*SUMS]].sum()
  table.insert(2, 'density', table.active / table.entries)
  formats = dict.fromkeys(SUMS, '{:,.0f}'.format)
  formats['density'] = '{:.4f}'.format
  table = table.reset_index()
  print(table.to_string(index=False, formatters=formats))
  if found.other_flops:
    print(f'FLOPs without parameters, in all: {found.other_flops:,}')
  print(*totals(found), sep='\n')


def totals(found: Report) -> list[str]:
  """Returns lines on inference and training."""
  return [
    f'inference: {found.flops:.4g} FLOPs dense, {found.sparse_flops:.4g} '
    f'sparse: {found.inference_share:.4f} of dense',
    f'training:  {found.train_flops:.4g} FLOPs an example and step dense, '
    f'{found.sparse_train_flops:.4g} with the method: '
    f'{found.train_share:.4f} of dense; {found.total_train_flops:.4g} in all',
  ]


def main(arguments: Sequence[str]) -> int:
  """Prints the report on a config, and returns the exit code."""
  parser = argparse.ArgumentParser(
    'python -m experiments.flops',
    description=__doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--config', required=True, help='config file')
  parser.add_argument('--json', action='store_true', help='print JSON')
  known, overrides = parser.parse_known_args(arguments)
  try:
    found = report(plan.make(known.config, overrides).runs[0].config)
  except ValueError as error:
    print(f'experiments.flops: {error}', file=sys.stderr)
    return USER_ERROR
  if known.json:
    rows = found.rows.to_dict('records')
    print(rundir.to_json({**found._asdict(), 'rows': rows}, indent=2))
  else:
    show(found)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
