"""Memory of a training step on TPUs, from the compiled program.

  python -m benchmarks.memory [--only=TEXT] [--method=TEXT] [--more]

Compiles the step of each config, method and storage for v5e topologies that
divide the recipe's batch, from the smallest on, up to the first that it fits.
Needs libtpu and no TPU. Each row is added to docs/results/memory.csv as it is
found, and a later call goes on from there; `--more` compiles for one topology
more. The table of docs/memory.md is written at the end. `--only` and `--method`
choose the rows whose names contain a text.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import math
import pathlib
import sys
import time
from typing import Any

import jax
import pandas as pd

from experiments import topology as topology_lib
from experiments.sweep import plan
from sparsity import compact

ROOT = pathlib.Path(__file__).parent.parent
FILE = ROOT / 'docs' / 'results' / 'memory.csv'
PAGE = ROOT / 'docs' / 'memory.md'
CONFIGS = {
  'imagenet_resnet50': 'imagenet_resnet50.py:{}',
  'enwik8_base': 'enwik8_transformer_xl.py:{},size=base',
  'enwik8_large': 'enwik8_transformer_xl.py:{},size=large',
  'wikitext103_base': 'wikitext103_transformer_xl.py:{},size=base',
  'wikitext103_large': 'wikitext103_transformer_xl.py:{},size=large',
}
for _name in ('enwik8_large', 'wikitext103_large'):
  CONFIGS[f'{_name}, remat'] = f'{CONFIGS[_name]} --config.model.remat=blocks'
# Masked storage takes as much at each density.
METHODS = {
  'dense': ('dense', ['masked']),
  'Top-KAST 10/20%': (
    'topkast,density=0.1,backward_density=0.2', ['masked', 'compact'],
  ),
  'Top-KAST 5/10%': ('topkast,density=0.05,backward_density=0.1', ['compact']),
}  # fmt: skip
TOPOLOGIES = [
  f'v5e:{shape}'
  for shape in ('1x1', '1x2', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16')
]
KEYS = ['config', 'method', 'storage', 'topology']
SIZES = ['state', 'arguments', 'temporaries', 'peak']  # GiB
COLUMNS = [
  *KEYS, 'chips', 'batch', 'parameters', *SIZES, 'flops', 'fits', 'cpu_s',
  'jax',
]  # fmt: skip
MARK = '<!-- table -->\n'  # the script writes what follows


def cells() -> Iterator[tuple[str, str, str]]:
  """Yields config, method and storage of each part of the table."""
  for config in CONFIGS:
    for method, (_, storages) in METHODS.items():
      for storage in storages:
        yield config, method, storage


def make_config(name: str, method: str, storage: str) -> dict[str, Any]:
  """Returns the config of a run."""
  file, *overrides = CONFIGS[name].format(METHODS[method][0]).split()
  overrides.append(f'--config.method.storage={storage}')
  config = plan.make(str(ROOT / 'configs' / file), overrides).runs[0].config
  if 'evaluation' in config:  # no part of the step; to divide as the batch does
    size = config['train']['batch_size']
    config['evaluation'] = {**config['evaluation'], 'batch_size': size}
  return config


def measure(config: dict[str, Any], topology: str) -> dict[str, Any]:
  """Returns the sizes of a step on a topology; compiles it."""
  start = time.process_time()
  task = topology_lib.make_task(config, topology)
  usage = topology_lib.compile_step(task)
  state = compact.num_bytes((task.state.params, task.state.opt_state))
  row = {
    'chips': task.training.mesh.size,
    'batch': task.training.batch_size,
    'parameters': sum(x.size for x in jax.tree.leaves(task.params)),
    'flops': usage.flops,
    'fits': usage.fits,
    'cpu_s': round(time.process_time() - start),
    'jax': jax.__version__,
  }
  sizes = (state, usage.arguments, usage.temporaries, usage.peak)
  for name, size in zip(SIZES, sizes, strict=True):
    row[name] = None if size is None else round(size / topology_lib.GIB, 3)
  return row


def chips(topology: str) -> int:
  """Returns the number of chips of a topology's name."""
  return math.prod(map(int, topology.partition(':')[2].split('x')))


def read() -> pd.DataFrame:
  """Returns the rows found so far."""
  return pd.read_csv(FILE) if FILE.exists() else pd.DataFrame(columns=COLUMNS)


def fill(cell: tuple[str, str, str], more: bool) -> None:
  """Adds rows of a part of the table until a step fits, and writes each."""
  config = make_config(*cell)
  for topology in TOPOLOGIES:
    frame = read()
    own = frame[(frame[KEYS[:3]] == list(cell)).all(axis=1)]
    if own.fits.any() and not more:
      return
    batch_size = config['train']['batch_size']
    if topology in set(own.topology) or batch_size % chips(topology):
      continue
    more = False
    key = dict(zip(KEYS, (*cell, topology), strict=True))
    row = pd.DataFrame([key | measure(config, topology)], columns=COLUMNS)
    print(row.to_string(index=False, header=False), flush=True)
    parts = [part for part in (read(), row) if len(part)]
    pd.concat(parts).to_csv(FILE, index=False, lineterminator='\n')


def render(frame: pd.DataFrame) -> str:
  """Returns the table in Markdown."""
  order = {name: i for i, name in enumerate([*CONFIGS, *METHODS])}
  frame = frame.assign(
    place=frame.config.map(order), second=frame.method.map(order)
  ).sort_values(['place', 'second', 'storage', 'chips'], kind='stable')
  columns = ['batch', 'parameters', *SIZES, 'flops', 'cpu_s', 'fits']
  table = frame[[*KEYS, *columns]]
  table = table.assign(
    parameters=(table.parameters / 1e6).map('{:.1f}M'.format),
    flops=table.flops.map('{:.3g}'.format),
    cpu_s=table.cpu_s.map('{:.0f}'.format),
    fits=table.fits.map({True: 'yes', False: 'no'}),
    **{name: table[name].map('{:.3f}'.format) for name in SIZES},
  ).replace('nan', '')
  versions = ', '.join(sorted(set(frame.jax)))
  text = table.to_markdown(index=False, disable_numparse=True)
  return f'\nJAX {versions}.\n\n{text}\n'


def main(arguments: Sequence[str]) -> None:
  """Fills the table and writes the page."""
  parser = argparse.ArgumentParser(
    'python -m benchmarks.memory',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--only', default='', help='configs with this text')
  parser.add_argument('--method', default='', help='methods with this text')
  parser.add_argument('--more', action='store_true', help='one topology more')
  given = parser.parse_args(arguments)
  jax.config.update('jax_platforms', 'cpu')
  for cell in cells():
    name = ' '.join(cell[1:])
    if given.only in cell[0] and given.method in name:
      fill(cell, given.more)
  prose, mark, _ = PAGE.read_text().partition(MARK)
  PAGE.write_text(prose + mark + render(read()))
  print(PAGE)


if __name__ == '__main__':
  main(sys.argv[1:])
