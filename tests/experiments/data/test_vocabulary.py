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
  found = vocabulary.count(lines)
  assert found.words == ('<eos>', '<unk>', *expected)


@pytest.mark.parametrize('num', [256, 257, 70_000])
def test_tokens_are_of_the_smallest_type_that_holds_them(num):
  words = ('<eos>', '<unk>', *(f'w{i}' for i in range(num - 2)))
  found = vocabulary.Vocabulary('word', words)
  tokens = vocabulary.encode(found, f'{words[-1]} zzz\n')
  assert tokens.tolist() == [num - 1, 1, 0]
  assert tokens.dtype.itemsize == (1 if num <= 256 else 2 if num < 2**16 else 4)


def test_text_comes_back_from_words_and_bytes():
  text = 'a b\n\nb a\n'
  found = vocabulary.count(text.split('\n'))
  assert vocabulary.decode(found, vocabulary.encode(found, text)) == text
  tokens = vocabulary.encode(vocabulary.BYTES, 'é')
  np.testing.assert_array_equal(tokens, [0xC3, 0xA9])
  assert vocabulary.decode(vocabulary.BYTES, tokens) == 'é'
  assert vocabulary.decode(vocabulary.BYTES, [65, 255, 66]) == 'A\ufffdB'


def test_a_saved_vocabulary_is_read_back(tmp_path):
  found = vocabulary.count(['é "x" \\ y'])
  path = tmp_path / 'vocabulary.json'
  path.write_bytes(vocabulary.to_json(found))
  assert vocabulary.read(path) == found


@pytest.mark.parametrize(
  'content', [None, '{"unit": "word"', '[]', '{"unit": "x", "words": []}']
)
def test_a_file_that_is_no_vocabulary_is_an_error(tmp_path, content):
  path = tmp_path / 'vocabulary.json'
  if content is not None:
    path.write_text(content)
  with pytest.raises(ValueError, match=r'expected a vocabulary in .*vocab'):
    vocabulary.read(path)
