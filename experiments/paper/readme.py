"""Makes README.md: the text of a template, every result from a file.

  python -m experiments.paper.readme [--check] [--results=DIR]

The template, docs/README.template.md, is written in Jinja2; it can call the
methods of `quotes.Quotes`, and

  x | fixed(1)            a number with a digit after the point
  span(values, 1)         the range of numbers, '0.1 to 0.3'
  claim(text, holds)      the text; where the figures say otherwise, an error

`--check` writes nothing: it prints in what README.md differs from the template
and the files, and exits with 1 if it does.
"""

import argparse
from collections.abc import Sequence
import difflib
import pathlib
import re
import sys
import textwrap

import jinja2

from experiments.common import run as run_lib
from experiments.paper import quotes as quotes_lib

REPOSITORY = pathlib.Path(__file__).parents[2]
TEMPLATE = REPOSITORY / 'docs/README.template.md'
RESULTS = REPOSITORY / 'docs/results'
README = REPOSITORY / 'README.md'
NOTICE = (
  '<!-- Made by `make readme` from docs/README.template.md: edit that. -->'
)
# How no line of a plain paragraph begins.
_STAYS = re.compile(r'\s|[-*+]\s|[#|>]|\d+\.\s|!\[|<!--')
_CODE = re.compile('`[^`]+`')
_HELD = '\N{SYMBOL FOR SPACE}'
DIFFERS, USER_ERROR = 1, 2  # exit codes


def main(arguments: Sequence[str]) -> int:
  """Writes the README, or compares it; returns the exit code."""
  given = _parse(arguments)
  try:
    made = render(
      pathlib.Path(given.template).read_text(),
      quotes_lib.Quotes(given.results),
    )
    there = pathlib.Path(given.readme).read_text() if given.check else ''
  except (ValueError, OSError, jinja2.TemplateError) as error:
    line = getattr(error, 'lineno', None)
    place = f'{given.template}:{line}: ' if line else ''
    print(f'experiments.paper.readme: {place}{error}', file=sys.stderr)
    return USER_ERROR
  if not given.check:
    run_lib.write_bytes(pathlib.Path(given.readme), made.encode())
    return 0
  print(''.join(differences(there, made)), end='')
  return DIFFERS if there != made else 0


def render(template: str, quotes: quotes_lib.Quotes) -> str:
  """Returns what a template says of some results.

  Raises:
    ValueError: If it quotes what is not there, or claims what does not hold.
    jinja2.TemplateError: If it is no template.
  """
  broken: list[str] = []

  def claim(text: str, *holds: bool) -> str:
    if not all(holds):
      broken.append(text)
    return text

  environment = jinja2.Environment(
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    autoescape=False,
  )
  environment.filters['fixed'] = quotes_lib.fixed
  made = environment.from_string(template).render(
    claim=claim, **quotes_lib.functions(quotes)
  )
  if broken:
    raise ValueError(
      'expected claims that the figures bear out, got '
      + '; '.join(map(repr, broken))
      + ': write these sentences anew'
    )
  return f'{NOTICE}\n\n{reflow(made)}'


def reflow(text: str, width: int = 88) -> str:
  """Returns Markdown with its plain paragraphs wrapped anew.

  What expressions become is shorter or longer than they are. Lists, tables,
  headings, images and code stay as they are.

  Example:
    >>> print(reflow('a b\\nc\\n\\n- d\\n  e', width=3))
    a b
    c
    <BLANKLINE>
    - d
      e
  """
  parts = re.split(r'(^```.*?^```$)', text, flags=re.DOTALL | re.MULTILINE)
  for i in range(0, len(parts), 2):  # the others are code
    blocks = parts[i].split('\n\n')
    parts[i] = '\n\n'.join(_wrap(block, width) for block in blocks)
  return ''.join(parts)


def _wrap(block: str, width: int) -> str:
  lines = _CODE.sub(_hold, block).strip('\n').split('\n')
  if not lines[0] or any(_STAYS.match(line) for line in lines):
    return block
  num_before = len(block) - len(block.lstrip('\n'))
  wrapped = textwrap.fill(
    ' '.join(lines), width, break_long_words=False, break_on_hyphens=False
  )
  wrapped = wrapped.replace(_HELD, ' ')
  return '\n' * num_before + wrapped + '\n' * block.endswith('\n')


def _hold(code: re.Match) -> str:
  """Returns code in which no line ends, unless it is long."""
  return re.sub(r'\s', _HELD, code[0]) if len(code[0]) < 50 else code[0]


def differences(there: str, made: str) -> list[str]:
  """Returns lines that show in what a README differs from what it should be."""
  lines = [text.splitlines(keepends=True) for text in (there, made)]
  return list(difflib.unified_diff(*lines, 'README.md', 'from the template'))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    'python -m experiments.paper.readme',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--check', action='store_true', help='compare, and write nothing')
  add('--template', default=TEMPLATE, help='file to make it from')
  add('--results', default=RESULTS, help='folder of results')
  add('--readme', default=README, help='file to write or compare')
  return parser.parse_args(arguments)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
