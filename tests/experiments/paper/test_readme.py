"""The README is what its template and the results say."""

import re

import pytest

from experiments.paper import quotes as quotes_lib
from experiments.paper import readme

TEMPLATE = readme.TEMPLATE.read_text()
QUOTES = quotes_lib.Quotes(readme.RESULTS)

# What looks like a result in the template's prose, and is a setting, a version
# or a level at which one looks. Densities of both sets, '10% / 20%', are too.
SETTINGS = (
  'Python 3.11', '10% forward and 20% backward', '120 s before',
  'after 30 seconds without a sign of life', '0.1.78 to 0.1.86', '95% interval',
  'down to 23% of the weights', 'below 3% the differences',
  'momentum 0.9, learning rate 0.05', 'lose least down to 5%', 'At 2% static',
  'Top-KAST at 2%', 'at 10% and below', 'gradual pruning at 2%',
  'at 20% of the weights', 'at a density of 10%', 'At 10% a dense', 'over 20%',
  'alpha 1.375', 'gamma of 0.95', 'at 95% of the accuracy',
  'above 90% of that', 'top 10% of 4096', 'pruned to 10%', 'Apache-2.0',
  'BY-SA 3.0',
)  # fmt: skip
DENSITIES = re.compile(r'\d+% / \d+%')
_DECIMAL = r'(?<![\w.])\d[\d,]*\.\d+'
_UNIT = (
  r'(?:%|x\b(?! \d)|ms\b|s\b|seconds?\b|minutes?\b|hours?\b|[KMG]i?B\b|GFLOP|'
  r'images a second|tokens a second|steps a second|points?\b|bits?\b)'
)
RESULT = re.compile(rf'{_DECIMAL}|(?<![\w.])\d[\d,]*\s?{_UNIT}')


def prose(template):
  """Returns what a template says itself, but for code and where links go.

  The text of a claim is part of it.
  """
  for pattern, instead in (
    (r'\{\{ claim\(\'(.*?)\'.*?\}\}', r'\1'),
    (r'\{%.*?%\}|\{#.*?#\}', ' '),
    (r'\{\{.*?\}\}', 'VALUE'),
    (r'^```.*?^```$|`[^`]*`|\]\([^)]*\)', ' '),
  ):
    flags = re.DOTALL | re.MULTILINE
    template = re.sub(pattern, instead, template, flags=flags)
  return ' '.join(template.split())


def numbers(template):
  """Returns what looks like a result in a template's prose."""
  text = DENSITIES.sub('', prose(template))
  for setting in SETTINGS:
    text = text.replace(setting, '')
  return [
    text[max(0, match.start() - 30) : match.end() + 20]
    for match in RESULT.finditer(text)
  ]


def test_the_readme_is_made_from_its_template():
  made = readme.render(TEMPLATE, QUOTES)
  there = readme.README.read_text()
  assert there == made, ''.join(readme.differences(there, made))


def test_the_template_has_no_result_typed_by_hand():
  assert numbers(TEMPLATE) == []


@pytest.mark.parametrize('setting', SETTINGS)
def test_every_setting_is_in_the_template(setting):
  assert setting in prose(TEMPLATE)


@pytest.mark.parametrize(
  'text',
  [
    'a ratio of 0.27', '| case | 97.40 |', '58% of it', '13 minutes', '9 MiB',
    'at 82 GFLOP/s', '2x dense', 'by 3 points', 'takes 9 s', '4 bits',
    '1,648 images a second', "{{ claim('only 4% less', 1 < 2) }}",
  ],
)  # fmt: skip
def test_a_result_typed_by_hand_is_found(text):
  assert numbers(f'The cost: {text}, that is.\n')


@pytest.mark.parametrize(
  'text',
  [
    '50,000 steps', 'seeds (0, 1, 2)', '`--at=0.5`', 'a {{ 0.5 | fixed }} b',
    '784 x 300', '```\n0.5 s\n```', '[a](https://arxiv.org/abs/2110.00296)',
  ],
)  # fmt: skip
def test_what_is_no_result_is_not_found(text):
  assert numbers(f'Words\n\n{text}\n') == []


def test_a_claim_that_does_not_hold_is_an_error():
  template = "{{ claim('one is less', 1 < 2) }}, {{ claim('two too', 2 < 1) }}"
  with pytest.raises(ValueError, match=r"got 'two too': write"):
    readme.render(template, QUOTES)


def write(folder, template):
  (folder / 'template.md').write_text(template)
  return [
    f'--template={folder}/template.md',
    f'--readme={folder}/README.md',
    f'--results={readme.RESULTS}',
  ]


def test_check_shows_what_differs_and_writes_nothing(tmp_path, capsys):
  arguments = write(tmp_path, '# A title\n\nold {{ 0.27 | fixed(1) }}\n')
  assert readme.main(arguments) == 0
  assert readme.main([*arguments, '--check']) == 0
  assert capsys.readouterr().out == ''
  path = tmp_path / 'README.md'
  there = path.read_text()
  assert there == f'{readme.NOTICE}\n\n# A title\n\nold 0.3\n'
  path.write_text(there.replace('0.3', '0.4'))
  assert readme.main([*arguments, '--check']) == 1
  assert '-old 0.4\n+old 0.3\n' in capsys.readouterr().out
  assert '0.4' in path.read_text()


@pytest.mark.parametrize(
  ('template', 'message'),
  [
    ('{{ cell(', 'template.md:1: unexpected'),
    ('{{ cels() }}', "'cels' is undefined"),
    ("{{ table('text2') }}", "did you mean 'text'?"),
    ("{{ table('cifar_tasks') }}", '--table=cifar_tasks writes it'),
  ],
)
def test_mistakes_are_one_line(tmp_path, capsys, template, message):
  assert readme.main(write(tmp_path, template)) == 2
  error = capsys.readouterr().err
  assert message in error
  assert error.count('\n') == 1
  assert not (tmp_path / 'README.md').exists()


def test_paragraphs_are_wrapped_and_the_rest_is_left():
  kept = '- c c c\n  c\n\n```\nd d\n\nd d\n```\n\n| e | e |\n'
  text = f'# A\n\nb b\nb b b\n\n{kept}\n`f f` g\n'
  wrapped = f'# A\n\nb b b\nb b\n\n{kept}\n`f f`\ng\n'
  assert readme.reflow(text, width=5) == wrapped
