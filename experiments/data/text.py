"""Texts as tokens: three long arrays, memory-mapped where they are large.

Each constructor takes one section of a config. Tokens that must be computed are
cached in files named after the digest of their source, so a changed text or
vocabulary never meets old tokens.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import gzip
import hashlib
import io
import os
import pathlib
import shutil
from typing import IO
from typing import NamedTuple
import zipfile
import zlib

import numpy as np

from experiments.data import dataset
from experiments.data import vocabulary as vocabulary_lib

FILES = pathlib.Path(__file__).parent / 'files' / 'kjv'
KJV_SHA256 = 'eb96496e9ab2f1e34922e463eadf665e061cebd9b17cd101ba013d28b9103039'
KJV_HELD_OUT = 200_000  # bytes, of each of validation and test

ENWIK8_BYTES = 100_000_000
ENWIK8_HELD_OUT = 5_000_000

SPLITS = ('train', 'validation', 'test')


class Corpus(NamedTuple):
  """A text as tokens."""

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
  """Returns the King James Version, which is part of this package.

  The last 200,000 bytes are the test split, the 200,000 before validation.

  Args:
    unit: 'byte' | 'word'.
    max_words: see `vocabulary.count`; None for bytes.
    directory: folder of the file.

  Raises:
    ValueError: If the file is missing, truncated or altered.
  """
  path = pathlib.Path(directory) / 'kjv.txt.gz'
  content = gzip.decompress(dataset.read_checked(path, KJV_SHA256))
  text = np.frombuffer(content, np.uint8)
  return _by_unit(text, KJV_HELD_OUT, unit, max_words, lambda: None)


def enwik8(*, path: str, cache_dir: str | None) -> Corpus:
  """Returns the first 10^8 bytes of Wikipedia: 90, 5 and 5 million.

  Args:
    path: `enwik8` or `enwik8.zip`.
    cache_dir: where an archive is unpacked, once; None: beside it.

  Raises:
    ValueError: If there is no such file, or not of 10^8 bytes.
  """
  text = _map_bytes(_unpacked(_existing(path), cache_dir, 'enwik8'))
  if len(text) != ENWIK8_BYTES:
    raise ValueError(
      f'expected {ENWIK8_BYTES:,} bytes in {path}, got {len(text):,}: it is '
      'not enwik8, or truncated'
    )
  return Corpus(*_cut(text, ENWIK8_HELD_OUT), vocabulary_lib.BYTES)


def wikitext103(*, path: str, cache_dir: str | None) -> Corpus:
  """Returns WikiText-103 by words, with its own splits and tokenization.

  Args:
    path: the folder of `wiki.{train,valid,test}.tokens`.
    cache_dir: where tokens are cached; None: in that folder.

  Raises:
    ValueError: If a file is missing or not UTF-8.
  """
  folder = pathlib.Path(path).expanduser()
  files = [
    _existing(folder / f'wiki.{name}.tokens')
    for name in ('train', 'valid', 'test')
  ]
  prefix = _cache_path(files[0], cache_dir, f'{_digest(*files)}.wikitext103')
  return _by_word([_map_bytes(file) for file in files], 'space', None, prefix)


def file(
  *,
  path: str,
  unit: str,
  max_words: int | None,
  held_out: float,
  cache_dir: str | None,
) -> Corpus:
  """Returns any text; a name that ends in `.gz` is unpacked.

  Args:
    path: the file; UTF-8 if read by words.
    unit: 'byte' | 'word'.
    max_words: see `vocabulary.count`; None for bytes.
    held_out: share of the bytes, at the end, for each of validation and test.
    cache_dir: where tokens are cached; None: beside the file.

  Raises:
    ValueError: If there is no such file, or it does not fit the arguments.
  """
  if not 0 < held_out < 0.5:
    raise ValueError(f'expected held_out in (0, 0.5), got {held_out}')
  source = _existing(path)
  text = _map_bytes(_unpacked(source, cache_dir, source.stem))
  num = int(held_out * len(text))
  if num < 2:
    raise ValueError(
      f'expected a text of which held_out={held_out} is 2 bytes or more, got '
      f'{len(text)} bytes in {path}'
    )

  def prefix():
    name = f'{_digest(source)}.words.{num}.{max_words}'
    return _cache_path(source, cache_dir, name)

  return _by_unit(text, num, unit, max_words, prefix)


TEXTS = {
  'enwik8': enwik8,
  'file': file,
  'kjv': kjv,
  'wikitext103': wikitext103,
}


def _by_unit(
  text: np.ndarray,
  num: int,
  unit: str,
  max_words: int | None,
  prefix: Callable[[], pathlib.Path | None],
) -> Corpus:
  """Returns a text, about `num` bytes in validation and in test.

  Words are cut at the end of a line.
  """
  if unit not in vocabulary_lib.UNITS:
    raise ValueError(
      f'expected unit, one of {vocabulary_lib.UNITS}, got {unit!r}'
    )
  if unit == 'byte':
    if max_words is not None:
      raise ValueError(
        f"expected max_words None with unit='byte', got {max_words}"
      )
    return Corpus(*_cut(text, num), vocabulary_lib.BYTES)
  begins = np.flatnonzero(text == ord('\n')) + 1  # of lines
  cuts = np.searchsorted(begins, [len(text) - 2 * num, len(text) - num])
  cuts = begins[np.minimum(cuts, len(begins) - 1)] if len(begins) else [0, 0]
  if not 0 < cuts[0] < cuts[1] < len(text):
    raise ValueError(
      f'expected a text with lines shorter than {num} bytes, to be cut into '
      "splits between them, got longer ones; take unit='byte'"
    )
  return _by_word(np.split(text, cuts), 'punctuation', max_words, prefix())


def _by_word(
  texts: list[np.ndarray],
  split: str,
  max_words: int | None,
  prefix: pathlib.Path | None,
) -> Corpus:
  """Returns the words of three splits, cached in files that begin `prefix`."""
  if prefix is None:
    vocabulary = vocabulary_lib.count(
      _lines(texts[0]), split=split, max_words=max_words
    )
    tokens = [vocabulary_lib.encode(vocabulary, _lines(t)) for t in texts]
    return Corpus(*tokens, vocabulary)
  paths = [pathlib.Path(f'{prefix}.{name}.npy') for name in SPLITS]
  vocabulary_path = pathlib.Path(f'{prefix}.vocabulary.json')
  if not all(path.is_file() for path in (*paths, vocabulary_path)):
    corpus = _by_word(texts, split, max_words, None)
    for path, tokens in zip(paths, corpus, strict=False):
      with _written(path) as stream:
        np.save(stream, tokens)
    with _written(vocabulary_path) as stream:
      stream.write(vocabulary_lib.to_json(corpus.vocabulary))
  tokens = [_map_tokens(path) for path in paths]
  return Corpus(*tokens, vocabulary_lib.read(vocabulary_path))


def _cut(text: np.ndarray, num: int) -> tuple[np.ndarray, ...]:
  return text[: -2 * num], text[-2 * num : -num], text[-num:]


def _lines(text: np.ndarray) -> Iterator[str]:
  for number, line in enumerate(io.BytesIO(text), 1):
    try:
      yield line.decode('utf-8').removesuffix('\n')
    except UnicodeDecodeError as error:
      raise ValueError(
        f'expected a text in UTF-8, got other bytes in line {number} '
        f"({error}); unit='byte' takes any file"
      ) from error


def _map_bytes(path: pathlib.Path) -> np.ndarray:
  if not path.stat().st_size:
    raise ValueError(f'expected a text in {path}, got 0 bytes')
  return np.memmap(path, np.uint8, mode='r')


def _map_tokens(path: pathlib.Path) -> np.ndarray:
  try:
    return np.load(path, mmap_mode='r')
  except (ValueError, EOFError) as error:
    raise ValueError(
      f'expected tokens in {path}, got a damaged file ({error}); delete it'
    ) from error


def _digest(*paths: pathlib.Path) -> str:
  total = hashlib.sha256()
  for path in paths:
    with path.open('rb') as stream:
      total.update(hashlib.file_digest(stream, 'sha256').digest())
  return total.hexdigest()[:16]


def _cache_path(
  source: pathlib.Path, cache_dir: str | None, name: str
) -> pathlib.Path:
  if cache_dir is None:
    return source.parent / '.tokens' / name
  return pathlib.Path(cache_dir).expanduser() / name


def _unpacked(
  source: pathlib.Path, cache_dir: str | None, member: str
) -> pathlib.Path:
  """Returns the unpacked content of a .gz or .zip file, or the file itself."""
  if source.suffix not in ('.gz', '.zip'):
    return source
  path = _cache_path(source, cache_dir, f'{_digest(source)}.{member}.bytes')
  if path.is_file():
    return path
  try:
    with contextlib.ExitStack() as stack:
      if source.suffix == '.zip':
        archive = stack.enter_context(zipfile.ZipFile(source))
        packed = stack.enter_context(archive.open(member))
      else:
        packed = stack.enter_context(gzip.open(source))
      shutil.copyfileobj(packed, stack.enter_context(_written(path)))
  except KeyError as error:
    names = ', '.join(archive.namelist())
    raise ValueError(f'expected {member} in {source}, got {names}') from error
  except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(
      f'expected a whole archive in {source}, got one that is truncated or '
      f'damaged: {error}'
    ) from error
  return path


@contextlib.contextmanager
def _written(path: pathlib.Path) -> Iterator[IO[bytes]]:
  """Opens a file that gets its name only once it is complete."""
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = partial.open('wb')
  except OSError as error:
    raise ValueError(
      f'expected a writable folder for tokens, got {path.parent} '
      f'({error.strerror}); give another as cache_dir'
    ) from error
  try:
    with stream:
      yield stream
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def _existing(path: str | os.PathLike[str]) -> pathlib.Path:
  found = pathlib.Path(path).expanduser()
  if not found.is_file():
    beside = sorted(x.name for x in found.parent.glob('*'))[:8]
    raise ValueError(
      f'expected a file {found}; there is none (in its folder: '
      f'{", ".join(beside) or "nothing"})'
    )
  return found
