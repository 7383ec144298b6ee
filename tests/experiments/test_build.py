"""Sections are checked against the constructors that they call."""

from ml_collections import config_dict
import pytest

from experiments import build


def sgd(*, learning_rate: float, momentum: float | None):
  return 'sgd', learning_rate, momentum


def lenet(
  *,
  sizes: tuple[int, ...],
  bias: bool,
  depth: int,
  pair: tuple[int, str] | None,
):
  return sizes, pair


TABLE = {
  'sgd': sgd,
  'schedule': lambda *, num_steps, peak=1.0: (num_steps, peak),
}
SGD = {'name': 'sgd', 'learning_rate': 0.1, 'momentum': None}
LENET = {'sizes': (300, 100), 'bias': True, 'depth': 3, 'pair': None}


@pytest.mark.parametrize('kind', [dict, config_dict.ConfigDict])
def test_a_section_is_the_keywords_of_its_constructor(kind):
  section = kind(SGD)
  assert build.build(TABLE, section) == ('sgd', 0.1, None)
  assert section['name'] == 'sgd'  # unchanged
  assert build.build(TABLE, {'name': 'schedule'}, num_steps=7) == (7, 1.0)


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({**SGD, 'momentm': 1}, ": unknown key 'momentm'; .* 'momentum'.*keys of"),
    ({'name': 'sgd', 'momentum': None}, ": missing key 'learning_rate'"),
    ({'name': 'sdg'}, r".name: expected one of .* got 'sdg'; .* 'sgd'"),
    ({'learning_rate': 0.1}, ": expected a key 'name', one of sgd, schedule"),
    ('sgd', ": expected a section .* got 'sgd'"),
    ({**SGD, 'learning_rate': None}, '.learning_rate: expected float, got N'),
    ({'name': 'schedule', 'num_steps': 7}, ": unexpected key 'num_steps'"),
  ],
)
def test_an_error_names_the_section_the_key_and_what_to_write(section, message):
  more = {'num_steps': 7} if 'num_steps' in section else {}
  with pytest.raises(ValueError, match=f'^config.optimizer{message}'):
    build.build(TABLE, section, name='config.optimizer', **more)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('sizes', (300, 'a')), ('sizes', 300), ('bias', 1), ('depth', True),
    ('depth', 3.0), ('depth', 2**31), ('sizes', (10**20,)), ('pair', (1, 2)),
    ('pair', (1, 'a', 1)),
  ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(key, value):
  with pytest.raises(ValueError, match=rf'^config\.model\.{key}: expected'):
    build.call(lenet, {**LENET, key: value}, name='config.model')


def test_lists_become_tuples_and_whole_numbers_pass_as_floats():
  section = {**LENET, 'sizes': [300, 100], 'pair': [1, 'a']}
  assert build.call(lenet, section) == ((300, 100), (1, 'a'))
  assert build.build(TABLE, {**SGD, 'learning_rate': 1}) == ('sgd', 1, None)


def test_differences_are_a_line_for_each_value():
  there = {'a': {'b': 0.1}, 'x': (1, (2,)), 'y': 1, 'z': {}}
  now = {'a': {'b': 0.2}, 'x': [1, [2]], 'y': True, 'z': None}
  assert build.differences(there, now) == [
    'a.b: 0.1 there, 0.2 now', 'y: 1 there, true now', 'z: {} there, null now',
  ]  # fmt: skip
