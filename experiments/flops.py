"""What a config's network costs: parameters, bytes and FLOPs.

  python -m experiments.flops --config=FILE[:VARIANT] [--json]

Any value of the config can be overridden, as with `launch.py`:
--config.section.key=value. Needs no data. Conventions: `sparsity.flops`.
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import json
import sys
from typing import Any

import rich.console
import rich.table

from experiments import costs
from experiments.common import build
from experiments.common import config as config_lib

USER_ERROR = 2  # exit code


def report(config: Mapping[str, Any]) -> costs.Report:
  """Returns the costs of a run's config (stand-in)."""
  plain = {key: value for key, value in config.items() if key != 'seed'}
  alpha = config['powerprop']['alpha']
  powerprop = {
    'optimizer_in': config['powerprop']['optimizer_in'],
    'alphas': [alpha],
  }
  more = {}
  if config['experiment'] != 'language_modelling':
    more = {'side_by_side': 'never', 'loss': {'label_smoothing': 0.0}}
  plain = {**plain, 'seeds': [0], 'powerprop': powerprop, **more}
  return costs.report(build.build(costs.SUBJECTS, plain, key='experiment'))


def show(found: costs.Report, console: rich.console.Console) -> None:
  """Prints a layer a row, and the totals."""
  table = rich.table.Table(
    'layer', 'shape', box=rich.table.box.SIMPLE_HEAD, show_footer=True
  )
  table.columns[0].footer = 'all'
  for name, footer in (
    ('entries', f'{found.entries:,}'),
    ('density', f'{found.active_entries / found.entries:.4f}'),
    ('bytes, dense', f'{found.num_bytes:,}'),
    ('sparse', f'{found.sparse_bytes:,}'),
    ('FLOPs, dense', f'{found.flops:,.0f}'),
    ('sparse', f'{found.sparse_flops:,.0f}'),
  ):
    table.add_column(name, footer, justify='right')
  multiplied = [row for row in found.rows if row.flops]
  rest = [row for row in found.rows if not row.flops]
  for row in multiplied:
    table.add_row(
      row.path, ' x '.join(map(str, row.shape)), *_cells(row._asdict())
    )
  names = ('entries', 'num_bytes', 'sparse_bytes', 'flops', 'sparse_flops')
  sums = {name: sum(getattr(row, name) for row in rest) for name in names}
  table.add_row('(in no product)', '', *_cells({**sums, 'density': 1.0}))
  if found.other_flops:
    other = f'{found.other_flops:,}'
    table.add_row('(no parameter)', *[''] * 5, other, other)
  console.print(table)
  print(*totals(found), sep='\n')


def totals(found: costs.Report) -> list[str]:
  """Returns lines on inference and training."""
  return [
    f'inference: {found.flops:.4g} FLOPs dense, {found.sparse_flops:.4g} '
    f'sparse: {found.inference_share:.4f} of dense',
    f'training:  {found.train_flops:.4g} FLOPs an example and step dense, '
    f'{found.sparse_train_flops:.4g} with the method: '
    f'{found.train_share:.4f} of dense; {found.total_train_flops:.4g} in all',
  ]


def _cells(values: Mapping[str, Any]) -> list[str]:
  return [
    f'{values["entries"]:,}',
    f'{values["density"]:.4f}',
    f'{values["num_bytes"]:,}',
    f'{values["sparse_bytes"]:,}',
    f'{values["flops"]:,}',
    f'{values["sparse_flops"]:,.0f}',
  ]


def as_json(found: costs.Report) -> str:
  """Returns the report as JSON."""
  rows = [row._asdict() for row in found.rows]
  return json.dumps({**found._asdict(), 'rows': rows}, indent=2)


def main(arguments: Sequence[str]) -> int:
  """Prints the report on a config, and returns the exit code."""
  parser = argparse.ArgumentParser(
    'experiments.flops',
    'python -m experiments.flops --config=FILE[:VARIANT] [--json] '
    '[--config.section.key=value ...]',
    __doc__,
    allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--config', required=True, help='config file')
  parser.add_argument('--json', action='store_true', help='print JSON')
  known, overrides = parser.parse_known_args(arguments)
  try:
    config = config_lib.load(known.config, overrides)
    subject = build.build(costs.SUBJECTS, config, key='experiment')
    found = costs.report(subject)
  except ValueError as error:
    print(f'experiments.flops: {error}', file=sys.stderr)
    return USER_ERROR
  if known.json:
    print(as_json(found))
  else:
    width = None if sys.stdout.isatty() else 140
    show(found, rich.console.Console(width=width))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
