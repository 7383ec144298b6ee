"""Tokens: the bytes of a text, or its words."""

import collections
from collections.abc import Iterable
import functools
import json
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

END = '<eos>'  # end of line
UNKNOWN = '<unk>'
UNITS = ('byte', 'word')


class Vocabulary(NamedTuple):
  """The tokens of a text."""

  unit: str  # 'byte' | 'word'
  words: tuple[str, ...]  # token i is words[i]; () for bytes

  @property
  def size(self) -> int:
    """Number of tokens."""
    return 256 if self.unit == 'byte' else len(self.words)

  @property
  def dtype(self) -> np.dtype:
    """Smallest unsigned type that holds every token."""
    return np.min_scalar_type(self.size - 1)


BYTES = Vocabulary('byte', ())


def count(lines: Iterable[str]) -> Vocabulary:
  """Returns the words of a tokenized text: `<eos>`, then by frequency.

  Words of equal frequency are in order of first occurrence. `<unk>` is ranked
  like any other word if the text has it, and comes second otherwise.

  Example:
    >>> count(['b a', 'a c']).words
    ('<eos>', '<unk>', 'a', 'b', 'c')
  """
  counter = collections.Counter(word for line in lines for word in line.split())
  counter.pop(END, None)
  first = [END] if UNKNOWN in counter else [END, UNKNOWN]
  return Vocabulary('word', (*first, *(w for w, _ in counter.most_common())))


def encode(vocabulary: Vocabulary, text: str | Iterable[str]) -> np.ndarray:
  """Returns the tokens of a text or of lines, each of which ends in `<eos>`."""
  if vocabulary.unit == 'byte':
    return np.frombuffer(text.encode('utf-8'), np.uint8)
  if isinstance(text, str):
    text = text.removesuffix('\n').split('\n') if text else []
  number = _numbers(vocabulary)
  unknown = number[UNKNOWN]
  tokens = (
    number.get(word, unknown) for line in text for word in (*line.split(), END)
  )
  return np.fromiter(tokens, vocabulary.dtype)


def decode(vocabulary: Vocabulary, tokens: Iterable[int]) -> str:
  """Returns tokens as text; bytes that are not UTF-8 are replaced.

  Example:
    >>> decode(BYTES, [65, 98, 99])
    'Abc'
  """
  if vocabulary.unit == 'byte':
    return bytes(int(token) for token in tokens).decode('utf-8', 'replace')
  words = [vocabulary.words[int(token)] for token in tokens]
  text = ' '.join('\n' if word == END else word for word in words)
  return re.sub(' ?\n ?', '\n', text)


def to_json(vocabulary: Vocabulary) -> bytes:
  """Returns a vocabulary as `read` reads it."""
  return json.dumps(vocabulary._asdict(), ensure_ascii=False).encode('utf-8')


def read(path: str | os.PathLike[str]) -> Vocabulary:
  """Returns the vocabulary in a file; ValueError if it has none."""
  try:
    fields = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    vocabulary = Vocabulary(**{**fields, 'words': tuple(fields['words'])})
    if vocabulary.unit not in UNITS:
      raise ValueError(f'{vocabulary.unit!r}')
  except FileNotFoundError as error:
    raise ValueError(
      f'expected a vocabulary in {path}; there is no such file'
    ) from error
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'expected a vocabulary in {path}; it is truncated or altered: {error}'
    ) from error
  return vocabulary


@functools.lru_cache(maxsize=4)
def _numbers(vocabulary: Vocabulary) -> dict[str, int]:
  return {word: i for i, word in enumerate(vocabulary.words)}
