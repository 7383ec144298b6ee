import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import layers
from tests import oracles
from tests.experiments import small

B, T, V, LAYERS = 2, 4, 11, 2


@functools.cache
def make(**changes):
  """Returns a model, parameters with which attention matters, and `apply`."""
  model, params = small.transformer(
    **{'vocab_size': V, 'num_layers': LAYERS, **changes}
  )
  return model, params, jax.jit(model.apply, static_argnums=5)


def draw(length, seed=0):
  tokens = np.random.default_rng(seed).integers(0, V, (B, length + 1))
  return tokens[:, :-1], tokens[:, 1:]


def evaluate(apply, params, tokens, targets, memory):
  return apply(params, memory, None, tokens, targets, False)


@pytest.mark.parametrize('same_length', [False, True])
def test_two_segments_with_memory_equal_one_long_segment(same_length):
  # The span of attention is the same: everything, or the last M.
  model, params, apply = make(same_length=same_length)
  inputs, targets = draw(2 * T)
  memory_len = 3 if same_length else 2 * T
  memory = model.memory(B, memory_len)
  long, long_memory = evaluate(apply, params, inputs, targets, memory)
  parts = []
  for part in (slice(0, T), slice(T, 2 * T)):
    nll, memory = evaluate(
      apply, params, inputs[:, part], targets[:, part], memory
    )
    parts.append(nll)
  np.testing.assert_allclose(jnp.concatenate(parts, 1), long, atol=2e-5)
  oracles.assert_close(memory, long_memory, atol=2e-5)
  # Without the memory the second segment differs.
  alone, _ = evaluate(
    apply, params, inputs[:, T:], targets[:, T:], model.memory(B, memory_len)
  )
  assert np.abs(alone - long[:, T:]).max() > 0.01


@pytest.mark.parametrize('same_length', [False, True])
def test_no_prediction_depends_on_what_comes_after_it(same_length):
  model, params, apply = make(same_length=same_length)
  length, memory_len = 8, 3
  tokens = np.random.default_rng(0).integers(0, V, length + 1)
  rows = np.tile(tokens[:-1], (length + 1, 1))
  for place in range(length):  # row `place` has another token there
    rows[place, place] = (rows[place, place] + 1) % V
  targets = np.tile(tokens[1:], (length + 1, 1))
  memory = model.memory(length + 1, memory_len)
  nll, _ = evaluate(apply, params, rows, targets, memory)
  nll = np.asarray(nll)
  depends = nll[:-1] != nll[-1]  # [place, prediction]
  distance = np.arange(length)[None] - np.arange(length)[:, None]
  expected = distance >= 0
  if same_length:  # each layer passes a token on by at most M - 1 places
    expected &= distance <= LAYERS * (memory_len - 1)
  np.testing.assert_array_equal(depends, expected)


def test_no_gradient_flows_into_the_memory():
  model, params, _ = make()
  inputs, targets = draw(T)
  memory = model.memory(B, T + 2)._replace(length=jnp.full(B, T))

  def loss(hidden):
    nll, new = model.apply(
      params, memory._replace(hidden=hidden), None, inputs, targets, False
    )
    return jnp.sum(nll) + sum(jnp.sum(x) for x in new.hidden)

  hidden = tuple(x + 0.1 for x in memory.hidden)
  gradients = jax.jit(jax.grad(loss))(hidden)
  assert not any(np.any(gradient) for gradient in gradients)


def test_the_next_words_are_those_that_the_loss_is_about():
  model, params, apply = make()
  inputs, targets = draw(T)
  memory = model.memory(B, T)
  nll, after = evaluate(apply, params, inputs, targets, memory)
  log_probs, predicted_after = jax.jit(model.predict)(params, memory, inputs)
  np.testing.assert_allclose(jnp.exp(log_probs).sum(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(
    -log_probs[np.arange(B), targets[:, -1]], nll[:, -1], atol=1e-5
  )
  oracles.assert_same(after, predicted_after)


@pytest.mark.parametrize('name', ['dropout', 'attention_dropout'])
def test_dropout_is_off_in_evaluation_and_random_in_training(name):
  model, params, apply = make(**{name: 0.3})
  _, _, plain = make()
  inputs, targets = draw(T)
  memory = model.memory(B, T)
  expected, _ = evaluate(plain, params, inputs, targets, memory)
  found, _ = evaluate(apply, params, inputs, targets, memory)
  np.testing.assert_array_equal(found, expected)
  one, two = (
    apply(params, memory, jax.random.key(seed), inputs, targets, True)[0]
    for seed in (1, 2)
  )
  assert np.abs(one - expected).max() > 0.01
  assert np.abs(one - two).max() > 0.01


def test_bfloat16_keeps_parameters_and_losses_in_float32():
  changes = {'cutoffs': (5,), 'tie_projections': (False, True)}
  model, params, apply = make(**changes, num_layers=1)
  half, _, half_apply = make(**changes, num_layers=1, compute_dtype='bfloat16')
  inputs, targets = draw(T)

  def loss(params):
    memory = half.memory(B, T)
    return evaluate(half.apply, params, inputs, targets, memory)[0].mean()

  made = jax.eval_shape(half.init, jax.random.key(0))
  gradient = jax.eval_shape(jax.grad(loss), params)
  for tree in (made, gradient):
    assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype('float32')}
  expected, _ = evaluate(apply, params, inputs, targets, model.memory(B, T))
  found, memory = evaluate(
    half_apply, params, inputs, targets, half.memory(B, T)
  )
  assert found.dtype == jnp.float32
  assert memory.hidden[0].dtype == jnp.bfloat16
  assert 0 < np.abs(found - expected).max() < 0.3


def saved_bytes(model, params):
  """Returns gradients, and bytes that the forward pass keeps for them."""
  inputs, targets = draw(T)

  def loss(params):
    nll, _ = model.apply(
      params, model.memory(B, T), jax.random.key(0), inputs, targets, True
    )
    return nll.mean()

  _, backward = jax.vjp(loss, params)
  kept = sum(x.nbytes for x in jax.tree.leaves(backward))
  return kept, backward(jnp.ones([]))


def test_activations_may_be_computed_again_instead_of_kept():
  rates = {'dropout': 0.2, 'attention_dropout': 0.2}
  models = {remat: make(**rates, remat=remat) for remat in layers.REMAT}
  found = {
    remat: saved_bytes(model, params)
    for remat, (model, params, _) in models.items()
  }
  kept, gradients = zip(*found.values(), strict=True)
  assert kept[0] > kept[1] > kept[2]
  for gradient in gradients[1:]:
    oracles.assert_close(gradient, gradients[0], atol=1e-6)


def test_matrices_begin_as_they_are_told_and_all_else_as_released():
  stds = {}
  for std in (0.02, 0.1):
    model, _ = small.transformer(vocab_size=V, d_model=64, init_std=std)
    params = jax.jit(model.init)(jax.random.key(0))
    stds[std] = {
      path.removeprefix('transformer_xl/'): float(leaves[name].std())
      for path, leaves in params.items()
      for name in leaves.keys() & {'w', 'embeddings_0'}
    }
    matrices = [x for name, x in stds[std].items() if name != 'embedding']
    assert len(matrices) == 7
    np.testing.assert_allclose(matrices, std, rtol=0.15)
  assert stds[0.02]['embedding'] == stds[0.1]['embedding']


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'d_model': 7}, 'even d_model'),
    ({'init_std': -0.1}, r'init_std in \[0, inf\), got -0.1'),
    ({'dropout': 1.0}, r'dropout in \[0, 1\), got 1.0'),
    ({'compute_dtype': 'float16'}, r"compute_dtype.*got 'float16'"),
    ({'remat': 'all'}, "remat.*got 'all'"),
    ({'cutoffs': (300,)}, 'cutoffs that rise'),
    ({'cutoffs': (5,), 'div_val': 9}, 'leaves each cluster a width'),
    ({'cutoffs': (5,)}, '2 flags in tie_projections'),
  ],
)
def test_bad_arguments_are_errors(changes, message):
  with pytest.raises(ValueError, match=message):
    small.transformer(**changes)
