"""Imports point one way: experiments, then the papers, then sparsity."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LIBRARIES = ('powerprop', 'sparsity', 'topkast')
# What each library may import beside the standard library.
NUMERICS = {'haiku', 'jax', 'jaxlib', 'numpy', 'optax'}
ALLOWED = {
  'sparsity': NUMERICS | {'sparsity'},
  'powerprop': NUMERICS | {'sparsity', 'powerprop'},
  'topkast': NUMERICS | {'sparsity', 'topkast'},
}


def imported(source):
  """Returns the top-level packages that a file imports, anywhere in it."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found |= {alias.name.split('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found.add('.' if node.level else node.module.split('.')[0])
  return found


def test_imports_are_found_within_functions_too():
  source = 'import a.b as c\nfrom d.e import f\ndef g():\n  from . import h'
  assert imported(source) == {'a', 'd', '.'}


@pytest.mark.parametrize('library', LIBRARIES)
def test_a_library_imports_what_it_may(library):
  files = sorted((ROOT / library).rglob('*.py'))
  assert files
  for file in files:
    third_party = imported(file.read_text()) - set(sys.stdlib_module_names)
    assert third_party <= ALLOWED[library], file


def test_experiments_do_not_import_what_launches_them():
  for file in sorted((ROOT / 'experiments').rglob('*.py')):
    assert not imported(file.read_text()) & {'configs', 'launch'}, file


def loaded_by(statement):
  """Returns the modules that a fresh interpreter has after a statement."""
  code = f'{statement}; import sys; print(*sys.modules)'
  result = subprocess.run(
    [sys.executable, '-c', code],
    check=True,
    capture_output=True,
    cwd=ROOT,
    text=True,
  )
  return {name.split('.')[0] for name in result.stdout.split()}


def test_the_libraries_load_nothing_of_experiments():
  ours = loaded_by('import powerprop, sparsity, topkast')
  assert set(LIBRARIES) <= ours
  # Haiku and Optax load absl themselves.
  assert not ours & {
    'configs',
    'experiments',
    'launch',
    'ml_collections',
    'orbax',
    'tensorflow',
  }


def test_sparsity_loads_neither_paper():
  assert not loaded_by('import sparsity') & {'powerprop', 'topkast'}
