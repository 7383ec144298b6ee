"""What a sweep consists of."""

import json
import os
import pathlib
import re

import hypothesis
from hypothesis import strategies
import pytest

from configs import sweeps
from experiments.common import run as run_lib
from experiments.sweeps import check
from experiments.sweeps import executors
from experiments.sweeps import plan
from experiments.sweeps import runner
from experiments.sweeps import unpacking
import launch

ROOT = pathlib.Path(launch.__file__).parent
DENSE = f'{ROOT}/configs/mnist_dense.py:quick'
SWEEPS = [
  name
  for name, function in vars(sweeps).items()
  if callable(function) and not name.startswith('_')
]


def write_config(folder, text):
  path = folder / 'small.py'
  path.write_text(text)
  return str(path)


def load(overrides, *shared, config=DENSE):
  return check.load(
    plan.make_runs(overrides, config, list(shared)), launch.parse
  )


@pytest.mark.parametrize(
  ('overrides', 'name'),
  [
    ({'b.x': 0.5, 'a.y': True}, 'a.y=true,b.x=0.5'),
    ({'powerprop.alphas': (1.0, 2.0)}, 'powerprop.alphas=1.0+2.0'),
    ({'config': 'configs/mnist_methods.py:rigl,alpha=2', 'seeds': (3,)},
     'mnist_methods,rigl,alpha=2,seeds=3'),
    ({'method.penalty': 1e-05}, 'method.penalty=1e-05'),
  ],
)  # fmt: skip
def test_a_run_is_named_by_what_differs(overrides, name):
  assert plan.name_of(overrides) == name


def test_a_name_does_not_depend_on_the_order_or_on_other_runs():
  one, other = {'a': 1, 'b': 2}, {'b': 2, 'a': 1}
  assert plan.name_of(one) == plan.name_of(other)
  alone = plan.make_runs([{'a': 1}], 'x.py')
  both = plan.make_runs([{'a': 2}, {'a': 1}], 'x.py')
  assert alone[0].name == both[1].name


def test_what_is_no_file_name_is_replaced_and_told_apart():
  names = {
    plan.name_of({'data.path': path}) for path in ('/a b', '/a_b', '/a/b', '..')
  }
  assert len(names) == 4
  assert all(re.fullmatch(r'[A-Za-z0-9._=,+-]+', name) for name in names)
  names = {plan.name_of({'model.name': 'x' * 300 + end}) for end in 'ab'}
  assert len(names) == 2
  assert max(map(len, names)) < 140
  assert not plan.name_of({'config': ':../..'}).startswith('.')


def test_no_run_is_named_as_what_else_a_sweep_keeps():
  kept = (plan.FILE, runner.LOGS, executors.FOLDER, unpacking.FOLDER)
  assert set(kept) == set(plan.TAKEN)
  for name in kept:
    assert plan.name_of({'config': f'{name}.py'}) not in kept
    assert plan.name_of({'config': f':{name}'}) not in kept


OVERRIDES = strategies.dictionaries(
  strategies.text(),
  strategies.recursive(
    strategies.text() | strategies.integers() | strategies.floats(),
    lambda values: strategies.tuples(values, values),
    max_leaves=4,
  ),
  max_size=4,
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
  OVERRIDES, strategies.none() | strategies.text('./\\:a~\0 ', max_size=9)
)
@hypothesis.example({}, ':.')
def test_no_name_leaves_the_folder_of_the_sweep(overrides, chosen):
  if chosen is not None:
    overrides['config'] = chosen
  name = plan.name_of(overrides)
  assert re.fullmatch(r'[A-Za-z0-9_=,+][A-Za-z0-9._=,+-]*', name)
  assert len(name) < 140
  folder = pathlib.Path('/sweep')
  assert pathlib.Path(os.path.normpath(folder / name)).parent == folder


def test_a_sweep_is_a_function_of_the_config_or_of_the_file_beside_it(tmp_path):
  config = write_config(
    tmp_path, 'def own(add):\n  add({"a": 1})\n\ndef get_config(x=1): pass\n'
  )
  (tmp_path / 'sweeps.py').write_text(
    'def own(add):\n  add({"a": 2})\n\ndef other(add):\n  add({"a": 3})\n'
  )

  def found(name):
    return plan.collect(plan.find(name, f'{config}:variant'))

  assert found('own') == [{'a': 1}]
  assert found('other') == [{'a': 3}]
  assert found(f'{tmp_path}/sweeps.py:own') == [{'a': 2}]


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('seed', r"got 'seed'; did you mean 'seeds'\?"),
    ('get_config', "got 'get_config'"),
    ('nowhere.py:seeds', 'expected a file with sweeps, got nowhere.py'),
  ],
)
def test_a_sweep_that_is_not_there_is_named_with_the_nearest(name, message):
  with pytest.raises(ValueError, match=message):
    plan.find(name, DENSE)


def test_a_file_that_cannot_be_loaded_is_named(tmp_path):
  config = write_config(tmp_path, 'import nothing_of_this_name')
  with pytest.raises(ValueError, match=r'small.py: ModuleNotFoundError'):
    plan.find('x', config)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'method': {'name': 'rigl'}}, "'method': expected a number, a string"),
    ({'seeds': None}, "'seeds': expected a number"),
    (3, 'expected a dict of overrides, got 3'),
  ],
)
def test_overrides_that_are_not_flat_are_refused(overrides, message):
  with pytest.raises(ValueError, match=message):
    plan.collect(lambda add: add(overrides))


def test_a_sweep_without_runs_is_refused():
  with pytest.raises(ValueError, match='expected a sweep that adds runs'):
    plan.collect(lambda add: None)


@pytest.mark.parametrize(
  ('config', 'chosen', 'expected'),
  [
    ('a.py', None, 'a.py'),
    ('a.py:quick', None, 'a.py:quick'),
    ('a.py', ':rigl,alpha=2', 'a.py:rigl,alpha=2'),
    ('a.py:quick=1', ':rigl,alpha=2', 'a.py:rigl,alpha=2,quick=1'),
    ('a.py:quick', ':alpha=2', 'a.py:quick,alpha=2'),
    ('a.py', 'b.py:rigl', 'b.py:rigl'),
  ],
)
def test_a_run_chooses_the_variant_of_its_config(config, chosen, expected):
  overrides = {} if chosen is None else {'config': chosen}
  [run] = plan.make_runs([overrides], config)
  assert run.arguments == (f'--config={expected}',)


def test_values_come_through_the_command_line_as_they_are():
  overrides = {
    'optimizer.nesterov': True,
    'optimizer.learning_rate': 1e-5,
    'train.num_steps': 700,
    'seeds': (3, 4),
    'powerprop.optimizer_in': 'phi',
    'config': ':quick',
  }
  [config] = load([overrides], config=DENSE[: -len(':quick')]).values()
  assert config['optimizer']['nesterov'] is True
  assert config['optimizer']['learning_rate'] == 1e-5
  assert config['train']['num_steps'] == 700
  assert config['seeds'] == [3, 4]
  assert config['powerprop']['optimizer_in'] == 'phi'


def test_what_the_command_overrides_holds_for_every_run():
  configs = load(
    [{'seeds': (i,)} for i in range(2)], '--config.train.num_steps=900'
  )
  assert [c['train']['num_steps'] for c in configs.values()] == [900, 900]


def test_what_a_run_overrides_cannot_be_given_too():
  with pytest.raises(ValueError, match=r"--config.seeds .* run 'seeds=1'"):
    load([{'seeds': (1,)}], '--config.seeds=(2,)')


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ([{'seeds': (1,)}, {'seeds': (1,)}], "a folder for each .* 'seeds=1'"),
    ([{'seeds': (1,)}, {'seeds': (0,), 'train.batch_size': 60},
      {'train.batch_size': 60}],
     "got one config twice: 'seeds=0,train.batch_size=60' and 'train.batch"),
    ([{'seeds': (1,)}, {'train.num_stps': 3}],
     "run 'train.num_stps=3': unknown config key .*\"num_steps\""),
    ([{'trian.num_steps': 3}], 'unknown config key .*"train"'),
    ([{'train.num_steps': 1.5}], "run 'train.num_steps=1.5': .*1.5"),
    ([{'config': ':quik'}], "run 'quik': .*got 'quik,quick'"),
    ([{'config': 'no.py:x'}], "run 'no,x': expected a config file"),
  ],
)  # fmt: skip
def test_mistakes_name_the_run(overrides, message):
  with pytest.raises(ValueError, match=message):
    load(overrides)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'optimizer.name': 'sdg'}, "run 'optimizer.name=sdg': .*mean 'sgd'"),
    ({'train.num_steps': 0}, "run 'train.num_steps=0': .*num_steps"),
    ({'seeds': (1, 1)}, r"run 'seeds=1\+1': config.seeds: expected different"),
  ],
)
def test_every_run_is_planned_before_the_first_begins(overrides, message):
  configs = load([{'seeds': (7,)}, overrides])
  with pytest.raises(ValueError, match=message):
    check.plan(configs)


def test_a_folder_of_another_config_is_refused(tmp_path):
  configs = load([{'seeds': (1,)}])
  run_lib.open_run(tmp_path / 'seeds=1', {'seeds': [2]})
  with pytest.raises(ValueError, match='belongs to another config'):
    check.folders(configs, tmp_path)


def test_the_file_of_a_sweep_says_what_it_is(tmp_path):
  runs = plan.make_runs([{'seeds': (i,)} for i in range(2)], DENSE)
  plan.write(tmp_path, DENSE, 'seeds', runs[:1])
  plan.write(tmp_path, DENSE, 'seeds', runs)
  assert json.loads((tmp_path / 'sweep.json').read_text()) == {
    'config': DENSE,
    'sweep': 'seeds',
    'runs': [
      {
        'name': f'seeds={i}',
        'overrides': {'seeds': [i]},
        'arguments': [f'--config={DENSE}', f'--config.seeds=({i},)'],
      }
      for i in range(2)
    ],
  }


@pytest.mark.parametrize('text', ['{"config": "x.py", "sweep": "a"}', '[]'])
def test_a_folder_of_another_sweep_is_left_alone(tmp_path, text):
  path = tmp_path / 'sweep.json'
  path.write_text(text)
  with pytest.raises(ValueError, match='belongs to another sweep'):
    plan.write(tmp_path, DENSE, 'seeds', [])
  assert path.read_text() == text


@pytest.mark.parametrize('name', SWEEPS)
def test_every_sweep_fits_the_configs_it_is_for(name):
  function = getattr(sweeps, name)
  first_line = function.__doc__.partition(':')[0]
  files = [
    path
    for path in sorted((ROOT / 'configs').glob('*.py'))
    if path.name in re.findall(r'\w+\.py', first_line)
    or (first_line == 'Any config' and path.name == 'mnist_dense.py')
  ]
  assert files
  for file in files:
    configs = load(plan.collect(plan.find(name, str(file))), config=str(file))
    assert len(configs) > 1
