import gzip
import zipfile

import numpy as np
import pytest

from experiments.data import text
from experiments.data import vocabulary as vocabulary_lib

LINES = ['the cat sat .', '', 'the dog , the cat', "don't stop"] * 30
TEXT = '\n'.join(LINES) + '\n'


def file_section(path, **changes):
  section = {
    'path': str(path),
    'unit': 'byte',
    'max_words': None,
    'held_out': 0.1,
    'cache_dir': None,
  }
  return {**section, **changes}


def test_the_shipped_text_is_cut_where_its_readme_says():
  corpus = text.kjv(unit='byte', max_words=None)
  sizes = [len(x) for x in corpus[:3]]
  assert sizes == [3_898_239, 200_000, 200_000]
  whole = gzip.decompress(text.KJV.read_bytes())
  assert b''.join(x.tobytes() for x in corpus[:3]) == whole
  assert corpus.vocabulary.size == 256
  readme = text.KJV.with_name('README.md').read_text()
  assert 'public domain' in readme
  assert '3,898,239' in readme


def test_the_shipped_text_is_checked_before_it_is_used(tmp_path, monkeypatch):
  content = bytearray(text.KJV.read_bytes())
  content[4] ^= 1  # the time stamp: gzip does not mind
  path = tmp_path / 'kjv.txt.gz'
  path.write_bytes(content)
  monkeypatch.setattr(text, 'KJV', path)
  with pytest.raises(ValueError, match=text.KJV_SHA256):
    text.kjv(unit='byte', max_words=None)


def test_enwik8_is_90_5_and_5_million_bytes(tmp_path):
  path = tmp_path / 'enwik8'
  with path.open('wb') as file:  # sparse: it takes no space
    file.truncate(10**8)
    file.seek(10**8 - 1)
    file.write(b'x')
  corpus = text.enwik8(path=str(path), cache_dir=None)
  assert [len(x) for x in corpus[:3]] == [90_000_000, 5_000_000, 5_000_000]
  assert corpus.test[-1] == ord('x')
  assert isinstance(corpus.train, np.memmap)
  assert [x.name for x in tmp_path.iterdir()] == ['enwik8']  # mapped in place


def test_enwik8_is_unpacked_once_from_its_archive(tmp_path, monkeypatch):
  monkeypatch.setattr(text, 'ENWIK8_BYTES', 1000)
  monkeypatch.setattr(text, 'ENWIK8_HELD_OUT', 50)
  content = np.random.default_rng(0).bytes(1000)
  path = tmp_path / 'enwik8.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('enwik8', content)
  first = text.enwik8(path=str(path), cache_dir=str(tmp_path / 'cache'))
  [made] = (tmp_path / 'cache').iterdir()
  stamp = made.stat().st_mtime_ns
  second = text.enwik8(path=str(path), cache_dir=str(tmp_path / 'cache'))
  for corpus in (first, second):
    assert b''.join(x.tobytes() for x in corpus[:3]) == content
    assert [len(x) for x in corpus[:3]] == [900, 50, 50]
  assert made.stat().st_mtime_ns == stamp


def test_another_file_than_enwik8_is_an_error(tmp_path):
  path = tmp_path / 'enwik8'
  path.write_bytes(b'x' * 99)
  with pytest.raises(ValueError, match=r'100,000,000 bytes .* got 99'):
    text.enwik8(path=str(path), cache_dir=None)
  with zipfile.ZipFile(tmp_path / 'enwik8.zip', 'w') as archive:
    archive.writestr('other', 'x')
  with pytest.raises(ValueError, match=r'expected enwik8 in .* got other'):
    text.enwik8(path=str(tmp_path / 'enwik8.zip'), cache_dir=None)


@pytest.fixture
def wikitext(tmp_path):
  parts = {
    'train': ' \n = Title = \n \n the the cat <unk> \u2028 sat \n',
    'valid': ' the cat \n',
    'test': ' the dog \n',
  }
  for name, content in parts.items():
    (tmp_path / f'wiki.{name}.tokens').write_text(content, encoding='utf-8')
  return tmp_path


def test_wikitext_is_counted_as_the_original_is(wikitext):
  corpus = text.wikitext103(path=str(wikitext), cache_dir=None)
  words = corpus.vocabulary.words
  # Most frequent first, of equals the first; <unk> is a word of this text.
  assert words == ('<eos>', '=', 'the', 'Title', 'cat', '<unk>', 'sat')
  read = [[words[i] for i in split] for split in corpus[:3]]
  first = '<eos> = Title = <eos> <eos> the the cat <unk> sat <eos>'
  assert read[0] == first.split()
  assert read[1:] == [['the', 'cat', '<eos>'], ['the', '<unk>', '<eos>']]


def test_tokens_are_made_once_and_anew_for_another_text(wikitext):
  def stamps():
    cache = wikitext / '.tokens'
    return {path: path.stat().st_mtime_ns for path in cache.iterdir()}

  text.wikitext103(path=str(wikitext), cache_dir=None)
  before = stamps()
  assert len(before) == 4  # three splits and the vocabulary
  text.wikitext103(path=str(wikitext), cache_dir=None)
  assert stamps() == before
  (wikitext / 'wiki.train.tokens').write_text('a b\n')
  corpus = text.wikitext103(path=str(wikitext), cache_dir=None)
  assert corpus.vocabulary.words == ('<eos>', '<unk>', 'a', 'b')


def test_a_missing_token_file_says_what_is_there(wikitext):
  (wikitext / 'wiki.valid.tokens').unlink()
  with pytest.raises(
    ValueError,
    match=r'expected a file .*wiki\.valid\.tokens; .*wiki\.test\.tokens',
  ):
    text.wikitext103(path=str(wikitext), cache_dir=None)


@pytest.mark.parametrize(
  ('unit', 'suffix'), [('byte', '.txt'), ('word', '.txt'), ('word', '.gz')]
)
def test_any_text_may_be_read(tmp_path, unit, suffix):
  content = TEXT.encode()
  path = tmp_path / f'a{suffix}'
  path.write_bytes(gzip.compress(content) if suffix == '.gz' else content)
  corpus = text.file(**file_section(path, unit=unit))
  decoded = [
    vocabulary_lib.decode(corpus.vocabulary, split) for split in corpus[:3]
  ]
  if unit == 'byte':
    assert ''.join(decoded) == TEXT
    assert len(corpus.test) == len(corpus.validation) == len(TEXT) // 10
  else:
    assert ''.join(decoded).split() == TEXT.split()
  assert all(len(split) > 20 for split in corpus[:3])


def test_words_are_cut_where_lines_end_even_beside_long_letters(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('ééééé ø\n' * 50, encoding='utf-8')
  for held_out in (0.1, 0.11, 0.12, 0.13):
    corpus = text.file(**file_section(path, unit='word', held_out=held_out))
    assert [x[-1] for x in corpus[:3]] == [0, 0, 0]  # <eos>
    assert sum(map(len, corpus[:3])) == 150


@pytest.mark.parametrize(
  ('content', 'changes', 'message'),
  [
    (b'', {}, 'got 0 bytes'),
    (b'abc', {}, r'of which held_out=0.1 is 2 bytes or more, got 3'),
    (b'\xff\n' * 100, {'unit': 'word'}, r"line 1 .*unit='byte' takes any"),
    (b'a' * 100, {'unit': 'word'}, 'with lines shorter than 10 bytes'),
    (b'a' * 100, {'unit': 'char'}, r"unit, one of .* got 'char'"),
    (b'a' * 100, {'max_words': 5}, "max_words None with unit='byte'"),
    (b'a' * 100, {'held_out': 0.5}, r'held_out in \(0, 0.5\), got 0.5'),
  ],
)
def test_a_bad_text_is_an_error(tmp_path, content, changes, message):
  path = tmp_path / 'a.txt'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    text.file(**file_section(path, **changes))


def test_a_truncated_archive_is_an_error_and_leaves_nothing(tmp_path):
  path = tmp_path / 'a.txt.gz'
  path.write_bytes(gzip.compress(TEXT.encode())[:-20])
  with pytest.raises(ValueError, match=r'truncated or\s+damaged'):
    text.file(**file_section(path))
  assert list((tmp_path / '.tokens').iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
  path = tmp_path / 'a.txt.gz'
  path.write_bytes(gzip.compress(TEXT.encode()))
  (tmp_path / 'taken').write_text('')
  with pytest.raises(ValueError, match='give another as cache_dir'):
    text.file(**file_section(path, cache_dir=str(tmp_path / 'taken/x')))
