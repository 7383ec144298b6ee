"""Writes docs/benchmarks.md from the records in docs/results/speed.

python -m benchmarks.page
"""

import pathlib

import pandas as pd

from benchmarks import record

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
SPEED = DOCS / 'results' / 'speed'
PAGE = DOCS / 'benchmarks.md'
INTRODUCTION = """# Benchmarks

Written by `make bench` from the records in `docs/results/speed`. Ratios come
from one run with the cases in turns and are medians over rounds. The machine
was quiet, with `chrt -f 1` before each command; the long run had one core. A
ratio over 1 is slower than the case it is compared with, see the docstring of
each benchmark.
"""
NOTES = {
  'compact': 'Dense = 1; each step follows an untimed one of its kind. '
  '`to ideal` is the time over the share of FLOPs, `state` the bytes of '
  'parameters, gradients and optimizer state.',
  'inference': '`compile_inference` against the dense network with the same '
  'pruned weights.',
  'input': 'Images per CPU second from array_record files to normalized '
  'batches; the ratio is to decoding alone.',
  'language': 'Transformer-XL, 6 layers of width 256: tokens per second, and '
  'Top-KAST against dense.',
  'masked': 'Forward product and gradient of inputs, skipping masked weights '
  'against the masked array.',
  'soak': 'A long run with evaluation and saves: memory, files and speed.',
  'step': 'A training step against the dense Optax step; refresh every 100 '
  'steps included.',
  'storage': 'A step of an experiment, compact against masked storage, host '
  'work included.',
  'topk': 'Exact top-k masks; the ratio is to our counting search.',
  'vision': 'ResNet-50 at 224 pixels against its dense step.',
}


def render() -> str:
  """Returns the page."""
  parts = [INTRODUCTION]
  for path in sorted(SPEED.glob('*.csv')):
    frame = record.read(path)
    parts.append(f'\n## {path.stem}\n')
    if note := NOTES.get(path.stem.partition('_')[0]):
      parts.append(f'{note}\n')
    for setting, rows in frame.groupby(
      ['command', 'cpu', 'cores', 'isa', 'jax', 'date'], sort=False
    ):
      parts.append(_caption(*setting))
      parts.append(_table(rows))
  return '\n'.join(parts)


def _caption(command, cpu, cores, isa, jax, date) -> str:
  return f'`{command}` ({cpu}, {cores} cores, {isa}, JAX {jax}, {date})\n'


def _table(rows: pd.DataFrame) -> str:
  """Returns a row a case and a column a figure."""
  units = [f' [{x}]' if x not in ('', 'x') else '' for x in rows['unit']]
  table = pd.DataFrame(
    {
      'case': rows['case'],
      'label': [a + b for a, b in zip(rows['figure'], units, strict=True)],
      'value': [f'{float(x):,.3g}' for x in rows['value']],
    }
  )
  order = list(dict.fromkeys(table['label']))
  wide = table.pivot(index='case', columns='label', values='value')
  wide = wide.reindex(index=list(dict.fromkeys(rows['case'])), columns=order)
  markdown = (
    wide.fillna('')
    .reset_index()
    .to_markdown(
      index=False,
      colalign=('left', *['right'] * len(order)),
      disable_numparse=True,
    )
  )
  return f'{markdown}\n'


if __name__ == '__main__':
  PAGE.write_text(render())
  print(PAGE)
