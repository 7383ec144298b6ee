"""Tuning: tries as a CSV file, and the best of each row."""

import json

import pandas as pd
import pytest

from experiments import metrics
from experiments.paper import tuning
from tests.experiments.paper import folders


def write_tries(path, variant, accuracies, **changes):
  """Writes a run for each (learning rate, seed); None: diverged."""
  for (rate, seed), value in accuracies.items():
    config = folders.methods(
      variant, seed, optimizer__learning_rate=rate, **changes
    )
    folders.write_image(
      path / f'{variant},{rate},{seed}', config, value, diverged=value is None
    )


def run(path, capsys):
  """Returns the code, the CSV file and the printed lines."""
  out = path / 'out' / 'tuning.csv'
  code = tuning.main([f'--runs={path / "runs"}', f'--out={out}'])
  return code, pd.read_csv(out), capsys.readouterr().out.splitlines()


def test_the_best_try_of_each_row_has_the_best_mean_over_seeds(
  tmp_path, capsys
):
  runs = tmp_path / 'runs'
  rigl = {
    (0.1, 0): 0.8, (0.1, 1): 0.9, (0.2, 0): 0.99, (0.2, 1): None,
    (0.3, 0): 0.92, (0.3, 1): 0.7,
  }  # fmt: skip
  write_tries(runs, 'rigl,density=0.05', rigl)
  write_tries(runs, 'topkast,density=0.05', {(0.1, 0): 0.5, (0.2, 0): 0.6})
  code, frame, printed = run(tmp_path, capsys)
  assert code == 0
  # Keys that follow from others, such as those of one method, are left out.
  assert list(frame) == [
    'method.name', 'optimizer.learning_rate', *tuning.RESULTS,
  ]  # fmt: skip
  best = [line.split() for line in printed[1:]]
  assert [line[:2] for line in best] == [['rigl', '0.1'], ['topkast', '0.2']]
  assert float(best[0][2]) == pytest.approx(0.85)
  assert frame.validation[0] == frame.validation.max() == 0.99
  lost = frame[frame.status == 'diverged']
  assert len(lost) == 1
  assert lost.validation.isna().all()


def test_fewer_bits_are_better(tmp_path, capsys):
  for rate, bits in ((1e-3, 2.5), (2e-3, 2.1), (4e-3, 2.9)):
    config = folders.language('dense', optimizer__learning_rate=rate)
    folders.write_language(tmp_path / 'runs' / f'{rate}', config, bits)
  code, frame, printed = run(tmp_path, capsys)
  assert code == 0
  assert frame.validation.tolist() == [2.1, 2.5, 2.9]
  assert len(printed) == 2
  assert printed[1].split()[0] == '0.002'


def test_tasks_have_the_mean_accuracy_of_what_they_learned(tmp_path, capsys):
  folder = tmp_path / 'runs' / 'a'
  matrix, usage = [(0.9, 0.1), (0.9, 0.8)], [(0.2, 0.0), (0.5, 0.1)]
  variant = tmp_path / 'runs' / 'b'
  for path, rate in ((folder, 0.3), (variant, 0.1)):
    config = folders.tasks('efficient_packnet', optimizer__learning_rate=rate)
    folders.write_tasks(path, config, matrix, usage)
    with (path / metrics.FILE).open('a') as file:
      for task in (1, 2):
        row = {'step': task, 'task': task, 'split': 'learned'}
        row |= {'accuracy': rate + task, 'density': 0.5}
        file.write(json.dumps(row) + '\n')
  _, frame, _ = run(tmp_path, capsys)
  assert frame.validation.tolist() == pytest.approx([1.8, 1.6])
  assert frame.owned.tolist() == [0.5, 0.5]


def test_runs_of_several_metrics_are_refused(tmp_path, capsys):
  runs = tmp_path / 'runs'
  folders.write_language(runs / 'a', folders.language('dense'), 2.0)
  folders.write_image(runs / 'b', folders.methods('rigl'), 0.9)
  code = tuning.main([f'--runs={runs}', f'--out={tmp_path / "x.csv"}'])
  assert code == tuning.USER_ERROR
  assert 'accuracy, bits_per_character' in capsys.readouterr().err
  assert not (tmp_path / 'x.csv').exists()
