"""The documentation: its example runs, pages are current, no link is dead."""

import pathlib
import re

import jax
import pytest

from benchmarks import page
import powerprop
import topkast

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
  *ROOT.glob('*.md'),
  *(p for p in (ROOT / 'docs').rglob('*.md') if '_build' not in p.parts),
]


def test_the_example_of_the_readme_trains():
  text = (ROOT / 'README.md').read_text()
  [block] = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  names = {}
  exec(block, names)
  loss, batch, step = (names[name] for name in ('loss', 'batch', 'step'))

  def weights_of(params, state):
    return topkast.weights(powerprop.to_weights(params, 2.0), state)

  trained = names['params'], names['state']
  before = weights_of(*trained)
  for _ in range(20):
    trained = step(*trained, batch)
  after = weights_of(*trained)
  assert loss(after, *batch) < loss(before, *batch)
  weights = [x for x in jax.tree.leaves(after) if x.ndim == 2]
  assert all((x != 0).mean() <= 0.101 for x in weights)


def test_the_page_of_benchmarks_is_that_of_the_records():
  assert page.PAGE.read_text() == page.render()


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_link_is_dead(path):
  folder = path.parent
  if path.parent.name == 'results':  # a remark, included in results.md
    folder = path.parent.parent
  for target in re.findall(r'\]\(([^)#\s]+)', path.read_text()):
    if not re.match(r'https?:', target):
      assert (folder / target).exists(), target
