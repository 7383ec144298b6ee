"""Files of tokens: written once, whole or not at all, and mapped to memory."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import gzip
import hashlib
import itertools
import os
import pathlib
from typing import IO
from typing import Any
import zipfile
import zlib

import numpy as np

from experiments.data import vocabulary as vocabulary_lib

_LINES = 10_000  # encoded at a time


def map_file(path: pathlib.Path, dtype=np.uint8) -> np.ndarray:
  """Returns a file as an array that is read where it is used, [N].

  Raises:
    ValueError: If the file holds nothing, or half a token.
  """
  size, width = path.stat().st_size, np.dtype(dtype).itemsize
  if not size or size % width:
    raise ValueError(
      f'expected tokens of {width} bytes in {path}, got {size} bytes; delete '
      'or replace it'
    )
  return np.memmap(path, dtype, mode='r')


def digest(*paths: pathlib.Path) -> str:
  """Returns what the contents of files are known by."""
  found = hashlib.sha256()
  for path in paths:
    with open(path, 'rb') as file:
      found.update(hashlib.file_digest(file, 'sha256').digest())
  return found.hexdigest()[:16]


def cache_folder(source: pathlib.Path, cache_dir: str | None) -> pathlib.Path:
  """Returns where the tokens of a file are kept: beside it by default."""
  if cache_dir is None:
    return source.parent / '.tokens'
  return pathlib.Path(cache_dir).expanduser()


def cached(
  source: pathlib.Path,
  cache_dir: str | None,
  name: str,
  chunks: Iterable[bytes],
) -> pathlib.Path:
  """Returns a file of `chunks`, which are read the first time only."""
  folder = cache_folder(source, cache_dir)
  path = folder / f'{digest(source)}.{name}'
  if not path.is_file():
    write(path, chunks)
  return path


def write(path: pathlib.Path, chunks: Iterable[bytes]) -> None:
  """Writes a file, at once or not at all.

  Raises:
    ValueError: If the folder cannot be written to.
  """
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(partial, 'wb')  # noqa: SIM115
  except OSError as error:
    raise ValueError(
      f'expected a folder for tokens that can be written, got {path.parent} '
      f'({error.strerror}); give another as cache_dir'
    ) from error
  try:
    with file:
      for chunk in chunks:
        file.write(chunk)
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def encode_splits(
  make_corpus: Callable[..., Any],
  lines: Callable[[str], Iterator[str]],
  *,
  key: str,
  folder: pathlib.Path | None,
  name: str,
  split: str | None,
  max_words: int | None,
) -> Any:
  """Returns a corpus whose splits are files of tokens, made the first time.

  Args:
    make_corpus: (train, validation, test, vocabulary) -> corpus.
    lines: yields the lines of a split, without their ends.
    key: what the contents are known by.
    folder: where the files are; None: nowhere, the tokens are in memory.
    name: of the data set.
    split: how words are told apart; None: tokens are bytes.
    max_words: see `vocabulary.count`.
  """
  if split is None:
    vocabulary = vocabulary_lib.BYTES
  else:
    vocabulary = _counted(lines, f'{key}.{name}', folder, split, max_words)
  arrays = []
  for part in ('train', 'validation', 'test'):
    chunks = _encoded(lines(part), vocabulary)
    if folder is None:
      arrays.append(np.frombuffer(b''.join(chunks), vocabulary.dtype))
      continue
    path = folder / f'{key}.{name}.{part}'
    if not path.is_file():
      write(path, chunks)
    arrays.append(map_file(path, vocabulary.dtype))
  return make_corpus(*arrays, vocabulary)


def decoded(file: IO[bytes]) -> Iterator[str]:
  """Yields the lines of a file in UTF-8, without their ends.

  Raises:
    ValueError: If it is not UTF-8.
  """
  for number, line in enumerate(file, 1):
    try:
      yield line.decode('utf-8').removesuffix('\n')
    except UnicodeDecodeError as error:
      raise ValueError(
        f'expected a text in UTF-8, got other bytes in line {number} '
        f"({error}); unit='byte' takes any file"
      ) from error


def unzipped(path: pathlib.Path, member: str) -> Iterator[bytes]:
  """Yields what is in one member of a zip archive."""
  with zipfile.ZipFile(path) as archive:
    if member not in archive.namelist():
      raise ValueError(
        f'expected {member} in {path}, got {", ".join(archive.namelist())}'
      )
    with archive.open(member) as stream:
      yield from _chunks(stream, path)


def gunzipped(path: pathlib.Path) -> Iterator[bytes]:
  """Yields what is in a gzip archive."""
  with gzip.open(path) as stream:
    yield from _chunks(stream, path)


def _chunks(stream, path) -> Iterator[bytes]:
  try:
    while chunk := stream.read(1 << 22):
      yield chunk
  except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(
      f'expected a whole archive in {path}, got one that is truncated or '
      f'damaged: {error}'
    ) from error


def _counted(lines, name, folder, split, max_words):
  """Returns the vocabulary of the split 'train', counted the first time."""
  path = folder and folder / f'{name}.vocabulary.json'
  if path and path.is_file():
    return vocabulary_lib.read(path)
  vocabulary = vocabulary_lib.count(
    lines('train'), split=split, max_words=max_words
  )
  if path:
    write(path, [vocabulary_lib.to_json(vocabulary)])
  return vocabulary


def _encoded(lines: Iterator[str], vocabulary) -> Iterator[bytes]:
  while several := list(itertools.islice(lines, _LINES)):
    text = ''.join(f'{line}\n' for line in several)
    yield vocabulary_lib.encode(vocabulary, text).tobytes()
