"""Points of sweeps: found, named, and written as flags."""

import inspect
import json
import os
import pathlib
import re

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from configs import permuted_mnist
from configs import sweeps
from experiments.sweep import plan
from experiments.sweep import points
import launch

ROOT = pathlib.Path(launch.__file__).parent
DENSE = f'{ROOT}/configs/mnist_dense.py:quick'
SWEEPS = [
  (module, name)
  for module in (sweeps, permuted_mnist)
  for name, function in vars(module).items()
  if inspect.isfunction(function)
  and list(inspect.signature(function).parameters) == ['add']
]


OVERRIDES = strategies.dictionaries(
  strategies.text(),
  strategies.recursive(
    strategies.text() | strategies.integers() | strategies.floats(),
    lambda values: strategies.tuples(values, values),
    max_leaves=4,
  ),
  max_size=4,
)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
  OVERRIDES, strategies.none() | strategies.text('./\\:a~\0 ', max_size=9)
)
@hypothesis.example({}, ':.')
@hypothesis.example({}, ':plots')
@hypothesis.example({'data.path': 'x' * 300}, None)
def test_no_name_leaves_the_folder_of_the_sweep(overrides, chosen):
  if chosen is not None:
    overrides['config'] = chosen
  name = points.name_of(overrides)
  assert re.fullmatch(r'[A-Za-z0-9_=,+][A-Za-z0-9._=,+-]*', name)
  assert len(name) < 140
  assert name not in points.TAKEN
  folder = pathlib.Path('/sweep')
  assert pathlib.Path(os.path.normpath(folder / name)).parent == folder


def test_a_sweep_is_a_function_of_the_config_or_of_the_file_beside_it(tmp_path):
  config = tmp_path / 'small.py'
  config.write_text('def own(add):\n  add({"a": 1})\n')
  (tmp_path / 'sweeps.py').write_text(
    'def own(add):\n  add({"a": 2})\n\ndef other(add):\n  add({"a": 3})\n'
  )

  def found(name):
    return points.collect(points.find(name, f'{config}:variant'))

  assert found('own') == [{'a': 1}]
  assert found('other') == [{'a': 3}]
  assert found(f'{tmp_path}/sweeps.py:own') == [{'a': 2}]


def test_none_the_last_of_two_and_home_paths_are_taken(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  config = points.load(
    'configs/mnist_dense.py',
    [
      '--config.train.num_devices=None',
      '--config.seeds=(1,)',
      '--config.seeds=(2, 3)',
      '--config.data.data_dir=~/data',
    ],
  )
  assert config.train.num_devices is None
  assert config.seeds == (2, 3)
  assert config.data.data_dir == '/home/me/data'
  assert config.init_from is None


def test_points_take_numbers_of_numpy_and_none():
  def sweep(add):
    for rate in np.logspace(-2, -1, 2):
      add({'optimizer.learning_rate': rate, 'seeds': np.arange(2), 'a': None})

  point = points.collect(sweep)[0]
  assert point == {'optimizer.learning_rate': 0.01, 'seeds': (0, 1), 'a': None}
  assert json.loads(json.dumps(point))['seeds'] == [0, 1]
  flags = points.arguments('a.py', point)[1:]
  assert flags == (
    '--config.optimizer.learning_rate=0.01', '--config.seeds=(0, 1)',
    '--config.a=None',
  )  # fmt: skip


@pytest.mark.parametrize('overrides', [{'method': {}}, {'seeds': {1}}, 3])
def test_overrides_that_are_not_flat_are_refused(overrides):
  with pytest.raises(ValueError, match=r'expected a (number|dict)'):
    points.collect(lambda add: add(overrides))
  with pytest.raises(ValueError, match='expected a sweep that adds runs'):
    points.collect(lambda add: None)


@pytest.mark.parametrize(('module', 'name'), SWEEPS)
def test_every_sweep_fits_the_configs_it_is_for(module, name):
  first_line = getattr(module, name).__doc__.partition(':')[0]
  own = pathlib.Path(module.__file__).name
  for file in re.findall(r'\w+\.py', first_line) or [own]:
    runs = plan.make(f'{ROOT}/configs/{file}', (), name).runs
    assert len(runs) > 1
