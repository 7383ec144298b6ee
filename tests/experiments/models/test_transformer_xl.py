import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import language
from experiments.models import transformer_xl
import sparsity
from sparsity import select

B, T, V, D, LAYERS = 2, 4, 11, 8, 2

TINY = language.model(
  vocab_size=V,
  num_layers=LAYERS,
  d_model=D,
  num_heads=2,
  d_head=3,
  d_inner=10,
  dropout=0.0,
  attention_dropout=0.0,
  clamp_len=None,
)

SIZES = {
  'enwik8 base': {
    'vocab_size': 204,
    'num_layers': 12,
    'd_model': 512,
    'd_embed': 512,
    'num_heads': 8,
    'd_head': 64,
    'd_inner': 2048,
  },
  'enwik8 large': {
    'vocab_size': 204,
    'num_layers': 24,
    'd_model': 1024,
    'd_embed': 1024,
    'num_heads': 8,
    'd_head': 128,
    'd_inner': 3072,
  },
  'wikitext103 base': {
    'vocab_size': 267_735,
    'num_layers': 16,
    'd_model': 410,
    'd_embed': 410,
    'num_heads': 10,
    'd_head': 41,
    'd_inner': 2100,
    'cutoffs': (20_000, 40_000, 200_000),
    'tie_projections': (False, True, True, True),
  },
  'wikitext103 large': {
    'vocab_size': 267_735,
    'num_layers': 18,
    'd_model': 1024,
    'd_embed': 1024,
    'num_heads': 16,
    'd_head': 64,
    'd_inner': 4096,
    'cutoffs': (20_000, 40_000, 200_000),
    'tie_projections': (False, True, True, True),
    'div_val': 4,
  },
}


def strong(params, seed=0):
  """Parameters large enough for attention to matter."""
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(0.5 * generator.normal(size=x.shape), x.dtype),
    params,
  )


def make(**changes):
  model = transformer_xl.transformer_xl(**{**TINY, **changes})
  return model, strong(jax.eval_shape(model.init, jax.random.key(0)))


def draw(length, seed=0):
  tokens = np.random.default_rng(seed).integers(0, V, (B, length + 1))
  return tokens[:, :-1], tokens[:, 1:]


def evaluate(model, params, tokens, targets, memory):
  return jax.jit(model.apply, static_argnums=5)(
    params, memory, None, tokens, targets, False
  )


@pytest.mark.parametrize('pre_norm', [False, True])
@pytest.mark.parametrize('same_length', [False, True])
def test_two_segments_with_memory_equal_one_long_segment(pre_norm, same_length):
  # The span of attention is the same: everything, or the last M.
  model, params = make(pre_norm=pre_norm, same_length=same_length)
  inputs, targets = draw(2 * T)
  memory_len = 3 if same_length else 2 * T
  memory = model.memory(B, memory_len)
  long, long_memory = evaluate(model, params, inputs, targets, memory)
  parts = []
  for part in (slice(0, T), slice(T, 2 * T)):
    nll, memory = evaluate(
      model, params, inputs[:, part], targets[:, part], memory
    )
    parts.append(nll)
  np.testing.assert_allclose(jnp.concatenate(parts, 1), long, atol=2e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
    memory,
    long_memory,
  )
  # Without the memory the second segment differs.
  alone, _ = evaluate(
    model, params, inputs[:, T:], targets[:, T:], model.memory(B, memory_len)
  )
  assert np.abs(alone - long[:, T:]).max() > 0.01


def test_the_memory_holds_the_last_inputs_of_each_layer():
  model, params = make()
  inputs, targets = draw(3 * T)
  memory = model.memory(B, 6)
  lengths = []
  for i in range(3):
    part = slice(i * T, (i + 1) * T)
    before = memory
    _, memory = evaluate(
      model, params, inputs[:, part], targets[:, part], memory
    )
    lengths.append(memory.length.tolist())
    for old, new in zip(before.hidden, memory.hidden, strict=True):
      np.testing.assert_array_equal(new[:, : 6 - T], old[:, T:])
  assert lengths == [[4, 4], [6, 6], [6, 6]]
  table = params['transformer_xl/embedding']['embeddings_0']
  np.testing.assert_allclose(
    memory.hidden[0], table[inputs[:, -6:]] * D**0.5, atol=1e-6
  )


@pytest.mark.parametrize('same_length', [False, True])
def test_no_prediction_depends_on_what_comes_after_it(same_length):
  model, params = make(same_length=same_length)
  inputs, targets = draw(T)
  memory = model.memory(B, 3)
  _, memory = evaluate(model, params, inputs, targets, memory)

  def embedded(table_per_place):
    # Every place gets a word of its own, so that gradients tell places apart.
    table = jnp.reshape(table_per_place, (B * T, D))
    changed = {
      **wide,
      'transformer_xl/embedding': {
        'embeddings_0': jnp.concatenate([table, rest])
      },
    }
    places = jnp.reshape(jnp.arange(B * T), (B, T))
    nll, _ = wide_model.apply(
      changed, memory, None, places, targets + B * T, False
    )
    return nll

  wide_model, wide = make(
    vocab_size=B * T + V, same_length=same_length, tie_embeddings=False
  )
  rest = wide['transformer_xl/embedding']['embeddings_0'][B * T :]
  jacobian = jax.jit(jax.jacrev(embedded))(
    jax.random.normal(jax.random.key(1), (B, T, D))
  )  # [B, T, B, T, D]
  depends = np.abs(jacobian).max(-1) > 0
  for b in range(B):
    for t in range(T):
      expected = np.zeros((B, T), bool)
      expected[b, : t + 1] = True
      if same_length:
        # A token is passed on by each layer, at most M - 1 places at a time.
        distance = t - np.arange(T)
        expected[b] &= distance <= LAYERS * 2
      np.testing.assert_array_equal(depends[b, t], expected)


def test_no_gradient_flows_into_the_memory():
  model, params = make()
  inputs, targets = draw(T)
  memory = model.memory(B, T + 2)

  def second_loss(hidden):
    nll, new = model.apply(
      params,
      memory._replace(hidden=hidden, length=jnp.full(B, T)),
      None,
      inputs,
      targets,
      False,
    )
    return jnp.sum(nll) + sum(jnp.sum(x) for x in new.hidden)

  hidden = tuple(x + 0.1 for x in memory.hidden)
  run = jax.jit(jax.value_and_grad(second_loss))
  value, gradients = run(hidden)
  assert value != run(tuple(2 * x for x in hidden))[0]
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0)


def test_rows_of_a_memory_may_hold_different_numbers():
  model, params = make()
  inputs, targets = draw(2 * T)
  memory = model.memory(B, T)
  _, full = evaluate(model, params, inputs[:, :T], targets[:, :T], memory)
  mixed = full._replace(length=jnp.array([T, 0], jnp.int32))
  rest = inputs[:, T:], targets[:, T:]
  found, _ = evaluate(model, params, *rest, mixed)
  with_memory, _ = evaluate(model, params, *rest, full)
  without, _ = evaluate(model, params, *rest, memory)
  np.testing.assert_allclose(found[0], with_memory[0], atol=1e-6)
  np.testing.assert_allclose(found[1], without[1], atol=1e-6)


def test_the_next_words_are_those_that_the_loss_is_about():
  model, params = make()
  inputs, targets = draw(T)
  memory = model.memory(B, T)
  nll, after = evaluate(model, params, inputs, targets, memory)
  log_probs, predicted_after = jax.jit(model.predict)(params, memory, inputs)
  np.testing.assert_allclose(jnp.exp(log_probs).sum(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(
    -log_probs[np.arange(B), targets[:, -1]], nll[:, -1], atol=1e-5
  )
  jax.tree.map(np.testing.assert_array_equal, after, predicted_after)


def test_dropout_is_off_in_evaluation_and_random_in_training():
  changes = {'dropout': 0.3, 'attention_dropout': 0.3}
  model, params = make(**changes)
  plain, _ = make()
  inputs, targets = draw(T)
  memory = model.memory(B, T)
  expected, _ = evaluate(plain, params, inputs, targets, memory)
  found, _ = evaluate(model, params, inputs, targets, memory)
  np.testing.assert_array_equal(found, expected)
  train = jax.jit(model.apply, static_argnums=5)
  one, two, again = (
    train(params, memory, jax.random.key(seed), inputs, targets, True)[0]
    for seed in (1, 2, 1)
  )
  assert np.abs(one - expected).max() > 0.01
  assert np.abs(one - two).max() > 0.01
  np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize('name', ['dropout', 'attention_dropout'])
def test_each_dropout_does_something_alone(name):
  model, params = make(**{name: 0.5})
  inputs, targets = draw(T)
  memory = model.memory(B, T)
  expected, _ = evaluate(model, params, inputs, targets, memory)
  found, _ = jax.jit(model.apply, static_argnums=5)(
    params, memory, jax.random.key(1), inputs, targets, True
  )
  assert np.abs(found - expected).max() > 0.01


def gradients(model, params):
  inputs, targets = draw(T)
  memory = model.memory(B, T)

  def loss(params):
    nll, _ = model.apply(
      params, memory, jax.random.key(1), inputs, targets, True
    )
    return jnp.mean(nll)

  return jax.jit(jax.value_and_grad(loss))(params)


def test_rematerialization_changes_no_number():
  changes = {'dropout': 0.3, 'attention_dropout': 0.3}
  model, params = make(**changes)
  again, _ = make(**changes, remat=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    gradients(model, params),
    gradients(again, params),
  )
  text = str(jax.make_jaxpr(lambda p: gradients(again, p))(params))
  assert 'remat' in text or 'checkpoint' in text


def test_bfloat16_keeps_parameters_and_losses_in_float32():
  changes = {'cutoffs': (5,), 'tie_projections': (False, True)}
  model, params = make(**changes)
  half, _ = make(**changes, compute_dtype='bfloat16')
  made = jax.eval_shape(half.init, jax.random.key(0))
  assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype('float32')}
  inputs, targets = draw(T)
  expected, _ = evaluate(model, params, inputs, targets, model.memory(B, T))
  found, memory = evaluate(half, params, inputs, targets, half.memory(B, T))
  assert found.dtype == jnp.float32
  assert memory.hidden[0].dtype == jnp.bfloat16
  assert 0 < np.abs(found - expected).max() < 0.3
  _, gradient = gradients(half, params)
  assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype('float32')}


def test_distances_over_clamp_len_count_as_equal():
  model, params = make(clamp_len=1)
  plain, _ = make()
  inputs, targets = draw(T)
  memory = model.memory(B, T)
  one, _ = evaluate(model, params, inputs, targets, memory)
  two, _ = evaluate(plain, params, inputs, targets, memory)
  np.testing.assert_allclose(one[:, :2], two[:, :2], atol=1e-6)
  assert np.abs(one[:, 2:] - two[:, 2:]).max() > 1e-3


def count(config):
  return sum(np.prod(shape) for _, shape, _ in transformer_xl.describe(config))


def expected_count(config):
  """Counted by hand, from the parts of the model."""
  d, heads = config['d_model'], config['num_heads'] * config['d_head']
  layer = (
    4 * d * heads  # queries, keys, values, positions
    + heads * d  # output
    + 2 * d * config['d_inner'] + config['d_inner'] + d  # feed-forward
    + 4 * d  # two normalizations
  )  # fmt: skip
  ends = (0, *config['cutoffs'], config['vocab_size'])
  words = softmax = config['vocab_size']  # biases
  embeddings = words * d
  if config['div_val'] > 1:
    widths = [d // config['div_val'] ** i for i in range(len(ends) - 1)]
    embeddings = sum(
      (last - first) * width + width * d
      for first, last, width in zip(ends[:-1], ends[1:], widths, strict=True)
    )
    softmax += d * d  # the projection that is not tied
  softmax += len(config['cutoffs']) * (d + 1)
  return config['num_layers'] * layer + 2 * heads + embeddings + softmax


@pytest.mark.parametrize(
  ('name', 'published'),
  [('enwik8 base', 41e6), ('enwik8 large', 277e6), ('wikitext103 base', 151e6)],
)
def test_sizes_are_those_published(name, published):
  config = {**TINY, **SIZES[name]}
  assert count(config) == expected_count(config)
  assert expected_count(config) == pytest.approx(published, rel=0.02)


def test_the_large_model_of_wikitext_is_that_of_the_released_script():
  # 257M is what is published, but 18 layers, as in the script, are 285M: each
  # layer has 13.6M, so 257M is what 16 layers have.
  config = {**TINY, **SIZES['wikitext103 large']}
  assert count(config) == expected_count(config)
  assert expected_count(config) == pytest.approx(285.2e6, rel=0.001)
  fewer = expected_count({**config, 'num_layers': 16})
  assert fewer == pytest.approx(257e6, rel=0.02)


@pytest.mark.parametrize('tie_biases', [False, True])
def test_every_parameter_is_described_and_the_right_ones_are_weights(
  tie_biases,
):
  config = {
    **TINY,
    'tie_biases': tie_biases,
    'tie_embeddings': False,
    'div_val': 2,
    'cutoffs': (5, 8),
    'tie_projections': (False, True, False),
  }
  described = transformer_xl.describe(config)
  init = transformer_xl.transformer_xl(**config).init
  params = jax.eval_shape(init, jax.random.key(0))
  leaves = {
    select.join(module, name): x.shape
    for module, name, x in select.named_leaves(params)
  }
  assert {path: shape for path, shape, _ in described} == leaves
  assert all(meaning for _, _, meaning in described)
  chosen = select.selected_paths(params, sparsity.is_weight)
  assert set(chosen) == {
    f'transformer_xl/layer_{i}/{name}/w'
    for i in range(LAYERS)
    for name in (
      *(f'attention/{x}' for x in ('query', 'key', 'value', 'position')),
      'attention/output',
      'feed_forward/linear_0',
      'feed_forward/linear_1',
    )
  }


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_layers': 0}, 'num_layers >= 1, got 0'),
    ({'d_model': 7}, 'even d_model'),
    ({'dropout': 1.0}, '0 <= dropout < 1, got 1.0'),
    ({'attention_dropout': -0.1}, '0 <= attention_dropout < 1'),
    ({'clamp_len': 0}, 'clamp_len >= 1 or None, got 0'),
    ({'compute_dtype': 'float16'}, r"compute_dtype.*got 'float16'"),
    ({'cutoffs': (20,)}, 'cutoffs that rise'),
  ],
)
def test_bad_arguments_are_errors(changes, message):
  with pytest.raises(ValueError, match=message):
    transformer_xl.transformer_xl(**{**TINY, **changes})


def test_same_length_needs_a_memory():
  model, params = make(same_length=True)
  inputs, targets = draw(T)
  with pytest.raises(ValueError, match='memory of at least 1 with same_length'):
    model.apply(params, model.memory(B, 0), None, inputs, targets, False)
  with pytest.raises(ValueError, match='memory_len >= 0, got 2 and -1'):
    model.memory(2, -1)


def test_a_model_without_memory_sees_its_segment():
  model, params = make()
  inputs, targets = draw(T)
  without, memory = evaluate(model, params, inputs, targets, model.memory(B, 0))
  empty, _ = evaluate(model, params, inputs, targets, model.memory(B, 3))
  np.testing.assert_allclose(without, empty, atol=1e-5)
  assert memory.hidden[0].shape == (B, 0, D)
