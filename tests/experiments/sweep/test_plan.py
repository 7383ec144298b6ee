"""Plans: configs expand to runs of one network each."""

import pathlib

import pytest

from experiments import rundir
from experiments.sweep import plan
import launch

ROOT = pathlib.Path(launch.__file__).parent
DENSE = f'{ROOT}/configs/mnist_dense.py:quick'


def alone(run):
  """Returns the config that the arguments of a run make."""
  config, *shared = run.arguments
  [made] = plan.make(config.removeprefix('--config='), shared).runs
  return made.config


def write_sweep(folder, text):
  path = folder / 'my.py'
  path.write_text(f'def sweep(add):\n  {text}')
  return f'{path}:sweep'


def test_a_config_expands_to_its_alphas_and_seeds():
  shared = ['--config.seeds=(3,4)', '--config.powerprop.alphas=(1.0,1.375)']
  runs = plan.make(DENSE, [*shared, '--config.train.num_steps=900']).runs
  assert [run.name for run in runs] == [
    'alpha=1,seed=3', 'alpha=1,seed=4', 'alpha=1.375,seed=3',
    'alpha=1.375,seed=4',
  ]  # fmt: skip
  assert [run.config['train']['num_steps'] for run in runs] == [900] * 4
  assert alone(runs[3]) == runs[3].config
  assert 'seeds' not in runs[3].config
  assert runs[3].config['powerprop'] == {
    'alpha': 1.375, 'optimizer_in': 'theta',
  }  # fmt: skip


def test_a_point_of_a_sweep_expands_too(tmp_path):
  overrides = {
    'optimizer.nesterov': True, 'optimizer.learning_rate': 1e-5,
    'train.num_steps': 700, 'powerprop.optimizer_in': 'phi', 'seeds': (3, 4),
    'config': ':quick',
  }  # fmt: skip
  sweep = write_sweep(tmp_path, f"add({overrides}); add({{'seeds': (1,)}})")
  runs = plan.make(DENSE.removesuffix(':quick'), (), sweep).runs
  assert [run.name for run in runs][1:] == [
    runs[0].name.removesuffix('3') + '4', 'seeds=1',
  ]  # fmt: skip
  config = alone(runs[1])
  assert config == runs[1].config
  assert config['optimizer']['nesterov'] is True
  assert config['optimizer']['learning_rate'] == 1e-5
  assert config['train']['num_steps'] == 700
  assert (config['seed'], config['powerprop']['optimizer_in']) == (4, 'phi')


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('seeds=()', r'config\.seeds: expected one or more .* got \[\]'),
    ('seeds=(1,1)', r'config\.seeds: .* got \[1, 1\]'),
    ('seeds=(0.5,)', r'got \[0\.5\]'),
    ('powerprop.alphas=(0.9,)', r'powerprop\.alphas: .* got \[0\.9\]'),
    # The names of their folders would be one.
    ('powerprop.alphas=(2.0,2.0000001)', "'alpha=2,seed=0' and 'alpha=2,"),
  ],
)
def test_seeds_and_alphas_out_of_range_are_refused(override, message):
  with pytest.raises(ValueError, match=message):
    plan.make(DENSE, [f'--config.{override}'])


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ("add({'seeds': (1,)}); add({'seeds': (1,)})",
     "differ in name and config, got 'seeds=1' and 'seeds=1'"),
    ("add({}); add({'train.batch_size': 60})",
     "got 'base' and 'train.batch_size=60'"),
    ("add({'train.num_stps': 3})",
     "run 'train.num_stps=3': unknown config key .*\"num_steps\""),
    ("add({'train.num_steps': 1.5})", "run 'train.num_steps=1.5': .*1.5"),
    ("add({'config': ':quik'})", "run 'quik': .*got 'quik'"),
    ("add({'config': 'no.py:x'})", "run 'no,x': expected a Python file"),
    ("add({}); {}['k']", "sweep sweep: KeyError: 'k'"),
  ],
)  # fmt: skip
def test_mistakes_name_the_run(tmp_path, text, message):
  with pytest.raises(ValueError, match=message):
    plan.make(DENSE, (), write_sweep(tmp_path, text))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('def get_config(:', 'SyntaxError: invalid syntax'),
    ('def get_config(): return 1 / 0', 'ZeroDivisionError: division by zero'),
    (
      'import ml_collections\n'
      'def get_config(): return ml_collections.ConfigDict(dict(f=print))',
      'config: expected plain data',
    ),
    ('def get_config(): return None', 'return a ConfigDict, got None'),
    ('x = 1', 'expected a function get_config, got none'),
  ],
)
def test_a_config_file_that_fails_is_named(tmp_path, text, message):
  path = tmp_path / 'my.py'
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    plan.make(str(path))
  assert 'Traceback' not in str(error.value)


@pytest.mark.parametrize('text', ['{"config": "x.py", "sweep": "a"}', '[]'])
def test_a_folder_of_another_sweep_is_left_alone(tmp_path, text):
  path = tmp_path / 'sweep.json'
  path.write_text(text)
  made = plan.make(DENSE, ['--config.seeds=(0,1)'])
  with pytest.raises(rundir.FolderError, match='belongs to another sweep'):
    plan.write(made, tmp_path)
  assert path.read_text() == text
