"""Texts as tokens: three long arrays, mapped from files where they are long.

A constructor here takes one section of a config. Tokens that have to be
computed are kept in a cache folder, in a file named after the content they came
from, so that another text or another vocabulary never meets them.
"""

from collections.abc import Iterator
import gzip
import hashlib
import io
import os
import pathlib
from typing import NamedTuple
import zipfile

import numpy as np

from experiments.data import tokens as tokens_lib
from experiments.data import vocabulary as vocabulary_lib

FILES = pathlib.Path(__file__).parent / 'files' / 'kjv'
KJV_SHA256 = 'eb96496e9ab2f1e34922e463eadf665e061cebd9b17cd101ba013d28b9103039'
KJV_HELD_OUT = 200_000  # bytes, of each of the last two splits

ENWIK8_BYTES = 100_000_000
ENWIK8_HELD_OUT = 5_000_000

WIKITEXT = {'train': 'train', 'validation': 'valid', 'test': 'test'}


class Corpus(NamedTuple):
  """A text, as tokens."""

  train: np.ndarray  # unsigned [N]
  validation: np.ndarray
  test: np.ndarray
  vocabulary: vocabulary_lib.Vocabulary


def kjv(
  *,
  unit: str,
  max_words: int | None,
  directory: str | os.PathLike[str] = FILES,
) -> Corpus:
  """Returns the King James Version, which comes with this package.

  The last 200,000 bytes are for testing, the 200,000 before for validation.

  Args:
    unit: 'byte' or 'word'.
    max_words: see `vocabulary.count`; None for bytes.
    directory: of the file.

  Raises:
    ValueError: If the file is missing, truncated or altered.
  """
  path = pathlib.Path(directory) / 'kjv.txt.gz'
  try:
    content = path.read_bytes()
  except FileNotFoundError as error:
    raise ValueError(
      f'expected {path} with sha256 {KJV_SHA256}; there is no such file'
    ) from error
  found = hashlib.sha256(content).hexdigest()
  if found != KJV_SHA256:
    raise ValueError(
      f'expected {path} with sha256 {KJV_SHA256}; got {found} ({len(content)} '
      'bytes): it is truncated or altered, replace it'
    )
  text = np.frombuffer(gzip.decompress(content), np.uint8)
  return _in_units(text, KJV_HELD_OUT, unit, max_words, key='', folder=None)


def enwik8(*, path: str, cache_dir: str | None) -> Corpus:
  """Returns the first 10^8 bytes of Wikipedia: 90, 5 and 5 million.

  Args:
    path: `enwik8` or `enwik8.zip`.
    cache_dir: where an archive is unpacked; None: beside it.

  Raises:
    ValueError: If there is no such file, or it is not of 10^8 bytes.
  """
  file = _existing(path)
  if zipfile.is_zipfile(file):
    file = tokens_lib.cached(
      file,
      cache_dir,
      'enwik8.bytes',
      tokens_lib.unzipped(file, 'enwik8'),
    )
  tokens = tokens_lib.map_file(file)
  if len(tokens) != ENWIK8_BYTES:
    raise ValueError(
      f'expected {ENWIK8_BYTES:,} bytes in {path}, got {len(tokens):,}: it is '
      'not enwik8, or truncated'
    )
  return Corpus(*cut(tokens, ENWIK8_HELD_OUT), vocabulary_lib.BYTES)


def wikitext103(*, path: str, cache_dir: str | None) -> Corpus:
  """Returns WikiText-103, by words, as it is split and tokenized.

  Args:
    path: the folder of `wiki.{train,valid,test}.tokens`.
    cache_dir: where the tokens are kept; None: in that folder.

  Raises:
    ValueError: If a file is missing or not UTF-8.
  """
  files = {
    split: _existing(pathlib.Path(path).expanduser() / f'wiki.{name}.tokens')
    for split, name in WIKITEXT.items()
  }

  def lines(split) -> Iterator[str]:
    with open(files[split], 'rb') as file:
      yield from tokens_lib.decoded(file)

  return tokens_lib.encode_splits(
    Corpus,
    lines,
    key=tokens_lib.digest(*files.values()),
    folder=tokens_lib.cache_folder(files['train'], cache_dir),
    name='wikitext103',
    split='space',
    max_words=None,
  )


def file(
  *,
  path: str,
  unit: str,
  max_words: int | None,
  held_out: float,
  cache_dir: str | None,
) -> Corpus:
  """Returns any text; it is unpacked if its name ends in `.gz`.

  Args:
    path: the file; words are read from UTF-8.
    unit: 'byte' or 'word'.
    max_words: see `vocabulary.count`; None for bytes.
    held_out: share of the bytes in each of validation and test, at the end.
    cache_dir: where tokens are kept; None: beside the file.

  Raises:
    ValueError: If there is no such file, or it is not what it should be.
  """
  if not 0 < held_out < 0.5:
    raise ValueError(f'expected held_out in (0, 0.5), got {held_out}')
  source = unpacked = _existing(path)
  if source.suffix == '.gz':
    unpacked = tokens_lib.cached(
      source,
      cache_dir,
      f'{source.stem}.bytes',
      tokens_lib.gunzipped(source),
    )
  tokens = tokens_lib.map_file(unpacked)
  num = int(held_out * len(tokens))
  if num < 2:
    raise ValueError(
      f'expected a text of which held_out={held_out} is 2 bytes or more, got '
      f'{len(tokens)} bytes in {path}'
    )
  _check_unit(unit, max_words)
  return _in_units(
    tokens,
    num,
    unit,
    max_words,
    key=tokens_lib.digest(source) if unit == 'word' else '',
    folder=tokens_lib.cache_folder(source, cache_dir),
  )


def tfds(
  *,
  name: str,
  data_dir: str,
  feature: str,
  unit: str,
  max_words: int | None,
  cache_dir: str | None,
) -> Corpus:
  """Returns a text set that tensorflow-datasets prepared.

  Args:
    name: such as 'wiki40b/en' or 'pg19'.
    data_dir: the folder of tensorflow-datasets.
    feature: which of an example is its text: 'text', or 'book_text' in pg19.
    unit: 'byte' or 'word'.
    max_words: see `vocabulary.count`; None for bytes.
    cache_dir: where the tokens are kept; None: in the data set's folder.

  Raises:
    ValueError: If the data set, a split or the feature is not there.
  """
  # Slow to import, and no other text needs it.
  from experiments.data import tfds_source

  _check_unit(unit, max_words)
  builder = tfds_source.open_builder(name, data_dir)
  if feature not in builder.info.features:
    raise ValueError(
      f'expected the feature {feature!r} in {name}, got '
      f'{", ".join(builder.info.features)}'
    )

  def lines(split) -> Iterator[str]:
    for example in tfds_source.open_split(builder, split):
      text = example[feature]
      text = text.decode('utf-8') if isinstance(text, bytes) else text
      yield from vocabulary_lib.lines(text)

  info = pathlib.Path(builder.info.data_dir) / 'dataset_info.json'
  return tokens_lib.encode_splits(
    Corpus,
    lines,
    key=tokens_lib.digest(info),
    folder=tokens_lib.cache_folder(info, cache_dir),
    name=f'{name.replace("/", "_")}.{feature}.{unit}.{max_words}',
    split='punctuation' if unit == 'word' else None,
    max_words=max_words,
  )


TEXTS = {
  'enwik8': enwik8,
  'file': file,
  'kjv': kjv,
  'tfds': tfds,
  'wikitext103': wikitext103,
}


def cut(tokens: np.ndarray, num: int) -> tuple[np.ndarray, ...]:
  """Returns training, validation and test tokens, `num` in each of the last."""
  return tokens[: -2 * num], tokens[-2 * num : -num], tokens[-num:]


def _in_units(
  content: np.ndarray, num: int, unit: str, max_words: int | None, **where
) -> Corpus:
  """Returns the corpus of a text as bytes, `num` in each of the last splits.

  Words are cut where the next line begins.
  """
  _check_unit(unit, max_words)
  if unit == 'byte':
    return Corpus(*cut(content, num), vocabulary_lib.BYTES)
  begins = np.flatnonzero(content == ord('\n')) + 1
  cuts = np.searchsorted(begins, [len(content) - 2 * num, len(content) - num])
  cuts = begins[np.minimum(cuts, len(begins) - 1)] if len(begins) else [0, 0]
  if not 0 < cuts[0] < cuts[1] < len(content):
    raise ValueError(
      f'expected a text whose lines are shorter than {num} bytes, so that '
      f"words can be cut into splits, got longer ones; take unit='byte'"
    )
  splits = np.split(content, cuts)
  names = ('train', 'validation', 'test')

  def lines(split) -> Iterator[str]:
    return tokens_lib.decoded(io.BytesIO(splits[names.index(split)]))

  return tokens_lib.encode_splits(
    Corpus,
    lines,
    name=f'words.{num}.{max_words}',
    split='punctuation',
    max_words=max_words,
    **where,
  )


def _check_unit(unit: str, max_words: int | None) -> None:
  if unit not in vocabulary_lib.UNITS:
    raise ValueError(
      f'expected unit, one of {vocabulary_lib.UNITS}, got {unit!r}'
    )
  if unit == 'byte' and max_words is not None:
    raise ValueError(
      f"expected max_words None with unit='byte', got {max_words}"
    )


def _existing(path: str | os.PathLike[str]) -> pathlib.Path:
  found = pathlib.Path(path).expanduser()
  if not found.is_file():
    beside = sorted(x.name for x in found.parent.glob('*'))[:8]
    raise ValueError(
      f'expected a file {found}; there is none (in its folder: '
      f'{", ".join(beside) or "nothing"})'
    )
  return found
