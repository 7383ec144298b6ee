import gzip
import zipfile

import numpy as np
import pytest

from experiments.data import text
from experiments.data import vocabulary

TEXT = b'the cat sat .\n' * 60


def test_the_shipped_text_is_cut_where_its_readme_says():
  corpus = text.kjv()
  sizes = [len(x) for x in corpus[:3]]
  assert sizes == [3_898_239, 200_000, 200_000]
  whole = gzip.decompress(text.KJV.read_bytes())
  assert b''.join(x.tobytes() for x in corpus[:3]) == whole
  readme = text.KJV.with_name('README.md').read_text()
  assert 'public domain' in readme
  assert '3,898,239' in readme


def test_enwik8_is_read_from_its_archive(tmp_path, monkeypatch):
  monkeypatch.setattr(text, 'ENWIK8_BYTES', 1000)
  monkeypatch.setattr(text, 'ENWIK8_HELD_OUT', 50)
  content = np.random.default_rng(0).bytes(1000)
  path = tmp_path / 'enwik8.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('enwik8', content)
  corpus = text.enwik8(path=str(path))
  assert b''.join(x.tobytes() for x in corpus[:3]) == content
  assert [len(x) for x in corpus[:3]] == [900, 50, 50]


def test_another_file_than_enwik8_is_an_error(tmp_path):
  path = tmp_path / 'enwik8'
  path.write_bytes(b'x' * 99)
  with pytest.raises(ValueError, match=r'100,000,000 bytes .* got 99'):
    text.enwik8(path=str(path))
  with zipfile.ZipFile(tmp_path / 'enwik8.zip', 'w') as archive:
    archive.writestr('other', 'x')
  with pytest.raises(ValueError, match=r'expected enwik8 in .*enwik8\.zip'):
    text.enwik8(path=str(tmp_path / 'enwik8.zip'))


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
  [path] = (wikitext / '.tokens').glob('*.test')
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match=f'expected tokens in {path}, but'):
    text.wikitext103(path=str(wikitext), cache_dir=None)
  (wikitext / 'wiki.train.tokens').write_text('a b\n')
  corpus = text.wikitext103(path=str(wikitext), cache_dir=None)
  assert corpus.vocabulary.words == ('<eos>', '<unk>', 'a', 'b')


def test_a_missing_or_bad_token_file_is_named(wikitext):
  taken = str(wikitext / 'wiki.test.tokens/x')
  with pytest.raises(ValueError, match='give another as cache_dir'):
    text.wikitext103(path=str(wikitext), cache_dir=taken)
  (wikitext / 'wiki.train.tokens').write_bytes(b'\xff\n')
  with pytest.raises(
    ValueError, match=r'wiki\.train\.tokens, got other bytes in line 1'
  ):
    text.wikitext103(path=str(wikitext), cache_dir=None)
  (wikitext / 'wiki.valid.tokens').unlink()
  with pytest.raises(
    ValueError,
    match=r'expected a file .*wiki\.valid\.tokens; .*wiki\.test\.tokens',
  ):
    text.wikitext103(path=str(wikitext), cache_dir=None)


def read(path, held_out=0.1):
  return text.file(path=str(path), held_out=held_out)


@pytest.mark.parametrize('suffix', ['.txt', '.gz', '.dict.dz'])
def test_any_file_may_be_read(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  path.write_bytes(TEXT if suffix == '.txt' else gzip.compress(TEXT))
  corpus = read(path)
  assert b''.join(x.tobytes() for x in corpus[:3]) == TEXT
  assert len(corpus.test) == len(corpus.validation) == len(TEXT) // 10
  assert corpus.vocabulary == vocabulary.BYTES


@pytest.mark.parametrize(
  ('suffix', 'content', 'held_out', 'message'),
  [
    ('gz', gzip.compress(TEXT, mtime=0)[:-20], 0.1, r'truncated or\s+damaged'),
    ('txt', b'', 0.1, 'got 0 bytes'),
    ('txt', b'abc', 0.1, r'of which held_out=0.1 is 2 bytes or more, got 3'),
    ('txt', b'a' * 100, 0.5, r'held_out in \(0, 0.5\), got 0.5'),
  ],
)
def test_a_bad_text_is_an_error(tmp_path, suffix, content, held_out, message):
  path = tmp_path / f'a.{suffix}'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    read(path, held_out)
