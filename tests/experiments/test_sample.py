"""Text from a model equals what a slow way, without memory, gives."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import language
from configs import text_transformer_xl
from experiments import export
from experiments import sample
from experiments import table
from experiments.data import vocabulary as vocabulary_lib
from experiments.models import transformer_xl
import launch

V, D = 11, 8
MODEL = language.model(
  vocab_size=V,
  num_layers=2,
  d_model=D,
  num_heads=2,
  d_head=3,
  d_inner=10,
  dropout=0.0,
  attention_dropout=0.0,
  clamp_len=None,
)
PROMPT = np.array([3, 1, 4, 1, 5])


@pytest.fixture(scope='module')
def network():
  model = transformer_xl.transformer_xl(**MODEL)
  generator = np.random.default_rng(0)
  params = jax.eval_shape(model.init, jax.random.key(0))
  return model, jax.tree.map(
    lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), params
  )


def draw(network, **changes):
  arguments = {
    'length': 8,
    'memory_len': 16,
    'segment_len': 2,
    'temperature': 1.0,
    'top_p': 1.0,
    'seed': 0,
  }
  return sample.sample(*network, PROMPT, **{**arguments, **changes})


@pytest.mark.parametrize('segment_len', [2, 16])
def test_at_temperature_zero_the_likeliest_token_is_taken(network, segment_len):
  model, weights = network
  tokens = list(PROMPT)
  for _ in range(8):
    everything = np.array([tokens], np.int32)
    log_probs, _ = model.predict(weights, model.memory(1, 1), everything)
    tokens.append(int(jnp.argmax(log_probs[0])))
  found = draw(network, temperature=0.0, segment_len=segment_len)
  np.testing.assert_array_equal(found, tokens[len(PROMPT) :])
  assert len(set(tokens)) > 2


def test_a_small_temperature_or_top_p_is_like_zero(network):
  likeliest = draw(network, temperature=0.0)
  np.testing.assert_array_equal(draw(network, temperature=1e-4), likeliest)
  np.testing.assert_array_equal(draw(network, top_p=1e-6), likeliest)


def test_a_seed_gives_the_same_text_and_another_seed_another(network):
  one = draw(network, temperature=3.0, length=20)
  np.testing.assert_array_equal(one, draw(network, temperature=3.0, length=20))
  other = draw(network, temperature=3.0, length=20, seed=1)
  assert (one != other).any()


@pytest.mark.parametrize('top_p', [0.05, 0.3, 0.6, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_smallest_set(top_p):
  probs = np.random.default_rng(1).dirichlet(np.ones(30))
  kept = np.asarray(sample.is_likely(jnp.log(jnp.asarray(probs)), top_p))
  descending = np.sort(probs)[::-1]
  total, num = 0.0, 0
  while total < top_p - 1e-6 and num < 30:
    total, num = total + descending[num], num + 1
  assert kept.sum() == num
  assert probs[kept].min() >= probs[~kept].max(initial=0.0)


def test_what_is_drawn_has_the_probabilities_of_the_set():
  log_probs = jnp.log(jnp.array([0.1, 0.5, 0.4]))
  keys = jax.random.split(jax.random.key(0), 4_000)
  tokens = jax.vmap(
    lambda key: sample.draw_token(key, log_probs, temperature=1.0, top_p=0.8)
  )(keys)
  shares = np.bincount(np.asarray(tokens), minlength=3) / 4_000
  np.testing.assert_allclose(shares, [0.0, 5 / 9, 4 / 9], atol=0.03)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'length': 0}, 'expected length >= 1'),
    ({'temperature': -1.0}, 'expected temperature >= 0'),
    ({'top_p': 0.0}, r'expected top_p in \(0, 1\]'),
    ({'seed': -1}, 'expected seed'),
  ],
)
def test_a_number_out_of_range_is_refused(network, changes, message):
  with pytest.raises(ValueError, match=message):
    draw(network, **changes)


def test_a_prompt_of_words_goes_on_in_its_line():
  words = vocabulary_lib.Vocabulary('word', 'space', ('<eos>', '<unk>', 'a'))
  np.testing.assert_array_equal(sample.encode(words, 'a a'), [2, 2])
  np.testing.assert_array_equal(sample.encode(words, 'a\n'), [2, 0])
  with pytest.raises(ValueError, match='a new line is one'):
    sample.encode(words, '')


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run of a tiny model, by the command."""
  folder = tmp_path_factory.mktemp('sample')
  file = folder / 'text.txt'
  file.write_text('the quick brown fox jumps over the lazy dog\n' * 20)
  config = text_transformer_xl.get_config('topkast,quick=1')
  data = dict(
    name='file', path=str(file), unit='byte', max_words=None, held_out=0.1,
    cache_dir=None,
  )  # fmt: skip
  config.unlock()
  config.data = data
  config.train.update(num_steps=10)
  config.seeds = (0, 1)
  path = folder / 'config.py'
  path.write_text(
    'import json\nimport ml_collections\n\n\ndef get_config():\n'
    f'  return ml_collections.ConfigDict(json.loads({config.to_json()!r}))\n'
  )
  arguments = [f'--config={path}', f'--workdir={folder / "run"}']
  assert launch.main(arguments) == 0
  assert launch.main([*arguments, '--eval_only']) == 0
  return folder / 'run'


def test_evaluation_alone_finds_what_training_did(workdir):
  summary = json.loads((workdir / 'summary.json').read_text())
  evaluation = json.loads((workdir / 'evaluation.json').read_text())
  assert evaluation['test'] == summary['test']
  [entry] = summary['test']
  assert entry['seeds'] == [0, 1]
  assert entry['bits_per_character']['num'] == 2
  assert (workdir / 'plots' / 'training.png').stat().st_size > 10_000
  vocabulary_lib.read(workdir / 'vocabulary.json')


def test_the_command_prints_the_prompt_and_what_follows(workdir, capsys):
  arguments = [
    f'--workdir={workdir}', '--prompt=the q', '--length=7', '--member=seed=1',
  ]  # fmt: skip
  assert sample.main(arguments) == 0
  first = capsys.readouterr().out
  assert first.startswith('the q')
  assert sample.main(arguments) == 0
  assert capsys.readouterr().out == first


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--member=seed=7', 'fits 0 of'),
    ('--prompt=', 'at least one token'),
    ('--step=3', 'a checkpoint of step 3'),
  ],
)
def test_a_bad_argument_is_an_error(workdir, capsys, argument, message):
  arguments = [f'--workdir={workdir}', '--member=seed=0', argument]
  assert sample.main(arguments) == sample.USER_ERROR
  assert message in capsys.readouterr().err


def test_a_run_can_be_exported(workdir, tmp_path):
  file = tmp_path / 'net.safetensors'
  arguments = [f'--workdir={workdir}', f'--out={file}', '--member=seed=1']
  assert export.main(arguments, table.EXPERIMENTS) == 0
  exported = export.load(file)
  densities = exported.header['densities'].values()
  assert len(densities) == 7
  assert max(densities) < 0.22
