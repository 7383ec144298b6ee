"""What follows the colon: --config=FILE:VARIANT,key=value,...

A variant is the first word, keys come after it, each with the type of its
default.
"""

import difflib
from typing import Any


def parse(
  argument: str, variants: tuple[str, ...], **defaults: Any
) -> tuple[str, dict[str, Any]]:
  """Returns the variant, and the value of each key of `defaults`.

  Example:
    >>> parse('rigl,density=0.05', ('dense', 'rigl'), density=0.1, length=1)
    ('rigl', {'density': 0.05, 'length': 1})

  Args:
    argument: '' for the first variant with defaults.
    variants: those there are.
    **defaults: keys and their defaults; their types are those of the values.

  Raises:
    ValueError: If the variant or a key is unknown, or a value of another type.
  """
  words = [word.strip() for word in argument.split(',') if word.strip()]
  variant = variants[0]
  if words and '=' not in words[0]:
    variant = words.pop(0)
  if variant not in variants:
    raise ValueError(
      f'expected a variant out of {", ".join(filter(None, variants))}, got '
      f'{variant!r}{_did_you_mean(variant, variants)}'
    )
  values = dict(defaults)
  for word in words:
    key, _, text = word.partition('=')
    if key not in defaults:
      raise ValueError(
        f'expected keys out of {", ".join(defaults) or "(none)"} after the '
        f'variant, got {word!r}{_did_you_mean(key, defaults)}'
      )
    kind = type(defaults[key])
    try:
      values[key] = kind(text)
    except ValueError as error:
      raise ValueError(
        f'expected {key}={kind.__name__}, got {word!r}'
      ) from error
  return variant, values


def _did_you_mean(word: str, words) -> str:
  close = difflib.get_close_matches(word, list(words), n=1)
  return f'; did you mean {close[0]!r}?' if close else ''
