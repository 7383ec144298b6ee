"""Fingerprints, Fisher information, and the rows of batches."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tasks.continual import feed
from tests import oracles

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(6, 3)).astype(np.float32)
ROWS = [np.array([3, 5, 8, 9]), np.array([0, 5, 7]), np.array([1, 2, 4, 6, 8])]


def fingerprint(values):
  return int(feed.fingerprint(values, 0, jnp.ones(len(values))))


def test_any_single_bit_changes_the_fingerprint():
  before = fingerprint(VALUES)
  for index in np.ndindex(VALUES.shape):
    for bit in (0, 13, 22, 31):
      changed = VALUES.view(np.uint32).copy()
      changed[index] ^= np.uint32(1 << bit)
      assert fingerprint(changed.view(np.float32)) != before
  assert fingerprint(VALUES[::-1]) != before


def test_fingerprints_leave_out_padding_and_add_up():
  padded = np.concatenate([VALUES, np.full((2, 3), np.nan, np.float32)])
  counts = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)
  parts = sum(
    feed.fingerprint(padded[i : i + 4], 3 * i, counts[i : i + 4])
    for i in (0, 4)
  )
  assert int(parts) == fingerprint(VALUES)


def test_fisher_equals_a_loop_over_examples_and_labels():
  weights = oracles.normal({'a': (3, 4), 'b': (4,)}, 1)

  def logits(weights, x):
    return jnp.tanh(x @ weights['a'] + weights['b'])

  expected = {name: np.zeros(x.shape) for name, x in weights.items()}
  for x in VALUES:
    likely = jax.nn.softmax(logits(weights, x))
    for label in range(4):
      gradient = jax.grad(
        lambda w, x=x, label=label: jax.nn.log_softmax(logits(w, x))[label]
      )(weights)
      for name in weights:
        expected[name] += likely[label] * np.square(gradient[name]) / 6
  found = feed.fisher_diagonal(logits, weights, VALUES, batch_size=3)
  for name in weights:
    assert expected[name].max() > 0
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)


def test_an_epoch_of_all_tasks_has_each_example_of_each_once():
  rows, tasks = feed.choose_rows(ROWS, None, 0, 3, 0, 4, 3)
  seen = sorted(zip(tasks.ravel(), rows.ravel(), strict=True))
  assert seen == [(t, r) for t, own in enumerate(ROWS) for r in own]
