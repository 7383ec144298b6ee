"""Texts as tokens: three long arrays, memory-mapped where files allow it.

Each constructor takes one section of a config. Words are cached as tokens in
files named after the digest of their source, so that those of a changed text
are never read.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import gzip
import hashlib
import io
import os
import pathlib
from typing import NamedTuple
import zipfile

import numpy as np

from experiments import rundir
from experiments.data import dataset
from experiments.data import vocabulary as vocabulary_lib

KJV = pathlib.Path(__file__).parent / 'files' / 'kjv' / 'kjv.txt.gz'
KJV_SHA256 = '6f74f5589333c56c263963e6347dba662bae2d96861302e690aaae0b4a855eda'
KJV_HELD_OUT = 200_000  # bytes, of each of validation and test

ENWIK8_BYTES = 100_000_000
ENWIK8_HELD_OUT = 5_000_000


class Corpus(NamedTuple):
  """A text as tokens."""

  train: np.ndarray  # unsigned [N]
  validation: np.ndarray
  test: np.ndarray
  vocabulary: vocabulary_lib.Vocabulary


def kjv() -> Corpus:
  """Returns the bytes of the King James Version, part of this package.

  The last 200,000 bytes are the test split, the 200,000 before validation.
  """
  content = dataset.read_checked(KJV, KJV_SHA256)
  return _split(np.frombuffer(content, np.uint8), KJV_HELD_OUT)


def enwik8(*, path: str) -> Corpus:
  """Returns the first 10^8 bytes of Wikipedia: 90, 5 and 5 million."""
  text = _read(_existing(path))
  if len(text) != ENWIK8_BYTES:
    raise ValueError(
      f'expected {ENWIK8_BYTES:,} bytes in {path}, got {len(text):,}: it is '
      'not enwik8, or truncated'
    )
  return _split(text, ENWIK8_HELD_OUT)


def wikitext103(*, path: str, cache_dir: str | None) -> Corpus:
  """Returns WikiText-103 by words, with its own splits and tokenization.

  `path` is the folder of `wiki.{train,valid,test}.tokens`, `cache_dir` one for
  tokens; None: `.tokens` in that folder.
  """
  files = [
    _existing(pathlib.Path(path, f'wiki.{name}.tokens'))
    for name in ('train', 'valid', 'test')
  ]
  digest = hashlib.sha256()
  for path in files:
    with path.open('rb') as stream:
      digest.update(hashlib.file_digest(stream, 'sha256').digest())
  folder = pathlib.Path(cache_dir or files[0].parent / '.tokens').expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f'expected a writable folder for tokens, got {folder} '
      f'({error.strerror}); give another as cache_dir'
    ) from error
  prefix = folder / f'{digest.hexdigest()[:16]}.wikitext103'
  return _encode([_read(path) for path in files], prefix)


def file(*, path: str, held_out: float) -> Corpus:
  """Returns the bytes of any file, unpacked if it is gzip's.

  The share `held_out` at the end is the test split, as much before validation.
  """
  if not 0 < held_out < 0.5:
    raise ValueError(f'expected held_out in (0, 0.5), got {held_out}')
  text = _read(_existing(path))
  num = int(held_out * len(text))
  if num < 2:
    raise ValueError(
      f'expected a text of which held_out={held_out} is 2 bytes or more, got '
      f'{len(text)} bytes in {path}'
    )
  return _split(text, num)


TEXTS = {
  'enwik8': enwik8, 'file': file, 'kjv': kjv, 'wikitext103': wikitext103,
}  # fmt: skip


def _split(text: np.ndarray, num: int) -> Corpus:
  """Returns a text with `num` bytes in each of validation and test."""
  cuts = [len(text) - 2 * num, len(text) - num]
  return Corpus(*np.split(text, cuts), vocabulary_lib.BYTES)


def _encode(texts: Sequence[np.memmap], prefix: pathlib.Path) -> Corpus:
  """Returns three splits by words, cached in files that begin `prefix`."""
  *paths, words = (
    prefix.with_name(f'{prefix.name}.{field}') for field in Corpus._fields
  )
  if not words.is_file():  # the last of the files to be written
    found = vocabulary_lib.count(_lines(texts[0]))
    for path, text in zip(paths, texts, strict=True):
      content = io.BytesIO()
      np.save(content, vocabulary_lib.encode(found, _lines(text)))
      rundir.write_bytes(path, content.getbuffer())
    rundir.write_bytes(words, vocabulary_lib.to_json(found))
  return Corpus(*map(_tokens, paths), vocabulary_lib.read(words))


def _tokens(path: pathlib.Path) -> np.ndarray:
  try:
    return np.load(path, mmap_mode='r')
  except (EOFError, ValueError) as error:
    raise ValueError(
      f'expected tokens in {path}, but: {error}; delete its folder'
    ) from error


def _lines(text: np.memmap) -> Iterator[str]:
  for number, line in enumerate(io.BytesIO(text), 1):
    try:
      yield line.decode('utf-8').removesuffix('\n')
    except UnicodeDecodeError as error:
      raise ValueError(
        f'expected a text in UTF-8 in {text.filename}, got other bytes in line '
        f'{number} ({error})'
      ) from error


def _read(path: pathlib.Path) -> np.ndarray:
  """Returns the bytes of a file, or those that gzip or a .zip packs."""
  try:
    if path.suffix == '.zip':
      text = np.frombuffer(zipfile.ZipFile(path).read(path.stem), np.uint8)
    elif path.suffix == '.gz' or _is_gzip(path):
      text = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    else:  # an empty file cannot be mapped
      text = np.memmap(path, np.uint8, 'r') if path.stat().st_size else ()
  except KeyError as error:
    raise ValueError(f'expected {path.stem} in {path}: {error}') from error
  except (*dataset.BAD_GZIP, zipfile.BadZipFile) as error:
    raise ValueError(
      f'expected a whole archive in {path}, got one that is truncated or '
      f'damaged: {error}'
    ) from error
  if not len(text):
    raise ValueError(f'expected a text in {path}, got 0 bytes')
  return text


def _is_gzip(path: pathlib.Path) -> bool:
  with path.open('rb') as stream:
    return stream.read(2) == b'\x1f\x8b'


def _existing(path: str | os.PathLike[str]) -> pathlib.Path:
  found = pathlib.Path(path).expanduser()
  if not found.is_file():
    beside = sorted(x.name for x in found.parent.glob('*'))[:8]
    raise ValueError(
      f'expected a file {found}; there is none (in its folder: '
      f'{", ".join(beside) or "nothing"})'
    )
  return found
