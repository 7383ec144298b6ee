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
SPLITS = ('space', 'punctuation')

_PIECES = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # "don't" is one word


class Vocabulary(NamedTuple):
  """The tokens of a text."""

  unit: str  # 'byte' | 'word'
  split: str  # 'space' | 'punctuation': how a line is cut into words
  words: tuple[str, ...]  # token i is words[i]; () for bytes

  @property
  def size(self) -> int:
    """Number of tokens."""
    return 256 if self.unit == 'byte' else len(self.words)

  @property
  def dtype(self) -> np.dtype:
    """Smallest unsigned type that holds every token."""
    return np.min_scalar_type(self.size - 1)


BYTES = Vocabulary('byte', 'space', ())


def count(
  lines: Iterable[str], *, split: str, max_words: int | None
) -> Vocabulary:
  """Returns the words of a text: `<eos>` first, then by frequency.

  Words of equal frequency are in order of first occurrence. `<unk>` is ranked
  like any other word if the text has it, and comes second otherwise.

  Example:
    >>> count(['b a', 'a c'], split='space', max_words=None).words
    ('<eos>', '<unk>', 'a', 'b', 'c')

  Args:
    lines: the training text.
    split: 'space' for tokenized text, such as WikiText; 'punctuation' also
      separates punctuation from words.
    max_words: limit, `<eos>` and `<unk>` included; None for no limit.
  """
  if split not in SPLITS:
    raise ValueError(f'expected split, one of {SPLITS}, got {split!r}')
  if max_words is not None and max_words < 3:
    raise ValueError(f'expected max_words >= 3 or None, got {max_words}')
  counter = collections.Counter(
    word for line in lines for word in pieces(line, split)
  )
  counter.pop(END, None)
  words = [END] if UNKNOWN in counter else [END, UNKNOWN]
  words = (words + [word for word, _ in counter.most_common()])[:max_words]
  if UNKNOWN not in words:
    words[-1] = UNKNOWN
  return Vocabulary('word', split, tuple(words))


def pieces(line: str, split: str) -> list[str]:
  """Returns the words of a line.

  Example:
    >>> pieces("The LORD's word.", 'punctuation')
    ['The', "LORD's", 'word', '.']
  """
  return line.split() if split == 'space' else _PIECES.findall(line)


def encode(vocabulary: Vocabulary, text: str | Iterable[str]) -> np.ndarray:
  """Returns the tokens of a text, or of its lines; each line ends in `<eos>`.

  Example:
    >>> encode(BYTES, 'Abc')
    array([65, 98, 99], dtype=uint8)
  """
  if vocabulary.unit == 'byte':
    return np.frombuffer(text.encode('utf-8'), np.uint8)
  if isinstance(text, str):
    text = text.removesuffix('\n').split('\n') if text else []
  number = _numbers(vocabulary)
  unknown = number[UNKNOWN]
  tokens = (
    number.get(word, unknown)
    for line in text
    for word in (*pieces(line, vocabulary.split), END)
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
    if vocabulary.unit not in UNITS or vocabulary.split not in SPLITS:
      raise ValueError(f'{vocabulary.unit!r}, {vocabulary.split!r}')
  except FileNotFoundError as error:
    raise ValueError(
      f'expected a vocabulary in {path}; there is no such file'
    ) from error
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'expected a vocabulary in {path}; it is truncated or altered: {error}'
    ) from error
  return vocabulary


def check_same(
  saved: Vocabulary, current: Vocabulary, path: str | os.PathLike[str]
) -> None:
  """Raises ValueError unless the data has the vocabulary of a run."""
  if saved == current:
    return
  found = ' there, '.join(
    f'{v.size} tokens ({v.unit}, {v.split})' for v in (saved, current)
  )
  for i, (old, new) in enumerate(zip(saved.words, current.words)):  # noqa: B905
    if old != new:
      found = f'token {i} is {old!r} there, {new!r}'
      break
  raise ValueError(
    f'expected the vocabulary that the run was trained with, {path}; got '
    f'another: {found} now. Use the data of the run, or a new folder'
  )


@functools.lru_cache(maxsize=4)
def _numbers(vocabulary: Vocabulary) -> dict[str, int]:
  return {word: i for i, word in enumerate(vocabulary.words)}
