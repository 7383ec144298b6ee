"""Writes docs/benchmarks.md from the records in docs/results/speed.

python -m benchmarks.page
"""

import ast
import pathlib
import textwrap

import pandas as pd

from benchmarks import record

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent / 'docs'
SPEED = DOCS / 'results' / 'speed'
PAGE = DOCS / 'benchmarks.md'
INTRODUCTION = """# Benchmarks

Written by `make bench` from the records in `docs/results/speed`. Ratios come
from one run with the cases in turns and are medians over rounds. The machine
was quiet, with `chrt -f 1` before each command; the long run had one core. A
ratio over 1 is slower than the case it is compared with.
"""


def render() -> str:
  """Returns the page."""
  parts = [INTRODUCTION]
  for path in sorted(SPEED.glob('*.csv')):
    frame = record.read(path)
    parts.append(f'\n## {path.stem}\n')
    parts.append(_describe(path.stem.partition('_')[0]))
    for setting, rows in frame.groupby(
      ['command', 'cpu', 'cores', 'isa', 'jax', 'date'], sort=False
    ):
      parts.append(_caption(*setting))
      parts.append(_table(rows))
  return '\n'.join(parts)


def _describe(name: str) -> str:
  """Returns the docstring of a benchmark without its command."""
  doc = ast.get_docstring(ast.parse((HERE / f'{name}.py').read_text())) or ''
  paragraphs = (x for x in doc.split('\n\n') if 'python -m' not in x)
  return (
    '\n\n'.join(
      textwrap.indent(x, '  ') if x.startswith('  ') else x for x in paragraphs
    )
    + '\n'
  )


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
