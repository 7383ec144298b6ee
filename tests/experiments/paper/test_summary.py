"""The summary of a launch."""

import io

import numpy as np
import pytest
import rich.console

from experiments import rundir
from experiments.paper import summary
from tests.experiments.paper import folders


def summarize(out, paths):
  file = io.StringIO()
  console = rich.console.Console(file=file, width=120)
  found = summary.summarize(paths, out, console)
  rundir.to_json(found)  # is plain
  return found, file.getvalue()


def test_pruning_levels_are_rows_and_alphas_are_columns(tmp_path):
  paths = []
  for alpha in (1.0, 2.0):
    for seed in (0, 1):
      paths.append(tmp_path / f'alpha={alpha:g},seed={seed}')
      config = folders.powerprop(alpha, seed)
      folders.write_image(paths[-1], config, 0.8 + alpha / 20 + seed / 10)
  found, text = summarize(tmp_path, paths)
  rows = [
    [word.strip() for word in line.split('│')[1:-1]]
    for line in text.splitlines()
    if line.startswith('│')
  ]
  assert rows == [
    ['as trained', '90.00 ± 7.07', '95.00 ± 7.07'],
    ['100.00', '90.00 ± 7.07', '95.00 ± 7.07'],
    ['10.00', '9.00 ± 0.71', '9.50 ± 0.71'],
  ]
  first = found['test'][0]
  assert (first['alpha'], first['seeds']) == (1.0, [0, 1])
  assert first['accuracy'] == pytest.approx(
    {'mean': 0.9, 'deviation': np.std([0.85, 0.95], ddof=1), 'num': 2}
  )
  assert [(one['alpha'], one['density']) for one in found['pruned']] == [
    (1.0, 0.1), (1.0, 1.0), (2.0, 0.1), (2.0, 1.0),
  ]  # fmt: skip
  assert {path.name for path in (tmp_path / 'plots').iterdir()} == {
    'pruning.png', 'overlap.png', 'histograms.png', 'training.png',
  }  # fmt: skip


def test_language_models_show_validation_and_test(tmp_path):
  folders.write_language(tmp_path / 'a', folders.language('topkast'), 2.0)
  found, text = summarize(tmp_path, [tmp_path / 'a'])
  [line] = [line for line in text.splitlines() if 'alpha 1' in line]
  assert [word.strip() for word in line.split('│')[2:-1]] == [
    '50.00', '3.000', '2.000', '1.00',
  ]  # fmt: skip
  [one] = found['test']
  assert one['bits_per_character'] == {'mean': 2.0, 'deviation': 0.0, 'num': 1}
  assert (tmp_path / 'plots/training.png').exists()


def test_unfinished_runs_are_named_and_left_out(tmp_path):
  config = folders.methods('rigl')
  folders.write_image(tmp_path / 'done', config, 0.9)
  folders.write_image(tmp_path / 'bad', config, 0.9, diverged=True)
  rundir.create(tmp_path / 'half', config)
  paths = [tmp_path / name for name in ('done', 'bad', 'half', 'none')]
  found, text = summarize(tmp_path, paths)
  assert len(found['test']) == 1
  words = ' '.join(text.split())
  assert 'bad: diverged at step 2 of 2: the loss is nan' in words
  assert 'half' in words
  assert 'none' in words
  assert summarize(tmp_path, paths[1:])[0] == {'test': []}
