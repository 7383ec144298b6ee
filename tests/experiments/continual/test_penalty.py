"""Penalties against forgetting, compared with what is slow and obvious."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.continual import penalty

RANDOM = np.random.default_rng(0)
SHAPES = {'a': (3, 4), 'b': (4,)}


def draw():
  return {
    name: jnp.asarray(RANDOM.normal(size=shape), jnp.float32)
    for name, shape in SHAPES.items()
  }


def logits(weights, x):
  return jnp.tanh(x @ weights['a'] + weights['b'])


def test_the_anchor_has_the_gradient_of_a_penalty_for_each_task():
  kept = [(draw(), jax.tree.map(jnp.square, draw())) for _ in range(4)]
  anchor = penalty.init(draw())
  for weights, importance in kept:
    anchor = penalty.add(anchor, weights, importance)
  now = draw()

  def one_by_one(now):
    return (
      0.7
      / 2
      * sum(
        jnp.sum(f[name] * (now[name] - w[name]) ** 2)
        for w, f in kept
        for name in SHAPES
      )
    )

  expected = jax.grad(one_by_one)(now)
  found = jax.grad(lambda w: penalty.penalty(anchor, w, 0.7))(now)
  for name in SHAPES:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)


def test_the_anchor_before_the_first_task_holds_nothing():
  assert penalty.penalty(penalty.init(draw()), draw(), 5.0) == 0


def test_what_was_never_important_is_free():
  anchor = penalty.add(
    penalty.init(jnp.zeros(2)), jnp.ones(2), jnp.array([0.0, 2.0])
  )
  slope = jax.grad(lambda w: penalty.penalty(anchor, w, 1.0))(jnp.zeros(2))
  np.testing.assert_array_equal(slope, [0.0, -2.0])


@pytest.mark.parametrize('batch_size', [1, 3, 6])
def test_fisher_diagonal_equals_a_loop_over_examples_and_labels(batch_size):
  weights = draw()
  inputs = RANDOM.normal(size=(6, 3)).astype(np.float32)
  expected = {name: np.zeros(shape) for name, shape in SHAPES.items()}
  for x in inputs:
    likely = jax.nn.softmax(logits(weights, x))
    for label in range(4):
      slope = jax.grad(
        lambda w, x=x, label=label: jax.nn.log_softmax(logits(w, x))[label]
      )(weights)
      for name in SHAPES:
        expected[name] += likely[label] * np.square(slope[name]) / 6
  found = penalty.fisher_diagonal(
    logits, weights, inputs, batch_size=batch_size
  )
  for name in SHAPES:
    assert expected[name].max() > 0
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)


def test_batches_of_fisher_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='divisor of the 6 examples, got 4'):
    penalty.fisher_diagonal(
      logits, draw(), np.zeros((6, 3), np.float32), batch_size=4
    )
