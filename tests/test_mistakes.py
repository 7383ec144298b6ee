"""Random mistakes in every config are refused before any work."""

import copy
import functools
import json
import math

import hypothesis
from hypothesis import strategies as st
import pytest

from experiments.sweep import run
import launch
from tests import test_configs
from tests.experiments import small

# Any text will do there, or nothing can be said of it without the data.
FREE = {'data_dir', 'path', 'cache_dir'}
# Values that are accepted in the place of none of the type.
WRONG = {
  bool: ['yes', 3, 0.5, [True]],
  int: ['many', True, [1], {'a': 1}],
  float: ['much', True, [0.1], {'a': 1}],
  str: [3, 0.5, True, ['x']],
  list: ['x', 3, [{'a': 1}], {'a': 1}],
  dict: ['x', 3, [1]],
  type(None): [{'a': 1}, [{}]],
}
OUT_OF_RANGE = {int: [-1, -7], float: [-1.0, math.nan, math.inf, -math.inf]}
POOL = [
  (name, variant)
  for name, variants in sorted(test_configs.VARIANTS.items())
  if name not in test_configs.LARGE or name == 'imagenet_resnet50'
  for variant in (variants[:1] if name == 'imagenet_resnet50' else variants)
]


class NotRefusedError(Exception):
  """A run begins in spite of a mistake."""


@pytest.fixture(scope='module', autouse=True)
def runs_that_begin_are_told():
  def begin(plan, workdir):
    raise NotRefusedError

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run, 'train', begin)
    yield


@functools.cache
def plain(name: str, variant: str):
  """Returns a config without mistake; it says where its data are."""
  config = test_configs.get(name, variant).to_dict()
  for key in ('data', 'tasks'):
    for place in ('data_dir', 'path'):
      if place in config.get(key, {}):
        config[key][place] = 'data'
  return json.loads(json.dumps(config))


def paths(section, prefix=()):
  """Yields the path of every key, sections included."""
  for key, value in section.items():
    yield (*prefix, key)
    if isinstance(value, dict):
      yield from paths(value, (*prefix, key))


def misspell(draw, section, key):
  at = draw(st.integers(0, len(key) - 1))
  letter = draw(st.sampled_from('abcxyz_'))
  wrong = draw(
    st.sampled_from([key[:at] + key[at + 1 :], key[:at] + letter + key[at:]])
  )
  hypothesis.assume(wrong and wrong not in section)
  section[wrong] = section.pop(key)


def leave_out(draw, section, key):
  del section[key]


def add(draw, section, key):
  section[f'{key}_too'] = 1


def mistype(draw, section, key):
  wrong = draw(st.sampled_from(WRONG[type(section[key])]))
  # One learning rate serves all alphas.
  hypothesis.assume(key != 'learning_rate' or wrong != 3)
  section[key] = wrong


def exceed(draw, section, key):
  value = section[key]
  if isinstance(value, str):
    hypothesis.assume(key not in FREE)
    section[key] = f'{value}_'
    return
  hypothesis.assume(type(value) in OUT_OF_RANGE)
  section[key] = draw(st.sampled_from(OUT_OF_RANGE[type(value)]))


@st.composite
def mistakes(draw):
  """A config with one mistake, and a line that names it."""
  name, variant = draw(st.sampled_from(POOL))
  config = copy.deepcopy(plain(name, variant))
  path = draw(st.sampled_from(sorted(paths(config))))
  kind = draw(st.sampled_from([misspell, leave_out, add, mistype, exceed]))
  section = functools.reduce(lambda inner, key: inner[key], path[:-1], config)
  kind(draw, section, path[-1])
  value = section.get(path[-1], 'absent')
  return f'{name}:{variant} {kind.__name__} {".".join(path)} {value!r}', config


@pytest.mark.parametrize(('name', 'variant'), sorted(dict(POOL).items()))
def test_without_a_mistake_a_run_would_begin(name, variant, tmp_path):
  flag = small.config_flag(tmp_path, plain(name, variant))
  with pytest.raises(NotRefusedError):
    launch.main([flag, f'--workdir={tmp_path / "run"}'])


@hypothesis.settings(
  max_examples=60,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(mistake=mistakes())
def test_every_mistake_is_refused_and_leaves_nothing(tmp_path, capsys, mistake):
  name, config = mistake
  hypothesis.note(name)
  flag, workdir = small.config_flag(tmp_path, config), tmp_path / 'run'
  code = launch.main([flag, f'--workdir={workdir}'])
  error = capsys.readouterr().err
  assert code == launch.USER_ERROR
  assert error.startswith('launch.py: ')
  assert 'Traceback' not in error
  assert not workdir.exists()
