"""Tables as Markdown and LaTeX."""

from collections.abc import Sequence
import itertools

from experiments.paper import fill
from experiments.paper import published

# By figure: what it is multiplied by, and how many digits follow the point.
FORMATS = {
  'bits_per_character': (1, 3),
  'first_loss': (1, 2),
  'kept': (1, 1),
  'last_loss': (1, 2),
  'loss': (1, 2),
  'perplexity': (1, 2),
}
_PERCENT = (100, 2)

LABELS = {
  'accuracy': 'test accuracy [%]',
  'average_accuracy': 'average accuracy [%]',
  'bits_per_character': 'bits per character',
  'perplexity': 'perplexity',
}

# Columns that belong to a whole row: heading, and the text from its results.
EXTRA = {
  'active': (
    'active parameters',
    lambda found: f'{found[0].density:.1%}' if found[0].density else '',
  ),
  'inference_share': (
    'inference FLOPs / dense',
    lambda found: (
      f'{found[0].inference_share:.2f}' if found[0].inference_share else ''
    ),
  ),
  'train_share': (
    'training FLOPs / dense',
    lambda found: f'{found[0].train_share:.2f}' if found[0].train_share else '',
  ),
  'minutes': (
    'minutes',
    lambda found: (
      f'{sum((r.seconds or 0) * r.num for r in found) / 60:.0f}'
      if all(r.seconds for r in found)
      else ''
    ),
  ),
}
_LATEX = str.maketrans(
  {
    **{c: f'\\{c}' for c in '%&_#$'},
    '±': r'$\pm$',
    '^': r'\^{}',
    '~': r'\~{}',
  }
)


def text(result: fill.Result) -> str:
  """Returns what a cell shows: its mean and deviation, or nothing.

  Example:
    >>> text(fill.Result(('rigl',), '10%', 'accuracy', 'done', 0.96, 0.01, 3))
    '96.00 ± 1.00'
  """
  if result.status != 'done':
    return 'diverged' if result.status == 'diverged' else ''
  return number(result, result.mean) + (
    f' ± {number(result, result.deviation)}' if result.num > 1 else ''
  )


def number(result: fill.Result, value: float) -> str:
  """Returns a value in the unit of the result's figure."""
  digits = FORMATS.get(result.figure, _PERCENT)[1]
  return f'{scale(result.figure) * value:.{digits}f}'


def scale(figure: str) -> float:
  """Returns what a figure is multiplied by to be shown."""
  return FORMATS.get(figure, _PERCENT)[0]


def wide(filled: fill.Filled) -> list[list[str]]:
  """Returns the header and the rows as they are printed."""
  table = filled.table
  labels = [column.label for column in table.columns]
  extra = [EXTRA[name] for name in table.extra]
  lines = [[*table.headings, *labels, *(heading for heading, _ in extra)]]
  sources = list_sources(filled)
  for row, found in itertools.groupby(filled.results, lambda r: r.labels):
    of_row = list(found)
    done = [result for result in of_row if result.status == 'done']
    lines.append(
      [
        *row,
        *(_with_published(result, sources) for result in of_row),
        *(show(done) if done else '' for _, show in extra),
      ]
    )
  return lines


def list_sources(filled: fill.Filled) -> list[str]:
  """Returns the sources of the published figures, in their order."""
  return list(dict.fromkeys(r.source for r in filled.results if r.source))


def block(filled: fill.Filled) -> str:
  """Returns the table alone, in Markdown: what a README shows."""
  labels = [row.labels for row in filled.table.rows]
  numeric = [
    all(map(_is_number, column)) for column in zip(*labels, strict=True)
  ]
  return grid(wide(filled), numeric)


def grid(lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
  """Returns lines, the header first, as a Markdown table.

  Example:
    >>> print(grid([['a', 'b'], ['x', '1']], [False]), end='')
    | a | b |
    | --- | ---: |
    | x | 1 |

  Args:
    lines: of equal lengths.
    numeric: of the first columns, whether they hold numbers; others do.
  """
  header, *rest = lines
  rule = ['---:' if is_number else '---' for is_number in numeric]
  rule += ['---:'] * (len(header) - len(rule))
  return ''.join(f'| {" | ".join(line)} |\n' for line in (header, rule, *rest))


def markdown(filled: fill.Filled) -> str:
  """Returns the table and all that belongs to it, in Markdown."""
  parts = [f'# {filled.table.title}\n', block(filled)]
  sources = list_sources(filled)
  if sources:
    parts.append(
      'In italics: published figures. '
      + ' '.join(f'[{i}] {source}' for i, source in enumerate(sources, 1))
      + '\n'
    )
  parts += _others(filled) + _details(filled) + _tests(filled)
  if filled.notes:
    parts.append('## Notes\n')
    parts.append(''.join(f'- {note}\n' for note in filled.notes))
  empty = [r.command for r in filled.results if r.status == 'empty']
  commands = [command for command in dict.fromkeys(empty) if command]
  if commands:
    parts.append('## Cells without runs, and what fills them\n')
    if filled.table.sweeps:
      parts.append(
        'All of them:\n\n```\n' + '\n'.join(filled.table.sweeps) + '\n```\n'
      )
      parts.append('One by one:\n')
    parts.append('```\n' + ''.join(f'{c}\n' for c in commands) + '```\n')
  return '\n'.join(parts)


def latex(filled: fill.Filled) -> str:
  """Returns the table in LaTeX, for the package booktabs."""
  header, *rest = (
    [cell.translate(_LATEX) for cell in line] for line in wide(filled)
  )
  table = filled.table
  num_labels = len(table.headings)
  columns = 'l' * num_labels + 'r' * (len(header) - num_labels)
  body = ''.join(f'    {" & ".join(line)} \\\\\n' for line in rest)
  return (
    '\\begin{table}\n  \\centering\n'
    f'  \\caption{{{table.title.translate(_LATEX)}}}\n'
    f'  \\label{{tab:{table.name}}}\n'
    f'  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n'
    f'    {" & ".join(header)} \\\\\n    \\midrule\n{body}'
    '    \\bottomrule\n  \\end{tabular}\n\\end{table}\n'
  )


def _with_published(result: fill.Result, sources: Sequence[str]) -> str:
  shown = text(result)
  if result.published is None:
    return shown
  value = number(result, result.published)
  theirs = f'*{value}* [{sources.index(result.source) + 1}]'
  return f'{shown}, {theirs}' if shown else theirs


def _others(filled: fill.Filled) -> list[str]:
  """Returns the published figures that are in no cell, and why."""
  lines = [['of', 'figure', 'source', 'how it differs']]
  for figure in published.printable(filled.table.name):
    if figure.departs:
      of = ', '.join(f'{name} {value}' for name, value in figure.where.items())
      shown = number(filled.results[0], figure.value)
      lines.append([of, f'*{shown}*', figure.source, figure.departs])
  if len(lines) == 1:
    return []
  return [
    '## Published, but trained in another way\n',
    grid(lines, [False] * 4),
  ]


def _details(filled: fill.Filled) -> list[str]:
  """Returns what is known beside the figure of each cell with runs."""
  headings = list(filled.table.headings)
  lines = [
    [
      *headings, '', 'figure', '95% interval of the mean', 'seeds', 'density',
      'inference FLOPs', 'of dense', 'training FLOPs', 'of dense', 'bytes',
    ]
  ]  # fmt: skip
  for result in filled.results:
    if result.status in ('empty', 'absent'):
      continue
    interval = ''
    if result.low is not None:
      interval = (
        f'{number(result, result.low)} to {number(result, result.high)}'
      )
    lines.append(
      [
        *result.labels,
        result.column,
        text(result),
        interval,
        f'{result.num}',
        _show(result.density, '.4f'),
        _show(result.inference_flops, '.3g'),
        _show(result.inference_share, '.3f'),
        _show(result.train_flops, '.3g'),
        _show(result.train_share, '.3f'),
        _show(result.num_bytes, ',d'),
      ]
    )
  if len(lines) == 1:
    return []
  return [
    '## Each cell\n',
    "Mean ± sample deviation over seeds; Student's interval. FLOPs of "
    'inference are of one example, of training of all steps; a mean over the '
    'training where the method changes.\n',
    grid(lines, [False] * (len(headings) + 1)),
  ]


def _tests(filled: fill.Filled) -> list[str]:
  """Returns the paired tests, the smallest p first."""
  found = fill.tests(filled)
  if not found:
    return []
  found.sort(key=lambda test: test.paired.p if test.paired.p is not None else 2)
  lines = [
    ['cell', 'against', 'difference', 'pairs', 'p', 'p among all (Holm)']
  ]
  for test in found:
    lines.append(
      [
        f'{" ".join(test.cell.labels)}, {test.cell.column}',
        f'{" ".join(test.reference.labels)}, {test.reference.column}',
        number(test.cell, test.paired.difference),
        f'{test.paired.num}',
        _show(test.paired.p, '.4f'),
        _show(test.corrected, '.3f'),
      ]
    )
  return [
    '## Paired tests\n',
    "Student's t-test of the differences in equal seeds, two-sided.\n",
    grid(lines, [False, False]),
  ]


def _show(value: float | None, form: str) -> str:
  return '' if value is None else format(value, form)


def _is_number(label: str) -> bool:
  try:
    float(label)
  except ValueError:
    return False
  return True
