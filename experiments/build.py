"""From a config's sections to objects: a section is one constructor's keywords.

A section is a mapping, a `ConfigDict` among others. Everything in it is checked
against the constructor's signature before the constructor is called, so what is
misspelt, missing or of another type is an error before any work is done, and
what the constructor itself raises comes through unchanged.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import difflib
import inspect
import types
import typing
from typing import Any

from ml_collections import config_dict

_SIMPLE = (bool, int, float, str)


def build(
  table: Mapping[str, Callable[..., Any]],
  section: Any,
  *,
  name: str = 'config',
  key: str = 'name',
  **more: Any,
) -> Any:
  """Returns `table[section[key]]` called with the section's other keys.

  Example:
    >>> def sgd(*, learning_rate: float):
    ...   return f'sgd at {learning_rate}'
    >>> section = {'name': 'sgd', 'learning_rate': 0.1}
    >>> build({'sgd': sgd}, section, name='config.optimizer')
    'sgd at 0.1'
    >>> section = {'name': 'sgd', 'learning_rte': 0.1}
    >>> build({'sgd': sgd}, section, name='config.optimizer')
    Traceback (most recent call last):
      ...
    ValueError: config.optimizer: unknown key 'learning_rte'; did you mean \
'learning_rate'? (keys of sgd: learning_rate)

  Args:
    table: Constructors by name.
    section: A mapping; one of its keys chooses from the table.
    name: Where the section is, for messages: `'config.optimizer'`.
    key: Which key chooses.
    **more: Further keyword arguments, from the program and not the config.

  Raises:
    ValueError: If `name` is missing or not in the table, or as `call` does.
  """
  section = _plain(section, name)
  if key not in section:
    raise ValueError(
      f'{name}: expected a key {key!r}, one of {_join(table)}; got the keys '
      f'{_join(section) or "(none)"}'
    )
  chosen = section.pop(key)
  if not isinstance(chosen, str) or chosen not in table:
    raise ValueError(
      f'{name}.{key}: expected one of {_join(table)}; got {chosen!r}'
      + _did_you_mean(chosen, table)
    )
  return _call(table[chosen], section, name, chosen, more)


def call(
  constructor: Callable[..., Any],
  section: Any,
  *,
  name: str = 'config',
  **more: Any,
) -> Any:
  """Returns `constructor(**section, **more)`, checked before it is called.

  A list where the signature says `tuple` is handed over as a tuple, for JSON
  knows lists only.

  Raises:
    ValueError: If a key is unknown or missing, if a key of `more` is in the
      section too, or if a value is not of the annotated type. Checked are
      `bool`, `int`, `float`, `str`, `None`, `tuple` and unions of these.
  """
  label = getattr(constructor, '__name__', str(constructor))
  return _call(constructor, _plain(section, name), name, label, more)


def check_keys(section: Any, expected: Iterable[str], name: str) -> None:
  """Checks that a section has exactly the `expected` keys.

  Raises:
    ValueError: If a key is unknown or missing.
  """
  expected = tuple(expected)
  keys = f'(keys of {name}: {_join(expected)})'
  _check_keys(_plain(section, name), expected, expected, name, keys)


def check_least(name: str, least: int, **values: int | None) -> None:
  """Checks that values of a section are no less than they can be.

  Example:
    >>> check_least('config.train', 1, batch_size=0)
    Traceback (most recent call last):
      ...
    ValueError: config.train.batch_size: expected >= 1, got 0

  Raises:
    ValueError: If one is less; None is not.
  """
  for key, value in values.items():
    if value is not None and value < least:
      raise ValueError(f'{name}.{key}: expected >= {least}, got {value}')


def differences(there: Mapping, now: Mapping) -> list[str]:
  """Returns what differs between two nested dicts, a line for each value.

  Tuples and lists of equal entries are equal: JSON has lists only.

  Example:
    >>> differences({'seed': 0, 'model': {'width': 3}}, {'model': {'width': 4}})
    ['model.width: 3 there, 4 now', 'seed: 0 there, absent now']
  """
  there, now = _flatten(there), _flatten(now)
  return [
    f'{path}: {_shown(there, path)} there, {_shown(now, path)} now'
    for path in sorted(there.keys() | now.keys())
    if not _same(there.get(path, _ABSENT), now.get(path, _ABSENT))
  ]


def _call(constructor, section, name, label, more):
  """Checks all keys, and the types of the section's values; then calls."""
  parameters = _signature(constructor).parameters.values()
  known = {
    p.name: p
    for p in parameters
    if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
  }
  both = [key for key in section if key in more]
  if both:
    raise ValueError(
      f'{name}: expected no key {both[0]!r}, the program sets it; remove it'
    )
  given = {**section, **more}
  is_open = any(p.kind is p.VAR_KEYWORD for p in parameters)
  required = [key for key, p in known.items() if p.default is p.empty]
  # Messages offer only what is the config's to give.
  offered = [key for key in known if key not in more]
  keys = f'(keys of {label}: {_join(offered) or "none"})'
  _check_keys(given, given if is_open else known, required, name, keys)
  for key, value in section.items():
    annotation = known[key].annotation if key in known else Any
    if not _is_instance(value, annotation):
      raise ValueError(
        f'{name}.{key}: expected {_type_name(annotation)}, got {value!r} '
        f'({type(value).__name__})'
      )
    if isinstance(value, list) and _has_tuple(annotation):
      given[key] = tuple(value)
  return constructor(**given)


def _check_keys(given, known, required, name, keys):
  for key in given:
    if key not in known:
      raise ValueError(
        f'{name}: unknown key {key!r}{_did_you_mean(key, known)} {keys}'
      )
  missing = [key for key in required if key not in given]
  if missing:
    plural = 's' if len(missing) > 1 else ''
    missing = ', '.join(map(repr, missing))
    raise ValueError(f'{name}: missing key{plural} {missing} {keys}')


def _plain(section: Any, name: str) -> dict[str, Any]:
  """Returns a section's keys and values as a new dict."""
  is_config = isinstance(section, config_dict.ConfigDict)
  if not is_config and not isinstance(section, Mapping):
    raise ValueError(
      f'{name}: expected a section (keys and values), got {section!r}'
    )
  plain = {}
  for key in section:
    try:
      plain[key] = section[key]
    except config_dict.RequiredValueError as error:
      raise ValueError(
        f'{name}.{key}: expected a value, got none; it has no default'
      ) from error
  return plain


def _signature(constructor):
  try:
    return inspect.signature(constructor, eval_str=True)
  except NameError:  # An annotation for type checkers only.
    return inspect.signature(constructor)


def _is_instance(value: Any, annotation: Any) -> bool:
  """Whether `value` is of the annotated type; True where we cannot know."""
  if annotation is None or annotation is types.NoneType:
    return value is None
  origin = typing.get_origin(annotation) or annotation
  args = typing.get_args(annotation)
  if origin in (types.UnionType, typing.Union):
    return any(_is_instance(value, arg) for arg in args)
  if origin is tuple:
    return isinstance(value, (tuple, list)) and _are_instances(value, args)
  if origin in (int, float) and isinstance(value, bool):
    return False
  if origin is float:
    return isinstance(value, (int, float))
  return origin not in _SIMPLE or isinstance(value, origin)


def _are_instances(values: Any, args: tuple[Any, ...]) -> bool:
  if not args:
    return True
  if len(args) == 2 and args[1] is Ellipsis:
    return all(_is_instance(value, args[0]) for value in values)
  return len(values) == len(args) and all(map(_is_instance, values, args))


def _has_tuple(annotation: Any) -> bool:
  origin = typing.get_origin(annotation) or annotation
  if origin in (types.UnionType, typing.Union):
    return any(_has_tuple(arg) for arg in typing.get_args(annotation))
  return origin is tuple


def _type_name(annotation: Any) -> str:
  return annotation.__name__ if annotation in _SIMPLE else str(annotation)


def _did_you_mean(word: Any, words: Iterable[str]) -> str:
  close = difflib.get_close_matches(str(word), list(words), n=1)
  return f'; did you mean {close[0]!r}?' if close else ''


def _join(words: Iterable[str]) -> str:
  return ', '.join(map(str, words))


_ABSENT = object()


def _flatten(tree: Mapping, prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    path = f'{prefix}{key}'
    if isinstance(value, Mapping) and value:
      flat.update(_flatten(value, f'{path}.'))
    else:
      flat[path] = value
  return flat


def _same(a: Any, b: Any) -> bool:
  """Whether two leaves are equal; 1 and 1.0 are, 1 and True are not."""
  if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
    return len(a) == len(b) and all(map(_same, a, b))
  if isinstance(a, Mapping) and isinstance(b, Mapping):
    return not differences(a, b)
  return isinstance(a, bool) == isinstance(b, bool) and a == b


def _shown(flat: Mapping, path: str) -> str:
  return repr(flat[path]) if path in flat else 'absent'
