import collections
import random

import numpy as np
import pytest

from experiments.data import vocabulary


def test_words_are_ordered_by_frequency_then_by_first_occurrence():
  generator = random.Random(0)
  flat = generator.choices([f'w{i}' for i in range(40)], k=350)
  times = collections.Counter(flat)
  expected = sorted(times, key=lambda word: (-times[word], flat.index(word)))
  lines = [' '.join(flat[i : i + 7]) for i in range(0, 350, 7)]
  found = vocabulary.count(lines, split='space', max_words=None)
  assert found.words == ('<eos>', '<unk>', *expected)


def test_a_full_vocabulary_keeps_a_place_for_the_unknown():
  lines = ['a a a b b c <unk>']
  found = vocabulary.count(lines, split='space', max_words=3)
  assert found.words == ('<eos>', 'a', '<unk>')
  assert vocabulary.encode(found, 'a b c\n').tolist() == [1, 2, 2, 0]


@pytest.mark.parametrize('num', [256, 257, 70_000])
def test_tokens_are_of_the_smallest_type_that_holds_them(num):
  words = ('<eos>', '<unk>', *(f'w{i}' for i in range(num - 2)))
  found = vocabulary.Vocabulary('word', 'space', words)
  tokens = vocabulary.encode(found, f'{words[-1]} zzz\n')
  assert tokens.tolist() == [num - 1, 1, 0]
  assert tokens.dtype.itemsize == (1 if num <= 256 else 2 if num < 2**16 else 4)


def test_lines_come_back_from_words():
  text = 'a b\n\nb a\n'
  found = vocabulary.count(text.split('\n'), split='space', max_words=None)
  assert vocabulary.decode(found, vocabulary.encode(found, text)) == text


def test_bytes_that_are_no_text_are_replaced_when_shown():
  assert vocabulary.decode(vocabulary.BYTES, [65, 255, 66]) == 'A\ufffdB'
  tokens = vocabulary.encode(vocabulary.BYTES, 'é')
  np.testing.assert_array_equal(tokens, [0xC3, 0xA9])
  assert vocabulary.decode(vocabulary.BYTES, tokens) == 'é'


def test_a_saved_vocabulary_is_read_back(tmp_path):
  found = vocabulary.count(['é "x" \\ y'], split='punctuation', max_words=None)
  path = tmp_path / 'vocabulary.json'
  path.write_bytes(vocabulary.to_json(found))
  assert vocabulary.read(path) == found
  vocabulary.check_same(vocabulary.read(path), found, path)


@pytest.mark.parametrize(
  'content', [None, '{"unit": "word"', '[]', '{"unit": "x", "words": []}']
)
def test_a_file_that_is_no_vocabulary_is_an_error(tmp_path, content):
  path = tmp_path / 'vocabulary.json'
  if content is not None:
    path.write_text(content)
  with pytest.raises(ValueError, match=r'expected a vocabulary in .*vocab'):
    vocabulary.read(path)


def test_another_vocabulary_than_the_runs_is_an_error():
  one = vocabulary.Vocabulary('word', 'space', ('<eos>', '<unk>', 'a'))
  other = one._replace(words=('<eos>', '<unk>', 'b'))
  with pytest.raises(ValueError, match="token 2 is 'a' there, 'b' now"):
    vocabulary.check_same(one, other, 'x.json')
  with pytest.raises(ValueError, match=r'3 tokens .* there, 256 .* now'):
    vocabulary.check_same(one, vocabulary.BYTES, 'x.json')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'split': 'letters', 'max_words': None}, "got 'letters'"),
    ({'split': 'space', 'max_words': 2}, 'max_words >= 3 or None, got 2'),
  ],
)
def test_bad_arguments_are_errors(arguments, message):
  with pytest.raises(ValueError, match=message):
    vocabulary.count(['a'], **arguments)
