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
import json
import sys
from typing import Any
from typing import NamedTuple

import pandas as pd

from experiments.sweep import plan
from experiments.tasks import table as task_table
import sparsity
from sparsity import flops

USER_ERROR = 2  # exit code
_SUMS = ('entries', 'num_bytes', 'sparse_bytes', 'flops', 'sparse_flops')


class Row(NamedTuple):
  """One parameter."""

  path: str
  shape: tuple[int, ...]
  entries: int
  density: float  # of the forward set at the end of training
  num_bytes: int  # dense
  sparse_bytes: int
  flops: int  # of the forward pass of one example, dense
  sparse_flops: float


class Report(NamedTuple):
  """Totals of a network; FLOPs of one example."""

  rows: tuple[Row, ...]
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

  With `scope='global'` every layer is taken to have the overall density.

  Raises:
    ValueError: If the config is wrong, or its task has no example to count.
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
  rows = tuple(_row(layer, forward) for layer in network.layers)
  dense, sparse = flops.forward(network), flops.forward(network, forward)
  train = _train(network, method, num_steps, forward, backward)
  return Report(
    rows,
    entries=sum(row.entries for row in rows),
    active_entries=sum(round(row.density * row.entries) for row in rows),
    num_bytes=sum(row.num_bytes for row in rows),
    sparse_bytes=sum(row.sparse_bytes for row in rows),
    other_flops=network.other,
    flops=dense,
    sparse_flops=sparse,
    inference_share=sparse / dense,
    train_flops=flops.train(network),
    sparse_train_flops=train,
    train_share=train / flops.train(network),
    total_train_flops=train * num_steps * task.training.batch_size,
  )


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
  )  # fmt: skip
  options = {name: section[name] for name in names if name in section}
  if 'density' in section:
    options['forward_density'] = section['density']
  counts = sparsity.make_counts(select=select, **options)(params)
  return _shares(counts.forward, counts), _shares(counts.backward, counts)


def _shares(kept: Mapping[str, int] | int, counts: sparsity.Counts):
  if counts.scope == 'global':
    return dict.fromkeys(counts.sizes, kept / sum(counts.sizes.values()))
  return {path: kept[path] / size for path, size in counts.sizes.items()}


def _row(layer: flops.Layer, forward: Mapping[str, float]) -> Row:
  density = forward.get(layer.path, 1.0)
  return Row(
    layer.path,
    layer.shape,
    layer.size,
    density,
    flops.num_bytes(layer.size, layer.size),
    flops.num_bytes(layer.size, round(density * layer.size)),
    layer.flops,
    density * layer.flops,
  )


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
  rest = [row[2:] for row in found.rows if not row.flops]
  rows = [row for row in found.rows if row.flops]
  if rest:
    sums = Row('(in no product)', (), *map(sum, zip(*rest, strict=True)))
    rows.append(sums._replace(density=1.0))
  density = found.active_entries / found.entries
  total = [getattr(found, name) for name in Row._fields if name in _SUMS]
  rows.append(Row('all', (), total[0], density, *total[1:]))
  table = pd.DataFrame(rows)
  table['shape'] = [' x '.join(map(str, row.shape)) for row in rows]
  formats = dict.fromkeys(_SUMS, '{:,.0f}'.format)
  formats['density'] = '{:.4f}'.format
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
    rows = [row._asdict() for row in found.rows]
    print(json.dumps({**found._asdict(), 'rows': rows}, indent=2))
  else:
    show(found)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
