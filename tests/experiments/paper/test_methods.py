import pytest

from experiments.common import run as run_lib
from experiments.paper import collect
from experiments.paper import methods


def write(folder, method, alpha, accuracy, deviation=0.01):
  folder.mkdir(parents=True)
  run_lib.write_json(folder / 'config.json', {'method': method})
  cell = {'mean': accuracy, 'deviation': deviation, 'num': 3}
  run_lib.write_json(
    folder / 'summary.json', {'test': [{'alpha': alpha, 'accuracy': cell}]}
  )


@pytest.fixture
def runs(tmp_path):
  """Runs of three methods, one of them not done."""
  write(tmp_path / 'a', {'name': 'dense'}, 1.0, 0.98)
  write(tmp_path / 'b', {'name': 'rigl', 'density': 0.1}, 1.0, 0.95)
  write(tmp_path / 'c', {'name': 'rigl', 'density': 0.05}, 1.0, 0.9)
  write(tmp_path / 'd', {'name': 'topkast', 'forward_density': 0.1}, 2.0, 0.96)
  (tmp_path / 'e').mkdir()
  run_lib.write_json(tmp_path / 'e' / 'config.json', {})
  return tmp_path


def test_the_table_has_a_cell_a_run(runs):
  lines = methods.markdown(methods.make_cells(collect.read_runs(runs)))
  assert lines.splitlines() == [
    '| method | alpha | 100% | 10% | 5% |',
    '| --- | ---: | ---: | ---: | ---: |',
    '| dense | 1 | 98.00 ± 1.00 |  |  |',
    '| rigl | 1 |  | 95.00 ± 1.00 | 90.00 ± 1.00 |',
    '| topkast | 2 |  | 96.00 ± 1.00 |  |',
  ]


def test_the_command_writes_table_and_plot(runs, tmp_path, capsys):
  out = tmp_path / 'out'
  assert methods.main([f'--runs={runs}', f'--out={out}']) == 0
  assert (out / 'methods.md').read_text().strip() in capsys.readouterr().out
  assert (out / 'methods.png').read_bytes().startswith(b'\x89PNG')


def test_two_runs_of_one_cell_are_refused(runs, tmp_path, capsys):
  write(tmp_path / 'f', {'name': 'rigl', 'density': 0.1}, 1.0, 0.5)
  assert methods.main([f'--runs={runs}', f'--out={tmp_path / "out"}']) == 2
  assert 'expected one run of rigl' in capsys.readouterr().err


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
  assert methods.main([f'--runs={tmp_path}', f'--out={tmp_path}']) == 2
  assert 'got none that is done' in capsys.readouterr().err
