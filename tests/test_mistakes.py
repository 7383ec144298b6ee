"""Random mistakes in every config: each is refused, before anything is done."""

import functools
import json
import math
import pathlib

import hypothesis
from hypothesis import strategies as st
import pytest

from experiments.common import run
from experiments.data import mnist
from experiments.data import text
from experiments.data import tfds_source
import launch
from tests import test_configs

# Any text will do there, or nothing can be said of it without the data.
FREE = {'data_dir', 'path', 'cache_dir', 'manual_dir', 'feature', 'tfds_name'}
# A value of none of these kinds is accepted in the place of one of the kind.
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


class NotRefusedError(Exception):
  """Data are read, or a run begins, in spite of a mistake."""


@pytest.fixture(scope='module', autouse=True)
def a_mistake_must_be_found_before():
  """The data are not there, which would be an error too, but another."""

  def go_on(*args, **kwargs):
    raise NotRefusedError

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tfds_source, 'open_builder', go_on)
    patch.setattr(mnist, 'read_files', go_on)
    patch.setattr(text, '_existing', go_on)
    patch.setattr(run, 'open_run', go_on)
    yield


@functools.cache
def plain(name: str, variant: str) -> str:
  """Returns a config without mistake as JSON; it says where its data are."""
  config = test_configs.get(name, variant).to_dict()
  for key in ('data', 'tasks'):
    for place in ('data_dir', 'path'):
      if place in config.get(key, {}):
        config[key][place] = 'data'
  return json.dumps(config)


def paths(section, prefix=()):
  """Yields the path of every key, sections included."""
  for key, value in section.items():
    yield (*prefix, key)
    if isinstance(value, dict):
      yield from paths(value, (*prefix, key))


def section_of(config, path):
  return functools.reduce(lambda section, key: section[key], path[:-1], config)


def misspell(draw, config, path):
  section, key = section_of(config, path), path[-1]
  at = draw(st.integers(0, len(key) - 1))
  letter = draw(st.sampled_from('abcxyz_'))
  wrong = draw(
    st.sampled_from([key[:at] + key[at + 1 :], key[:at] + letter + key[at:]])
  )
  hypothesis.assume(wrong and wrong not in section)
  section[wrong] = section.pop(key)


def leave_out(draw, config, path):
  del section_of(config, path)[path[-1]]


def add(draw, config, path):
  section_of(config, path)[f'{path[-1]}_too'] = 1


def mistype(draw, config, path):
  section, key = section_of(config, path), path[-1]
  section[key] = draw(st.sampled_from(WRONG[type(section[key])]))


def exceed(draw, config, path):
  section, key = section_of(config, path), path[-1]
  value = section[key]
  if isinstance(value, str):
    hypothesis.assume(key not in FREE)
    section[key] = f'{value}_'
    return
  hypothesis.assume(type(value) in OUT_OF_RANGE)
  section[key] = draw(st.sampled_from(OUT_OF_RANGE[type(value)]))


@st.composite
def mistakes(draw):
  """A config with one mistake, and what was done to it."""
  name, variant = draw(st.sampled_from(sorted(test_configs.of_all())))
  config = json.loads(plain(name, variant))
  path = draw(st.sampled_from(sorted(paths(config))))
  kind = draw(st.sampled_from([misspell, leave_out, add, mistype, exceed]))
  kind(draw, config, path)
  value = section_of(config, path).get(path[-1], 'absent')
  return f'{name}:{variant} {kind.__name__} {".".join(path)} {value!r}', config


CONFIG = """
import json
import ml_collections


def get_config():
  return ml_collections.ConfigDict(json.loads({text!r}))
"""


@pytest.mark.parametrize('name', test_configs.VARIANTS)
def test_without_a_mistake_data_would_be_read(name, tmp_path):
  if name in test_configs.LARGE:
    pytest.skip('the largest are the same but for their sizes')
  variant = test_configs.VARIANTS[name][-1]
  file = tmp_path / 'config.py'
  file.write_text(CONFIG.format(text=plain(name, variant)))
  with pytest.raises(NotRefusedError):
    launch.main([f'--config={file}', f'--workdir={tmp_path / "run"}'])


def contents(folder: pathlib.Path):
  return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.slow
@hypothesis.settings(
  max_examples=500,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(mistake=mistakes(), is_there=st.booleans())
def test_every_mistake_is_refused_and_leaves_nothing(
  tmp_path, capsys, mistake, is_there
):
  what, config = mistake
  hypothesis.note(what)
  file, workdir = tmp_path / 'mistake.py', tmp_path / 'run'
  file.write_text(CONFIG.format(text=json.dumps(config)))
  if is_there:
    workdir.mkdir(exist_ok=True)
    (workdir / 'config.json').write_text(json.dumps(config))
  else:
    (workdir / 'config.json').unlink(missing_ok=True)
    workdir.rmdir() if workdir.exists() else None
  before = contents(workdir)
  code = launch.main([f'--config={file}', f'--workdir={workdir}'])
  error = capsys.readouterr().err
  assert code == launch.USER_ERROR
  assert error.startswith('launch.py: ')
  assert 'Traceback' not in error
  assert workdir.exists() == is_there
  assert contents(workdir) == before
