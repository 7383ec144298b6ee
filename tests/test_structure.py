"""The structure that docs/architecture.md describes: arrows, sizes, hops."""

import ast
import functools
import importlib
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NUMERICS = {'haiku', 'jax', 'jaxlib', 'numpy', 'optax'}
LIBRARIES = {
  'sparsity': NUMERICS | {'sparsity'},
  'powerprop': NUMERICS | {'sparsity', 'powerprop'},
  'topkast': NUMERICS | {'sparsity', 'topkast'},
}
OURS = [*LIBRARIES, 'experiments', 'configs', 'benchmarks']
MOST_LINES, MOST_IN_FUNCTION = 300, 60


def sources():
  """Returns the product's Python files."""
  files = [file for name in OURS for file in (ROOT / name).rglob('*.py')]
  return sorted([*files, ROOT / 'launch.py'])


@functools.cache
def tree(path):
  return ast.parse(path.read_text())


def imported(path):
  """Returns the dotted names that a file imports, anywhere in it."""
  found = set()
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def module_of(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


@pytest.mark.parametrize('library', LIBRARIES)
def test_a_library_imports_numerics_and_the_libraries_below_it(library):
  for file in (ROOT / library).rglob('*.py'):
    tops = {name.partition('.')[0] for name in imported(file)}
    assert tops - set(sys.stdlib_module_names) <= LIBRARIES[library], file


def test_experiments_do_not_import_their_launcher():
  for file in (ROOT / 'experiments').rglob('*.py'):
    tops = {name.partition('.')[0] for name in imported(file)}
    assert not tops & {'benchmarks', 'configs', 'launch', 'tests'}, file


def test_no_circle_of_modules_exists():
  modules = {module_of(file): file for file in sources()}
  edges = {
    name: {
      other
      for target in imported(file)
      for other in (target, target.rpartition('.')[0])
      if other in modules
      and other != name
      # Packages import their own modules to re-export names.
      and not name.startswith(f'{other}.')
    }
    for name, file in modules.items()
    if file.name != '__init__.py'
  }
  while leaves := {n for n, to in edges.items() if not to & edges.keys()}:
    edges = {n: to for n, to in edges.items() if n not in leaves}
  assert not edges


@pytest.mark.parametrize('file', sources(), ids=module_of)
def test_a_file_is_read_in_one_sitting(file):
  assert len(file.read_text().splitlines()) <= MOST_LINES
  for node in ast.walk(tree(file)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      body = node.body
      if ast.get_docstring(node) and len(body) > 1:
        length = node.end_lineno - body[0].end_lineno
        length += body[0].lineno - node.lineno
      else:
        length = node.end_lineno - node.lineno + 1
      assert length <= MOST_IN_FUNCTION, node.name


@pytest.mark.parametrize('file', sources(), ids=module_of)
def test_a_file_keeps_to_public_names_and_to_nouns(file):
  text = file.read_text()
  private = r'excepthook|set_event_loop_policy|mark_as_parsed|\._src\b'
  assert not re.search(private, text)
  assert 'config.get(' not in text
  comments = re.findall(r'(?m)^\s*# .*|"""\w.*', text)
  for comment in comments:
    words = comment.strip().lstrip('#" ')
    assert not re.match(r'(What|Of|Those|That|Whether)\b', words), comment


def test_a_step_is_followed_from_config_to_gradient_in_six_hops():
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  section = text.partition('## One step')[2].partition('\n## ')[0]
  hops = re.findall(r'(?m)^\d\. `([\w.]+)`', section)
  assert 3 <= len(hops) <= 6
  for hop in hops:
    module, _, name = hop.rpartition('.')
    assert callable(getattr(importlib.import_module(module), name)), hop


def test_the_concepts_of_the_documentation_are_at_most_twelve():
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  table = text.partition('| concept |')[2].partition('\n\n')[0]
  rows = table.strip().splitlines()[2:]
  assert 5 <= len(rows) <= 12
  for place in re.findall(r'`([\w/]+(?:\.py|/))`', table):
    assert (ROOT / place).exists(), place
