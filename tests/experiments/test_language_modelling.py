"""Language models with a small text, a small network and few steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import text_transformer_xl
from experiments import costs
from experiments import language_evaluation
from experiments import language_modelling
from experiments import language_plan
from experiments.common import build
from experiments.common import checkpoint
from experiments.common import loop
from experiments.common import metrics
from experiments.common import run as run_lib
from experiments.models import transformer_xl
import sparsity
import topkast

B, T, M = 4, 5, 6
NUM_TRAIN = 84  # bytes: an epoch of 4 steps
NUM_LAYERS, D, HEADS, D_HEAD = 1, 8, 2, 3  # two in evaluation


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  """A text of a few bytes."""
  file = tmp_path_factory.mktemp('text') / 'text.txt'
  content = np.random.default_rng(0).integers(97, 123, 120)
  file.write_bytes(bytes(content.tolist()))
  return str(file)


def make_config(path, variant='dense', **changes):
  config = text_transformer_xl.get_config(f'{variant},quick=1').to_dict()
  config.pop('experiment')
  config['data'] = dict(
    name='file',
    path=path,
    unit='byte',
    max_words=None,
    held_out=0.15,
    cache_dir=None,
  )
  config['model'].update(
    num_layers=NUM_LAYERS, d_model=D, d_embed=D, num_heads=HEADS,
    d_head=D_HEAD, d_inner=10, dropout=0.0,
  )  # fmt: skip
  config['optimizer']['schedule'] = dict(name='constant', warmup_steps=0)
  config['train'].update(
    batch_size=B, segment_len=T, memory_len=M, num_steps=8, log_every=2,
    eval_every=4, checkpoint_every=2,
  )  # fmt: skip
  config['evaluation'].update(
    batch_size=4, segment_len=3, memory_len=4, num_tokens=None
  )
  if variant == 'topkast':
    config['method'].update(refresh_every=3, penalty=0.0)
  for name, value in changes.items():
    if isinstance(value, dict) and name != 'method':
      config[name].update(value)
    else:
      config[name] = value
  return config


def make(path, variant='dense', **changes):
  config = make_config(path, variant, **changes)
  return build.call(language_modelling.build, config)


def train(unit, num_steps):
  state, values = unit.train(unit.init(None), 0, num_steps)
  return jax.device_get((state, values))


def assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def assert_close(a, b, **tolerance):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, **tolerance)


def test_one_unit_for_each_alpha_and_seed(path):
  experiment = make(path, powerprop={'alphas': (1.0, 2.0)}, seeds=(0, 4))
  assert [unit.members for unit in experiment.units] == [
    ({'alpha': alpha, 'seed': seed},) for alpha in (1.0, 2.0) for seed in (0, 4)
  ]


def plain_batch(path, step):
  """Returns inputs, targets and whether a new epoch begins, by slicing."""
  content = np.fromfile(path, np.uint8, NUM_TRAIN)
  rows = content.reshape(B, -1).astype(np.int32)
  at = step % 4 * T
  return rows[:, at : at + T], rows[:, at + 1 : at + T + 1], at == 0


@pytest.mark.parametrize('variant', ['dense', 'topkast'])
def test_training_equals_a_loop_written_by_hand(path, variant):
  seed, num_steps = 3, 6
  config = make_config(path, variant, seeds=(seed,))
  [unit] = build.call(language_modelling.build, config).units
  state, values = train(unit, num_steps)

  model = transformer_xl.transformer_xl(**config['model'])
  theta = model.init(jax.random.fold_in(jax.random.key(seed), 0))
  tx = optax.chain(optax.clip_by_global_norm(0.25), optax.adam(1e-3))
  if variant == 'topkast':
    tx = topkast.topkast(
      tx, forward_density=0.2, backward_density=0.4, refresh_every=3
    )
  opt_state = tx.init(theta)

  @jax.jit
  def step(theta, opt_state, memory, inputs, targets):
    def loss(weights):
      nll, new = model.apply(weights, memory, None, inputs, targets, False)
      return jnp.mean(nll), new

    weights = theta
    if variant == 'topkast':
      weights = topkast.weights(theta, opt_state)
    (value, memory), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    updates, opt_state = tx.update(gradient, opt_state, theta)
    return optax.apply_updates(theta, updates), opt_state, memory, value

  losses = []
  for i in range(num_steps):
    inputs, targets, is_first = plain_batch(path, i)
    if is_first:
      memory = model.memory(B, M)
    theta, opt_state, memory, value = step(
      theta, opt_state, memory, inputs, targets
    )
    losses.append(value)
  assert_close(state.params, theta, atol=2e-6)
  # What is older than the epoch is forgotten, not overwritten.
  np.testing.assert_array_equal(state.net_state.length[0], memory.length)
  assert_close([x[0] for x in state.net_state.hidden], memory.hidden, atol=2e-5)
  np.testing.assert_allclose(values['loss'], np.mean(losses), rtol=1e-5)


def test_two_chunks_with_a_checkpoint_between_equal_one(path, tmp_path):
  config = make_config(
    path, 'powerprop_topkast', model={'dropout': 0.1}, seeds=(1,)
  )
  [unit] = build.call(language_modelling.build, config).units
  whole, _ = train(unit, 6)
  half, _ = unit.train(unit.init(None), 0, 2)
  checkpoints = checkpoint.Checkpoints(tmp_path / 'checkpoints', 1)
  checkpoints.save(2, half, {})
  again, _ = checkpoints.restore(unit.like())
  assert_equal(again.net_state, half.net_state)
  end, _ = unit.train(again, 2, 4)
  assert_equal(end, whole)


def test_micro_batches_equal_the_whole_batch(path):
  [whole] = make(path).units
  [parts] = make(path, train={'num_micro': 2}).units
  one, one_values = train(whole, 6)
  two, two_values = train(parts, 6)
  assert_close(one.params, two.params, atol=5e-6)
  np.testing.assert_allclose(one_values['loss'], two_values['loss'], rtol=1e-5)
  for x, y in zip(one.net_state.hidden, two.net_state.hidden, strict=True):
    assert y.shape == (2, B // 2, M, D)
    for row in range(B):
      np.testing.assert_allclose(x[0, row], y[row % 2, row // 2], atol=2e-5)


def make_stored(path, variant, storage, **changes):
  """Returns the unit of a small model with the given storage, and itself."""
  config = make_config(path, variant, **changes)
  config['method'].update(storage=storage)
  if variant == 'rigl':
    config['method'].update(refresh_every=3, stop_refresh_at=100)
  [unit] = build.call(language_modelling.build, config).units
  [one] = build.call(language_modelling.trained, config)
  return unit, one


@pytest.mark.parametrize(
  ('variant', 'num_micro'), [('topkast', 2), ('rigl', 1), ('static', 1)]
)
def test_compact_weights_train_as_masked_ones(path, variant, num_micro):
  changes = {'train': {'num_micro': num_micro}, 'model': {'dropout': 0.1}}
  (masked, _), (compact, one) = (
    make_stored(path, variant, storage, **changes)
    for storage in ('masked', 'compact')
  )
  expected, expected_values = train(masked, 8)
  packed, values = train(compact, 8)
  assert_close(values, expected_values, rtol=1e-4)
  found = one.storage.unpack(jax.tree.map(jnp.asarray, packed))
  assert_equal(found.opt_state.sets, expected.opt_state.sets)
  assert_close(found.net_state, expected.net_state, atol=1e-4)
  sets = expected.opt_state.sets.backward
  for x, y, mask in zip(
    *map(jax.tree.leaves, (found.params, expected.params, sets)), strict=True
  ):
    np.testing.assert_allclose(x[mask], y[mask], atol=2e-5)
  [[row]], [[other]] = compact.report(packed), masked.report(expected)
  assert row.pop('split') == other.pop('split')
  assert row == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_compact_weights_are_masked_ones_over_200_steps(path):
  changes = {
    'model': {'d_model': 32, 'd_embed': 32, 'd_head': 16, 'd_inner': 48},
    'powerprop': {'alphas': (1.375,)},
  }
  (masked, _), (compact, one) = (
    make_stored(path, 'topkast', storage, **changes)
    for storage in ('masked', 'compact')
  )
  expected, packed, first = masked.init(None), compact.init(None), None
  for step in range(0, 200, 20):
    expected, expected_values = masked.train(expected, step, 20)
    packed, values = compact.train(packed, step, 20)
    # Rounding decides which of two entries of almost one size is in a set.
    changes = (v.pop('mask_change') for v in (values, expected_values))
    assert_close(*changes, atol=0.005)
    assert_close(values, expected_values, rtol=1e-2)
    first = first or values['loss']
  assert values['loss'] < 0.8 * first
  found = one.storage.unpack(packed)
  overlap = (
    topkast.active_sets(found.opt_state),
    topkast.active_sets(expected.opt_state),
  )
  assert sparsity.overlap(*(sets.forward for sets in overlap)) > 0.999


def test_a_compact_run_goes_on_from_a_checkpoint_bit_for_bit(path, tmp_path):
  unit, _ = make_stored(path, 'topkast', 'compact')
  whole, _ = train(unit, 6)
  half, _ = unit.train(unit.init(None), 0, 4)
  checkpoints = checkpoint.Checkpoints(tmp_path / 'checkpoints', 1)
  checkpoints.save(4, half, {})
  again, _ = checkpoints.restore(unit.like())
  end, _ = unit.train(again, 4, 2)
  assert_equal(end, whole)


def test_devices_that_hold_a_model_together_are_refused_with_compact(path):
  config = make_config(
    path, 'topkast', train=dict(num_devices=4, model_devices=2)
  )
  config['method'].update(storage='compact')
  with pytest.raises(ValueError, match='model_devices: expected 1 with'):
    build.call(language_modelling.build, config)


@pytest.mark.parametrize('model_devices', [1, 2])
def test_several_devices_equal_one(path, model_devices):
  [one] = make(path, 'topkast').units
  [four] = make(
    path, 'topkast', train=dict(num_devices=4, model_devices=model_devices)
  ).units
  state = four.init(None)
  size = B * model_devices // 4
  memory, [moments, *_] = state.net_state, _moments(state)
  w = state.params['transformer_xl/layer_0/feed_forward/linear_0']['w']
  for x, shape in (
    (memory.hidden[0], (1, size, M, D)),
    (w, (D, 10 // model_devices)),
    (moments, (D, 10 // model_devices)),
  ):
    assert x.sharding.shard_shape(x.shape) == shape
    assert len(x.sharding.device_set) == 4
  state, _ = four.train(state, 0, 4)
  expected, _ = one.train(one.init(None), 0, 4)
  assert_close(expected.params, state.params, atol=5e-6)
  assert four.evaluate(state)['loss'] == pytest.approx(
    one.evaluate(expected)['loss'], rel=1e-5
  )


def _moments(state):
  """Returns what the optimizer holds in the shape of one matrix."""
  return [x for x in jax.tree.leaves(state.opt_state) if x.shape == (D, 10)]


def strong(plan):
  """Returns weights large enough for the memory to matter."""
  generator = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: jnp.asarray(0.5 * generator.normal(size=x.shape), x.dtype),
    plan.params,
  )


def make_plan(path, **evaluation):
  config = make_config(path, model={'num_layers': 2}, evaluation=evaluation)
  config.pop('seeds')
  return build.call(language_plan.make_plan, config)


@pytest.fixture(scope='module')
def tokens():
  return np.random.default_rng(2).integers(0, 256, 83, np.uint8)


@pytest.mark.parametrize('same_length', [False, True])
def test_evaluation_does_not_depend_on_the_batch(path, tokens, same_length):
  found = []
  for size in (1, 4):
    plan = make_plan(path, batch_size=size, same_length=same_length)
    found.append(language_evaluation.make_loss(plan)(strong(plan), tokens))
  assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_evaluation_equals_one_segment_after_another(path, tokens):
  plan = make_plan(path, clamp_len=2)
  config = make_config(path, model={'num_layers': 2})
  model = transformer_xl.transformer_xl(
    **{**config['model'], 'clamp_len': 2, 'same_length': True}
  )
  weights, memory, total = strong(plan), model.memory(1, 4), 0.0
  for at in range(0, 82, 3):
    both = tokens[None, at : at + 4].astype(np.int32)
    nll, memory = model.apply(
      weights, memory, None, both[:, :-1], both[:, 1:], False
    )
    total += float(nll.sum())
  loss = language_evaluation.make_loss(plan)(weights, tokens)
  assert loss == pytest.approx(total / 82, rel=1e-5)


def test_only_the_first_tokens_are_evaluated_if_asked(path, tokens):
  some = make_plan(path, num_tokens=20)
  loss = language_evaluation.make_loss(some)(strong(some), tokens)
  cut = language_evaluation.make_loss(make_plan(path))
  assert loss == pytest.approx(cut(strong(some), tokens[:20]), rel=1e-6)


def test_figures_of_words_are_perplexities():
  found = language_evaluation.figures(math.log(7), 'word')
  assert found['perplexity'] == pytest.approx(7)
  traced = jax.jit(lambda x: language_evaluation.figures(x, 'word'))(0.5)
  assert traced['perplexity'] == pytest.approx(math.exp(0.5))


def test_a_run_ends_with_figures_of_both_splits(path, tmp_path):
  experiment = make(path, 'static', seeds=(0,))
  directory = run_lib.open_run(tmp_path / 'run', {})
  outcome = loop.run(
    experiment.units, experiment.schedule, directory, keep=experiment.keep
  )
  assert outcome.status == 'done'
  rows = metrics.read(directory.workdir)
  [test] = [row for row in rows if row['split'] == 'test']
  last = [row for row in rows if row['split'] == 'validation'][-1]
  assert test['validation_loss'] == pytest.approx(last['loss'], rel=1e-6)
  assert test['bits_per_character'] == pytest.approx(test['loss'] / math.log(2))
  assert test['density'] == pytest.approx(0.2, abs=0.01)
  again = loop.evaluate(experiment.units, directory)
  assert again[0][2]['loss'] == pytest.approx(test['loss'], rel=1e-6)


def test_attention_products_are_counted_apart(path):
  config = make_config(path, 'static')
  found = costs.report(build.call(costs.language_modelling, config))
  keys = T + M
  # Queries with keys, queries with positions, and shares with values.
  assert found.other_flops == NUM_LAYERS * 3 * 2 * T * keys * HEADS * D_HEAD
  [row] = [
    row
    for row in found.rows
    if row.path == 'transformer_xl/layer_0/attention/key/w'
  ]
  assert row.flops == 2 * keys * D * HEADS * D_HEAD
  assert row.density == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'train': {'batch_size': 40}}, 'config.train: expected at least'),
    ({'model': {'vocab_size': 204}}, 'vocab_size: expected 256'),
    ({'model': {'nheads': 2}}, "unknown key 'nheads'"),
    ({'data': {'held_out': 0.01}}, 'expected a text of which held_out'),
    ({'data': {'pth': 'x'}}, "unknown key 'pth'"),
    ({'train': {'memory_len': -1}}, 'train.memory_len: expected >= 0'),
    ({'evaluation': {'memory_len': 0}}, 'evaluation.memory_len: expected >= 1'),
    ({'evaluation': {'num_tokens': 1}}, 'num_tokens: expected >= 2'),
    ({'train': {'num_micro': 3}}, 'expected batch_size as a multiple of 3'),
    ({'train': {'model_devices': 2}}, 'model_devices: expected a divisor of 1'),
    ({'seeds': ()}, 'config.seeds'),
    ({'powerprop': {'alphas': (0.5,)}}, 'expected alpha >= 1'),
  ],
)
def test_bad_input_is_refused_before_training(path, changes, message):
  with pytest.raises(ValueError, match=message):
    make(path, **changes)


def test_a_method_that_needs_scores_is_refused(path):
  method = dict(
    name='snip', storage='masked', density=0.1, num_batches=1, scope='layer',
    dense=(), distribution='uniform', exclude=(),
    pattern={'name': 'unstructured'},
  )  # fmt: skip
  with pytest.raises(ValueError, match="got 'snip'"):
    make(path, method=method)


def words(path, size):
  return make(
    path,
    data={'unit': 'word', 'max_words': size},
    model={'vocab_size': size},
    train={'batch_size': 1, 'segment_len': 2},
  )


@pytest.fixture
def word_path(tmp_path):
  file = tmp_path / 'words.txt'
  file.write_text('\n'.join(['a b c d', 'c a b', 'b a', 'e a b c'] * 12))
  return str(file)


def test_a_run_has_its_vocabulary_and_refuses_another(word_path, tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  four, five = words(word_path, 4), words(word_path, 5)
  four.check(workdir)
  four.write(workdir)
  before = (workdir / 'vocabulary.json').read_bytes()
  four.check(workdir)
  with pytest.raises(ValueError, match=r'4 tokens .* there, 5'):
    five.check(workdir)
  assert (workdir / 'vocabulary.json').read_bytes() == before


def test_a_run_that_lost_its_vocabulary_is_refused(path, tmp_path):
  (tmp_path / 'checkpoints' / '10').mkdir(parents=True)
  with pytest.raises(ValueError, match='there is no such file'):
    make(path).check(tmp_path)


def test_what_is_needed_of_a_text_is_checked_without_it():
  config = make_config('/nowhere')
  assert build.call(language_modelling.outlines, config)
  config['data']['unit'] = 3
  with pytest.raises(ValueError, match=r'data.unit: expected str'):
    build.call(language_modelling.outlines, config)
