"""Arguments after the colon: --config=FILE:VARIANT,key=value,..."""

from collections.abc import Callable
from collections.abc import Iterable
import difflib
import math
from typing import Any


def parse(
  argument: str,
  variants: tuple[str, ...],
  unused: Callable[[str], Iterable[str]] = lambda variant: (),
  **defaults: Any,
) -> tuple[str, dict[str, Any]]:
  """Returns the variant, and the value of each key of `defaults`.

  Example:
    >>> parse('rigl,density=0.05', ('dense', 'rigl'), density=0.1, length=1)
    ('rigl', {'density': 0.05, 'length': 1})

  Args:
    argument: '' for the first variant with defaults.
    variants: names.
    unused: returns the keys that a variant has no use for.
    **defaults: keys with defaults; values have the types of these.

  Raises:
    ValueError: If the variant or a key is unknown, the variant does not use a
      key, or a value is of another type.
  """
  words = [word.strip() for word in argument.split(',') if word.strip()]
  has_variant = words and '=' not in words[0]
  variant = words.pop(0) if has_variant else variants[0]
  if variant not in variants:
    raise ValueError(_unknown('a variant', variant, variants))
  values = dict(defaults)
  for word in words:
    key, _, text = word.partition('=')
    if key not in defaults:
      raise ValueError(_unknown('keys', key, defaults))
    if key in unused(variant):
      uses = [name for name in variants if key not in unused(name)]
      raise ValueError(
        f'expected {key} with a variant out of {", ".join(uses)}, got '
        f'{variant!r}, which does not use it'
      )
    kind = type(defaults[key])
    try:
      values[key] = kind(text)
      if kind is float and not math.isfinite(values[key]):
        raise ValueError
    except ValueError as error:
      message = f'expected {key}={kind.__name__}, got {word!r}'
      raise ValueError(message) from error
  return variant, values


def _unknown(what: str, word: str, words) -> str:
  close = difflib.get_close_matches(word, list(words), n=1)
  hint = f'; did you mean {close[0]!r}?' if close else ''
  known = ', '.join(filter(None, words)) or '(none)'
  return f'expected {what} out of {known}, got {word!r}{hint}'
