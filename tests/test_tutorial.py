"""The tutorial runs from its first cell to its last."""

import pathlib
import re

import nbclient
import nbformat
import pytest

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
SOURCE = DOCS / 'tutorial.ipynb'
EXECUTED = DOCS / 'tutorial_executed.ipynb'


def code(notebook):
  return [cell.source for cell in notebook.cells if cell.cell_type == 'code']


def printed(notebook):
  return ''.join(
    output.text
    for cell in notebook.cells
    for output in cell.get('outputs', ())
    if output.output_type == 'stream'
  )


def num_plots(notebook):
  return sum(
    'image/png' in output.get('data', {})
    for cell in notebook.cells
    for output in cell.get('outputs', ())
  )


@pytest.mark.slow
def test_the_tutorial_runs(monkeypatch):
  monkeypatch.setenv('TUTORIAL_STEPS', '60')
  monkeypatch.setenv('PYTHONPATH', str(DOCS.parent))
  notebook = nbformat.read(SOURCE, as_version=4)
  nbclient.NotebookClient(notebook, timeout=300).execute()
  text = printed(notebook)
  accuracies = re.findall(
    r'^(\w+) +test accuracy ([\d.]+)$', text, re.MULTILINE
  )
  assert [name for name, _ in accuracies] == [
    'static', 'set', 'rigl', 'magnitude', 'gradual', 'topkast'
  ]  # fmt: skip
  assert float(dict(accuracies)['topkast']) > 0.5
  assert 'all weights: forward 0.0500, backward 0.1000' in text
  assert num_plots(notebook) == 2


def test_what_is_shown_as_executed_is_the_tutorial():
  source = nbformat.read(SOURCE, as_version=4)
  executed = nbformat.read(EXECUTED, as_version=4)
  assert code(executed) == code(source)
  assert not any(cell.get('outputs') for cell in source.cells)
  assert num_plots(executed) == 2
  assert 'test accuracy' in printed(executed)
