"""Language models with a small text, a small network and few steps."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import mesh as mesh_lib
from experiments.models import transformer_xl
from experiments.tasks import language
from experiments.tasks import scoring
from experiments.tasks import table
import sparsity
from tests import oracles
from tests.experiments import small
import topkast

B, T, M, D = 4, 5, 6, 8
NUM_TRAIN = 84  # bytes: an epoch of 4 steps


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  """A text of a few bytes."""
  file = tmp_path_factory.mktemp('text') / 'text.txt'
  content = np.random.default_rng(0).integers(97, 123, 120)
  file.write_bytes(bytes(content.tolist()))
  return str(file)


@pytest.fixture(scope='module')
def run(path, tmp_path_factory):
  """A masked run of Top-KAST on one device."""
  return small.train(
    small.language(path, method={'penalty': 0.0}),
    tmp_path_factory.mktemp('run'),
  )


def plain_batch(path, step):
  """Returns inputs, targets and whether a new epoch begins, by slicing."""
  content = np.fromfile(path, np.uint8, NUM_TRAIN)
  rows = content.reshape(B, -1).astype(np.int32)
  at = step % 4 * T
  return rows[:, at : at + T], rows[:, at + 1 : at + T + 1], at == 0


def test_training_equals_a_loop_written_by_hand(path, run):
  model = transformer_xl.transformer_xl(**small.language(path)['model'])
  theta = model.init(jax.random.fold_in(jax.random.key(3), 0))
  tx = topkast.topkast(
    optax.chain(optax.clip_by_global_norm(0.25), sparsity.adam(1e-3)),
    forward_density=0.2,
    backward_density=0.4,
    refresh_every=3,
  )
  opt_state = tx.init(theta)

  @jax.jit
  def step(theta, opt_state, memory, inputs, targets):
    def loss(weights):
      nll, new = model.apply(weights, memory, None, inputs, targets, False)
      return jnp.mean(nll), new

    weights = topkast.weights(theta, opt_state)
    (value, memory), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    updates, opt_state = tx.update(gradient, opt_state, theta)
    return optax.apply_updates(theta, updates), opt_state, memory, value

  losses = []
  for i in range(8):
    inputs, targets, is_first = plain_batch(path, i)
    if is_first:
      memory = model.memory(B, M)
    theta, opt_state, memory, value = step(
      theta, opt_state, memory, inputs, targets
    )
    losses.append(float(value))
  oracles.assert_close(run.state.params, theta, atol=2e-6)
  # Entries older than the epoch are forgotten, not overwritten.
  np.testing.assert_array_equal(run.state.net_state.length[0], memory.length)
  hidden = tuple(x[0] for x in run.state.net_state.hidden)
  oracles.assert_close(hidden, memory.hidden, atol=2e-5)
  found = [row['loss'] for row in run.rows if row['split'] == 'train']
  np.testing.assert_allclose(
    found, np.reshape(losses, (4, 2)).mean(1), rtol=1e-5
  )


def test_a_run_ends_with_metrics_of_both_splits(run):
  *_, validation, test = run.rows
  assert (validation['split'], test['split']) == ('validation', 'test')
  assert test['validation_loss'] == validation['loss']
  for row in run.rows:
    bits = row['loss'] / math.log(2)
    assert row['bits_per_character'] == pytest.approx(bits, rel=1e-6)
  assert test['density'] == pytest.approx(0.2, abs=0.01)
  assert 'density' not in validation


def test_micro_batches_equal_the_whole_batch(path, run, tmp_path):
  config = small.language(path, method={'penalty': 0.0}, train={'num_micro': 2})
  parts = small.train(config, tmp_path)
  oracles.assert_close(run.state.params, parts.state.params, atol=5e-6)
  for x, y in zip(
    run.state.net_state.hidden, parts.state.net_state.hidden, strict=True
  ):
    assert y.shape == (2, B // 2, M, D)
    for row in range(B):
      np.testing.assert_allclose(x[0, row], y[row % 2, row // 2], atol=2e-5)


def test_several_devices_equal_one(path, run, tmp_path):
  config = small.language(
    path, method={'penalty': 0.0}, train={'num_devices': 4}
  )
  four = small.train(config, tmp_path)
  hidden = four.state.net_state.hidden[0]
  assert hidden.sharding.shard_shape(hidden.shape) == (1, B // 4, M, D)
  oracles.assert_close(run.state.params, four.state.params, atol=5e-6)
  for row, other in zip(four.rows, run.rows, strict=True):
    assert row['loss'] == pytest.approx(other['loss'], rel=1e-5)


def test_dropout_of_a_resumed_run_is_the_same_bit_for_bit(path, tmp_path):
  config = small.language(path, 'static', model={'dropout': 0.1})

  def stop(step, metrics):
    if step == 2:
      raise KeyboardInterrupt

  whole = small.train(config, tmp_path / 'whole')
  with pytest.raises(KeyboardInterrupt):  # nothing of step 2 is saved
    small.train(config, tmp_path / 'parts', stop)
  first = small.train(config, tmp_path / 'parts')
  oracles.assert_same(first.state, whole.state)
  assert first.rows == whole.rows


@pytest.fixture(scope='module')
def tokens():
  return np.random.default_rng(2).integers(0, 256, 83, np.uint8)


NUM_LAYERS = 2
SHAPE = scoring.Shape(4, 3, 4, None, None)


@pytest.fixture(scope='module', params=[False, True])
def network(request):
  """A model with clamped distances, and weights for which memory matters."""
  return small.transformer(
    num_layers=NUM_LAYERS, clamp_len=2, same_length=request.param
  )


def text_loss(network, tokens, num_devices=1, **changes):
  model, weights = network
  mesh = mesh_lib.make_mesh(num_devices)
  loss = scoring.make_loss(model, SHAPE._replace(**changes), NUM_LAYERS, mesh)
  return loss(weights, tokens)


def test_the_loss_of_a_text_equals_one_segment_after_another(network, tokens):
  model, weights = network
  memory, total = model.memory(1, 4), 0.0
  step = jax.jit(model.apply, static_argnums=5)
  for at in range(0, 82, 3):
    both = tokens[None, at : at + 4].astype(np.int32)
    nll, memory = step(weights, memory, None, both[:, :-1], both[:, 1:], False)
    total += float(nll.sum())
  for changes in ({'batch_size': 1}, {'num_devices': 4}):
    found = text_loss(network, tokens, **changes)
    assert found == pytest.approx(total / 82, rel=1e-5)
  first = text_loss(network, tokens[:20])
  assert text_loss(network, tokens, num_tokens=20) == first
  assert first != pytest.approx(total / 82, rel=1e-3)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'train': {'memory_len': None}}, 'train.memory_len: expected int'),
    ({'evaluation': {'memory_len': 0}}, 'evaluation.memory_len: expected >= 1'),
    ({'evaluation': {'num_tokens': 1}}, 'num_tokens: expected >= 2'),
    ({'train': {'num_micro': 3}}, 'expected batch_size as a multiple of 3'),
    ({'method': small.method('snip')}, "got 'snip'"),
  ],
)
def test_a_mistake_is_refused_before_the_text_is_read(changes, message):
  with pytest.raises(ValueError, match=message):
    table.make_task(small.language('/nowhere', 'static', **changes))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'train': {'batch_size': 40}}, 'config.train: expected at least'),
    ({'model': {'vocab_size': 204}}, 'vocab_size: expected 256'),
    ({'data': {'held_out': 0.01}}, 'expected a text of which held_out'),
    ({'data': {'path': '/nowhere'}}, 'nowhere'),
  ],
)
def test_a_text_that_does_not_fit_is_refused(path, changes, message):
  task = table.make_task(small.language(path, 'static', **changes))
  with pytest.raises(ValueError, match=message):
    task.check_data()


def words(folder, content):
  """Returns the task of a text of words."""
  folder.mkdir()
  for name in ('train', 'valid', 'test'):
    (folder / f'wiki.{name}.tokens').write_text(content)
  config = small.language(
    folder,
    'static',
    model={'vocab_size': 2 + len(set(content.split()))},
    train={'batch_size': 1, 'segment_len': 2},
  )
  config['data'] = {
    'name': 'wikitext103', 'path': str(folder), 'cache_dir': None,
  }  # fmt: skip
  return table.make_task(config)


def test_a_run_keeps_its_vocabulary_and_refuses_another(tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  four = words(tmp_path / 'four', 'a b\nb a\n' * 12)
  five = words(tmp_path / 'five', 'a b\na b c\n' * 12)
  four.check_folder(workdir)
  four.write_folder(workdir)
  before = (workdir / language.VOCABULARY).read_bytes()
  assert len(json.loads(before)['words']) == 4
  four.check_folder(workdir)
  with pytest.raises(ValueError, match=r'4 tokens .* there; got another: 5'):
    five.check_folder(workdir)
  assert (workdir / language.VOCABULARY).read_bytes() == before
