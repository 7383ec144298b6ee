"""Text from a model equals the text of a slow way, without memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sample
from experiments.data import vocabulary as vocabulary_lib
from tests.experiments import small

V = 11
PROMPT = np.array([3, 1, 4, 1, 5])


@pytest.fixture(scope='module')
def network():
  return small.transformer(vocab_size=V)


def draw(network, **changes):
  arguments = {
    'length': 8, 'memory_len': 16, 'segment_len': 2, 'temperature': 1.0,
    'seed': 0,
  }  # fmt: skip
  return sample.sample(*network, PROMPT, **{**arguments, **changes})


@pytest.fixture(scope='module')
def likeliest(network):
  """The likeliest continuation, by `sample`."""
  return draw(network, temperature=0.0)


def test_at_temperature_zero_the_likeliest_token_is_taken(network, likeliest):
  model, weights = network
  tokens = np.concatenate([PROMPT, likeliest])
  # A row for each candidate of the next token, with the whole text before it.
  inputs = np.tile(tokens[:-1], (V, 1))
  candidates = np.broadcast_to(np.arange(V)[:, None], inputs.shape)
  nll, _ = jax.jit(model.apply, static_argnums=5)(
    weights, model.memory(V, 1), None, inputs, candidates, False
  )
  expected = np.argmin(nll, 0)[len(PROMPT) - 1 :]
  np.testing.assert_array_equal(likeliest, expected)
  assert len(set(tokens)) > 2


@pytest.mark.parametrize(
  'changes', [{'segment_len': 16, 'temperature': 0.0}, {'temperature': 1e-6}]
)
def test_segments_and_a_small_temperature_change_nothing(
  network, likeliest, changes
):
  np.testing.assert_array_equal(draw(network, **changes), likeliest)


def test_tokens_are_drawn_with_their_probabilities():
  probs = jnp.array([0.2, 0.5, 0.3])

  class Model:
    memory = staticmethod(lambda *_: ())
    predict = staticmethod(lambda *_: (jnp.log(probs)[None], ()))

  tokens = draw((Model, ()), length=4_000, temperature=2.0)
  shares = np.bincount(tokens) / 4_000
  expected = jnp.sqrt(probs) / jnp.sqrt(probs).sum()
  np.testing.assert_allclose(shares, expected, atol=0.03)


def test_a_prompt_of_words_goes_on_in_its_line():
  words = vocabulary_lib.Vocabulary('word', ('<eos>', '<unk>', 'a'))
  np.testing.assert_array_equal(sample.encode(words, 'a a'), [2, 2])
  np.testing.assert_array_equal(sample.encode(words, 'a\n'), [2, 0])
  with pytest.raises(ValueError, match='a new line is one'):
    sample.encode(words, '')


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run of a tiny model."""
  folder = tmp_path_factory.mktemp('sample')
  file = folder / 'text.txt'
  file.write_text('the quick brown fox jumps over the lazy dog\n' * 5)
  small.train(small.language(file), folder / 'run')
  return folder / 'run'


def test_the_command_prints_the_prompt_and_its_continuation(workdir, capsys):
  arguments = [f'--workdir={workdir}', '--prompt=the q', '--length=7']
  assert sample.main(arguments) == 0
  first = capsys.readouterr().out
  assert first.startswith('the q')
  assert sample.main(arguments) == 0
  assert capsys.readouterr().out == first


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--prompt=', 'at least one token'),
    ('--temperature=-1', 'expected temperature >= 0'),
  ],
)
def test_a_bad_argument_is_an_error(workdir, capsys, argument, message):
  arguments = [f'--workdir={workdir}', argument]
  assert sample.main(arguments) == sample.USER_ERROR
  error = capsys.readouterr().err
  assert error.startswith('experiments.sample: ')
  assert message in error
