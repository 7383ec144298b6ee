from ml_collections import config_dict
import pytest

from experiments import build


def sgd(*, learning_rate: float, momentum: float | None):
  return 'sgd', learning_rate, momentum


def lenet(*, sizes: tuple[int, ...], bias: bool, title: str, depth: int):
  return sizes, bias, title, depth


def schedule(*, num_steps: int, peak: float):
  return num_steps, peak


def anything(**keys):
  return keys


TABLE = {'sgd': sgd, 'schedule': schedule}
SGD = {'name': 'sgd', 'learning_rate': 0.1, 'momentum': None}
LENET = {'sizes': (300, 100), 'bias': True, 'title': 'x', 'depth': 3}
NAME = 'config.optimizer'


@pytest.mark.parametrize(
  'section',
  [SGD, config_dict.ConfigDict(SGD), config_dict.FrozenConfigDict(SGD)],
  ids=['dict', 'ConfigDict', 'FrozenConfigDict'],
)
def test_a_section_is_the_keywords_of_its_constructor(section):
  assert build.build(TABLE, section) == ('sgd', 0.1, None)
  assert section['name'] == 'sgd'  # The section is left as it was.


def test_the_program_adds_keywords_of_its_own():
  section = {'name': 'schedule', 'peak': 1.0}
  assert build.build(TABLE, section, num_steps=7) == (7, 1.0)


def test_a_constructor_of_any_keywords_takes_them():
  assert build.call(anything, {'a': 1}, b=2) == {'a': 1, 'b': 2}


def test_a_default_may_be_left_out():
  assert build.call(lambda *, a, b=2: (a, b), {'a': 1}) == (1, 2)


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    (
      {'name': 'sgd', 'learning_rte': 0.1, 'momentum': None},
      "config.optimizer: unknown key 'learning_rte'; did you mean "
      "'learning_rate'? (keys of sgd: learning_rate, momentum)",
    ),
    (
      {**SGD, 'zzz': 1},
      "config.optimizer: unknown key 'zzz' "
      '(keys of sgd: learning_rate, momentum)',
    ),
    (
      {'name': 'sgd', 'momentum': None},
      "config.optimizer: missing key 'learning_rate' "
      '(keys of sgd: learning_rate, momentum)',
    ),
    (
      {'name': 'sdg'},
      "config.optimizer.name: expected one of sgd, schedule; got 'sdg'; "
      "did you mean 'sgd'?",
    ),
    (
      {'name': None},
      'config.optimizer.name: expected one of sgd, schedule; got None',
    ),
    (
      {'learning_rate': 0.1},
      "config.optimizer: expected a key 'name', one of sgd, schedule; got the "
      'keys learning_rate',
    ),
    (
      'sgd',
      "config.optimizer: expected a section (keys and values), got 'sgd'",
    ),
    (
      {**SGD, 'learning_rate': None},
      'config.optimizer.learning_rate: expected float, got None',
    ),
  ],
)
def test_an_error_names_the_section_the_key_and_what_to_write(section, message):
  with pytest.raises(ValueError) as error:  # noqa: PT011
    build.build(TABLE, section, name=NAME)
  assert str(error.value) == message


def test_a_key_that_the_program_sets_is_not_the_configs():
  section = {'name': 'schedule', 'peak': 1.0, 'num_steps': 7}
  with pytest.raises(ValueError, match="unexpected key 'num_steps', the prog"):
    build.build(TABLE, section, num_steps=7)
  with pytest.raises(ValueError, match=r'\(keys of schedule: peak\)'):
    build.build(TABLE, {'name': 'schedule'}, num_steps=7)


def test_an_error_inside_the_constructor_comes_through():
  def broken(*, a: int):
    raise TypeError(f'deep inside, {a}')

  with pytest.raises(TypeError, match='deep inside, 1'):
    build.call(broken, {'a': 1})


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('sizes', [300, 100]),
    ('sizes', ()),
    ('depth', 0),
  ],
)
def test_a_value_of_the_annotated_type_is_taken(key, value):
  sizes, _, _, _ = build.call(lenet, {**LENET, key: value})
  assert isinstance(sizes, tuple)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('sizes', (300, 'a')),
    ('sizes', 300),
    ('bias', 1),
    ('title', None),
    ('depth', True),
    ('depth', 3.0),
    ('depth', '3'),
  ],
)
def test_a_value_of_another_type_is_named(key, value):
  with pytest.raises(ValueError, match=rf'^config\.model\.{key}: expected'):
    build.call(lenet, {**LENET, key: value}, name='config.model')


def test_types_are_checked_in_unions_and_pairs():
  def constructor(*, pair: tuple[int, str] | None, rate: 'int | float'):
    return pair, rate

  ok = {'pair': (1, 'a'), 'rate': 1}
  assert build.call(constructor, ok) == ((1, 'a'), 1)
  assert build.call(constructor, {**ok, 'pair': None})[0] is None
  assert build.call(constructor, {**ok, 'pair': [1, 'a']})[0] == (1, 'a')
  for wrong in ({'pair': (1, 2)}, {'pair': (1, 'a', 1)}, {'rate': True}):
    with pytest.raises(ValueError, match='expected'):
      build.call(constructor, {**ok, **wrong})


def test_a_whole_number_is_a_float():
  assert build.build(TABLE, {**SGD, 'learning_rate': 1}) == ('sgd', 1, None)
  with pytest.raises(ValueError, match=r'momentum: expected float \| None'):
    build.build(TABLE, {**SGD, 'momentum': True})


def test_an_annotation_that_cannot_be_evaluated_is_not_checked():
  def constructor(*, a: 'OnlyForTypeCheckers'):  # noqa: F821
    return a

  assert build.call(constructor, {'a': 1}) == 1


def test_check_keys_wants_exactly_those():
  build.check_keys({'a': 1, 'b': 2}, ('a', 'b'), 'config')
  with pytest.raises(ValueError, match=r"config: unknown key 'c' \(keys of"):
    build.check_keys({'a': 1, 'b': 2, 'c': 3}, ('a', 'b'), 'config')
  with pytest.raises(ValueError, match="config: missing key 'b'"):
    build.check_keys({'a': 1}, ('a', 'b'), 'config')


@pytest.mark.parametrize('value', [0, float('nan')])
def test_check_least_names_the_value(value):
  build.check_least('config.train', 1, batch_size=1, num_devices=None)
  with pytest.raises(ValueError, match=r'config\.train\.rate: expected >= 1'):
    build.check_least('config.train', 1, rate=value)


def test_differences_are_a_line_for_each_value():
  there = {'seed': 0, 'optimizer': {'name': 'sgd', 'learning_rate': 0.1}}
  now = {'optimizer': {'name': 'sgd', 'learning_rate': 0.2}, 'sizes': [1]}
  assert build.differences(there, now) == [
    'optimizer.learning_rate: 0.1 there, 0.2 now',
    'seed: 0 there, absent now',
    'sizes: absent there, [1] now',
  ]


@pytest.mark.parametrize(
  ('a', 'b', 'is_same'),
  [
    ((1, (2, 3)), [1, [2, 3]], True),
    (1, 1.0, True),
    (1, True, False),
    ([1], [1, 2], False),
    ([{'a': (1,)}], [{'a': [1]}], True),
    ({}, {}, True),
    ({}, None, False),
    ({'a': 1}, 1, False),
  ],
)
def test_differences_see_values_as_json_does(a, b, is_same):
  assert (not build.differences({'x': a}, {'x': b})) is is_same
