"""A damaged run folder spoils neither a table nor the page."""

import random as random_lib
import shutil

import pytest

from experiments.paper import __main__ as paper
from experiments.paper import page
from experiments.paper import plots
from tests import mutations
from tests.experiments.paper import folders

FILES = ('config.json', 'status.json', 'summary.json', 'metrics.jsonl')
SEEDS = (11, 12, 13)


def write_runs(folder, kind):
  """Writes three runs, the last of which will be damaged."""
  for seed in SEEDS:
    path = folder / f'seed={seed}'
    if kind == 'image':
      folders.write_image(path, folders.powerprop(2.0, seed), 0.9)
    else:
      config = folders.tasks(
        'ewc', seed, tasks__num_tasks=10, train__num_steps=8_000
      )
      folders.write_tasks(path, config, [[0.9] * 10] * 10)


@pytest.mark.parametrize('kind', ['image', 'tasks'])
@pytest.mark.parametrize(
  'num', [4, pytest.param(100, marks=pytest.mark.nightly)]
)
def test_a_damaged_folder_spoils_no_table(
  kind, num, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(plots, 'save', lambda *args, **kwargs: [])
  monkeypatch.setattr(plots, 'of_table', lambda *args: {})
  runs, html = tmp_path / 'runs', tmp_path / 'page.html'
  title = '| as trained ' if kind == 'image' else '| ewc '
  random, num_left_out = random_lib.Random(num), 0
  for _ in range(num):
    shutil.rmtree(runs, ignore_errors=True)
    write_runs(runs, kind)
    path = runs / f'seed={SEEDS[-1]}' / random.choice(FILES)
    mutations.damage_json(random, path)
    told = f'{path}: {path.read_bytes() if path.exists() else "deleted"}'
    assert paper.main([f'--runs={runs}', f'--out={tmp_path}/out']) == 0, told
    output = capsys.readouterr()
    assert title in output.out, told
    num_left_out += f'left out {path.parent}' in output.err
    assert page.main([f'--runs={runs}', f'--out={html}']) == 0, told
    for seed in SEEDS[:-1]:
      assert f'seed={seed}' in html.read_text(), told
  assert num_left_out >= num // 5
