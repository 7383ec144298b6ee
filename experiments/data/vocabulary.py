"""What a token is: a byte, or one of the words of a text.

A vocabulary depends on the text alone, and is saved beside the checkpoints, for
without it their embeddings mean nothing.
"""

import collections
from collections.abc import Iterable
import functools
import json
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

END = '<eos>'  # of a line
UNKNOWN = '<unk>'
NUM_BYTES = 256
UNITS = ('byte', 'word')
SPLITS = ('space', 'punctuation')

_PIECES = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # don't is a word


class Vocabulary(NamedTuple):
  """Which tokens there are."""

  unit: str  # 'byte' | 'word'
  split: str  # 'space' | 'punctuation': how words are told apart
  words: tuple[str, ...]  # token i is words[i]; () for bytes

  @property
  def size(self) -> int:
    """How many different tokens there are."""
    return NUM_BYTES if self.unit == 'byte' else len(self.words)

  @property
  def dtype(self) -> np.dtype:
    """The smallest unsigned type that holds every token."""
    return np.min_scalar_type(self.size - 1)


BYTES = Vocabulary('byte', 'space', ())


def count(
  text_lines: Iterable[str], *, split: str, max_words: int | None
) -> Vocabulary:
  """Returns the words of a text, the end of a line first, then by frequency.

  Words of equal frequency are in the order in which they first occur. What is
  left out is unknown; `<unk>` is a word like others if the text has it, and the
  second otherwise.

  Example:
    >>> count(['b a', 'a c'], split='space', max_words=None).words
    ('<eos>', '<unk>', 'a', 'b', 'c')

  Args:
    text_lines: the text for training.
    split: 'space' takes what is between white space, as WikiText is tokenized;
      'punctuation' also separates punctuation from words.
    max_words: how many at most, `<eos>` and `<unk>` included; None: all.

  Raises:
    ValueError: If `split` is neither, or `max_words` is less than 3.
  """
  if split not in SPLITS:
    raise ValueError(f'expected split, one of {SPLITS}, got {split!r}')
  if max_words is not None and max_words < 3:
    raise ValueError(f'expected max_words >= 3 or None, got {max_words}')
  counter = collections.Counter()
  for line in text_lines:
    counter.update(pieces(line, split))
  counter.pop(END, None)
  words = [word for word, _ in counter.most_common()]
  first = [END] if UNKNOWN in counter else [END, UNKNOWN]
  kept = (first + words)[:max_words]
  if UNKNOWN not in kept:
    kept[-1] = UNKNOWN
  return Vocabulary('word', split, tuple(kept))


def pieces(line: str, split: str) -> list[str]:
  """Returns the words of a line.

  Example:
    >>> pieces("The LORD's word.", 'punctuation')
    ['The', "LORD's", 'word', '.']
  """
  return line.split() if split == 'space' else _PIECES.findall(line)


def encode(vocabulary: Vocabulary, text: str) -> np.ndarray:
  """Returns the tokens of a text, [N]; each line of words ends with `<eos>`.

  Example:
    >>> encode(BYTES, 'Abc')
    array([65, 98, 99], dtype=uint8)
  """
  if vocabulary.unit == 'byte':
    return np.frombuffer(text.encode('utf-8'), np.uint8)
  number = _numbers(vocabulary)
  unknown = number[UNKNOWN]
  tokens = []
  for line in lines(text):
    tokens += [
      number.get(word, unknown) for word in pieces(line, vocabulary.split)
    ]
    tokens.append(number[END])
  return np.array(tokens, vocabulary.dtype)


def lines(text: str) -> list[str]:
  """Returns the lines of a text; only the line feed ends one."""
  found = text.split('\n')
  return found[:-1] if not found[-1] else found


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
  return text.replace(' \n ', '\n').replace(' \n', '\n').replace('\n ', '\n')


def to_json(vocabulary: Vocabulary) -> bytes:
  """Returns a vocabulary as the JSON that `read` reads."""
  return json.dumps(vocabulary._asdict(), ensure_ascii=False).encode('utf-8')


def read(path: str | os.PathLike[str]) -> Vocabulary:
  """Returns the vocabulary in a file of `to_json`.

  Raises:
    ValueError: If there is none, or it is not one.
  """
  try:
    fields = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    vocabulary = Vocabulary(**{**fields, 'words': tuple(fields['words'])})
  except FileNotFoundError as error:
    raise ValueError(
      f'expected a vocabulary in {path}; there is no such file'
    ) from error
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f'expected a vocabulary in {path}, got what is none ({error}); the file '
      'is truncated or altered'
    ) from error
  if vocabulary.unit not in UNITS or vocabulary.split not in SPLITS:
    raise ValueError(
      f'expected units out of {UNITS} and splits out of {SPLITS} in {path}, '
      f'got {vocabulary.unit!r} and {vocabulary.split!r}'
    )
  return vocabulary


def check_same(
  there: Vocabulary, now: Vocabulary, path: str | os.PathLike[str]
) -> None:
  """Checks that the vocabulary of a run is the one of its data.

  Raises:
    ValueError: If they differ; says where first.
  """
  if there == now:
    return
  if there[:2] != now[:2] or there.size != now.size:
    found = (
      f'{there.size} tokens ({there.unit}, {there.split}) there, {now.size} '
      f'({now.unit}, {now.split}) now'
    )
  else:
    i = next(
      i
      for i, (a, b) in enumerate(zip(there.words, now.words, strict=True))
      if a != b
    )
    found = f'token {i} is {there.words[i]!r} there, {now.words[i]!r} now'
  raise ValueError(
    f'expected the vocabulary that the run was trained with, {path}; got '
    f'another: {found}. Use the data of the run, or a new folder'
  )


@functools.lru_cache(maxsize=4)
def _numbers(vocabulary: Vocabulary) -> dict[str, int]:
  return {word: i for i, word in enumerate(vocabulary.words)}
