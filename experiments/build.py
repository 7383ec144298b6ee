"""Builds objects from config sections: the keyword arguments of a constructor.

Keys and simple types are checked against the constructor's signature, so a
misspelt key is an error before any work begins.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import difflib
import inspect
import json
import types
import typing
from typing import Any

from ml_collections import config_dict


def build(
  table: Mapping[str, Callable[..., Any]], section: Any, *,
  name: str = 'config', key: str = 'name', **more: Any,
) -> Any:  # fmt: skip
  """Returns `table[section[key]]` called with the section's other keys.

  Example:
    >>> def sgd(*, learning_rate: float):
    ...   return f'sgd at {learning_rate}'
    >>> build({'sgd': sgd}, {'name': 'sgd', 'learning_rte': 0.1})
    Traceback (most recent call last):
      ...
    ValueError: config: unknown key 'learning_rte'; did you mean \
'learning_rate'? (keys of sgd: learning_rate)

  `name` is the path of the section, for messages; `more` are further keyword
  arguments, set by the program. Raises ValueError if `key` is missing or not in
  the table, or as `call` does.
  """
  section = _plain(section, name)
  if key not in section:
    raise ValueError(
      f'{name}: expected a key {key!r}, one of {_join(table)}; got the keys '
      f'{_join(section) or "(none)"}'
    )
  chosen = section.pop(key)
  if not isinstance(chosen, str) or chosen not in table:
    hint = did_you_mean(chosen, table)
    raise ValueError(
      f'{name}.{key}: expected one of {_join(table)}; got {chosen!r}{hint}'
    )
  return _call(table[chosen], section, name, chosen, more)


def call(
  constructor: Callable[..., Any], section: Any, *, name: str = 'config',
  **more: Any,
) -> Any:  # fmt: skip
  """Returns `constructor(**section, **more)`, checked before the call.

  Lists become tuples where the annotation says `tuple` (JSON has lists only).
  Raises ValueError if a key is unknown, missing or also in `more`, or if a
  value does not fit its annotation: `bool`, `int`, `float`, `str`, `None`,
  `tuple` and unions of these are checked.
  """
  label = getattr(constructor, '__name__', str(constructor))
  return _call(constructor, _plain(section, name), name, label, more)


def check_least(name: str, least: int, **values: int | None) -> None:
  """Raises ValueError if one of the values is below `least`; None passes."""
  for key, value in values.items():
    if value is not None and not value >= least:
      raise ValueError(f'{name}.{key}: expected >= {least}, got {value}')


def check_range(low: float, high: float, **values: float) -> None:
  """Raises ValueError unless each value is in [low, high)."""
  for key, value in values.items():
    if not low <= value < high:
      raise ValueError(f'expected {key} in [{low:g}, {high:g}), got {value}')


def differences(there: Mapping, now: Mapping) -> list[str]:
  """Returns a line for each value that differs between two nested dicts.

  Example:
    >>> differences({'seed': 0, 'model': {'width': 3}}, {'model': {'width': 4}})
    ['model.width: 3 there, 4 now', 'seed: 0 there, absent now']
  """
  there, now = _flat(there), _flat(now)
  return [
    f'{path}: {there.get(path, "absent")} there, {now.get(path, "absent")} now'
    for path in sorted(there.keys() | now.keys())
    if there.get(path) != now.get(path)
  ]


def did_you_mean(word: Any, words: Iterable[str]) -> str:
  """Returns `"; did you mean 'x'?"` for the nearest word, '' if none is."""
  close = difflib.get_close_matches(str(word), list(words), n=1)
  return f'; did you mean {close[0]!r}?' if close else ''


def _call(constructor, section, name, label, more):
  parameters = inspect.signature(constructor, eval_str=True).parameters
  is_open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
  known = {k: p for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
  own = [key for key in known if key not in more]
  keys = f'(keys of {label}: {_join(own)})'
  given = {**section, **more}
  for key in section:
    if key in more:
      raise ValueError(f'{name}: unexpected key {key!r}, the program sets it')
    if key not in known and not is_open:
      hint = did_you_mean(key, own)
      raise ValueError(f'{name}: unknown key {key!r}{hint} {keys}')
  for key, parameter in known.items():
    if key not in given and parameter.default is parameter.empty:
      raise ValueError(f'{name}: missing key {key!r} {keys}')
  for key in section.keys() & known.keys():
    annotation = known[key].annotation
    try:
      given[key] = _cast(section[key], annotation)
    except OverflowError:
      raise ValueError(
        f'{name}.{key}: expected an integer below 2^31, got {section[key]}'
      ) from None
    except TypeError:
      expected = getattr(annotation, '__name__', annotation)
      raise ValueError(
        f'{name}.{key}: expected {expected}, got {section[key]!r}'
      ) from None
  return constructor(**given)


def _plain(section: Any, name: str) -> dict[str, Any]:
  """Returns a section's keys and values as a new dict."""
  if not isinstance(section, (Mapping, config_dict.ConfigDict)):
    raise ValueError(
      f'{name}: expected a section (keys and values), got {section!r}'
    )
  return {key: section[key] for key in section}


def _cast(value: Any, annotation: Any) -> Any:
  """Returns `value`, with lists as tuples; TypeError if it does not fit."""
  origin = typing.get_origin(annotation) or annotation
  args = typing.get_args(annotation)
  if origin in (types.UnionType, typing.Union):
    for arg in args:
      with contextlib.suppress(TypeError):
        return _cast(value, arg)
    raise TypeError
  if origin is tuple and isinstance(value, (tuple, list)):
    if args[1:] == (Ellipsis,):
      args = args[:1] * len(value)
    if args and len(args) != len(value):
      raise TypeError
    return tuple(map(_cast, value, args)) if args else tuple(value)
  kinds = {float: (int, float), None: types.NoneType}.get(origin, origin)
  is_checked = origin in (bool, int, float, str, tuple, None, types.NoneType)
  is_number = origin in (int, float)
  if is_checked and (
    not isinstance(value, kinds) or (is_number and isinstance(value, bool))
  ):
    raise TypeError
  if is_number and isinstance(value, int) and abs(value) >= 2**31:
    raise OverflowError
  return value


def _join(words: Iterable[str]) -> str:
  return ', '.join(map(str, words))


def _flat(tree: Mapping, prefix: str = '') -> dict[str, str]:
  """Returns the JSON of each leaf of a nested dict by its dotted path."""
  leaves = {}
  for key, value in tree.items():
    if isinstance(value, Mapping) and value:
      leaves |= _flat(value, f'{prefix}{key}.')
    else:
      leaves[f'{prefix}{key}'] = json.dumps(value)
  return leaves
