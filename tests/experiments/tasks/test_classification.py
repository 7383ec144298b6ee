"""The loss of classification against formulas."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from experiments.tasks import classification

NETWORK = hk.transform_with_state(lambda x, is_training: hk.Linear(3)(x))
KEY = jax.random.key(0)
BATCH = classification.Batch(
  jax.random.normal(KEY, (12, 5)), jnp.arange(12, dtype=jnp.int32) % 3
)
WEIGHTS, STATE = NETWORK.init(KEY, BATCH.inputs, True)


def make(augment=None, label_smoothing=0.0):
  return classification.make_loss(
    network=NETWORK, augment=augment, label_smoothing=label_smoothing
  )


def test_smoothed_labels_are_mixed_with_even_ones():
  logits, _ = NETWORK.apply(WEIGHTS, STATE, None, BATCH.inputs, True)
  targets = 0.7 * jax.nn.one_hot(BATCH.labels, 3) + 0.1
  expected = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), -1))
  loss, _ = make(label_smoothing=0.3)(WEIGHTS, STATE, KEY, BATCH, True)
  plain, (metrics, _) = make()(WEIGHTS, STATE, KEY, BATCH, True)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert loss != plain
  right = np.mean(np.argmax(logits, -1) == BATCH.labels)
  np.testing.assert_allclose(metrics['accuracy'], right, rtol=1e-6)


def test_the_loss_is_of_augmented_images():
  zeros = BATCH._replace(inputs=jnp.zeros_like(BATCH.inputs))
  augmented = make(augment=lambda key, x: jnp.zeros_like(x))
  loss, _ = augmented(WEIGHTS, STATE, KEY, BATCH, True)
  expected, _ = make()(WEIGHTS, STATE, KEY, zeros, True)
  plain, _ = make()(WEIGHTS, STATE, KEY, BATCH, True)
  assert loss == expected != plain
