"""Slow, obvious references that tests compare with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import topkast


def largest(scores, k, *, among=None, magnitude=True):
  """Returns the mask of the k largest scores in the mask `among`.

  Ties go to the lowest index, NaN comes last.
  """
  with np.errstate(invalid='ignore'):  # signaling NaN
    scores = np.asarray(scores).astype(np.float64)
  order = np.argsort(
    -(np.abs(scores) if magnitude else scores), axis=None, kind='stable'
  )
  if among is not None:
    order = order[np.asarray(among).ravel()[order]]
  mask = np.zeros(scores.size, bool)
  mask[order[:k]] = True
  return mask.reshape(scores.shape)


def largest_over(scores, k, **options):
  """Returns the masks of the k largest over a list of arrays, concatenated."""
  flat = largest(np.concatenate([np.ravel(x) for x in scores]), k, **options)
  ends = np.cumsum([x.size for x in scores])[:-1]
  return [
    part.reshape(x.shape)
    for part, x in zip(np.split(flat, ends), scores, strict=True)
  ]


def normal(shapes, seed, dtype=jnp.float32):
  """Returns a tree of normal numbers, for a tree of shapes or of arrays."""
  random = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(
      random.standard_normal(getattr(x, 'shape', x)), dtype
    ),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def assert_same(found, expected):
  """Asserts that two trees are equal."""
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
  """Asserts that two trees are equal to within rounding errors."""
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(x, y, rtol, atol)


def make_step(tx, target):
  """Returns a step towards a target; half the squared distance is the loss."""

  def step(params, state):
    weights = topkast.weights(params, state)
    gradients = jax.tree.map(jnp.subtract, weights, target)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  return step


def train(tx, params, gradients):
  """Returns (params, state) before and after each update, on the host."""
  found = [(params, jax.jit(tx.init)(params))]

  @jax.jit
  def step(params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  for gradient in gradients:
    found.append(step(*found[-1], gradient))
  return jax.device_get(found)
