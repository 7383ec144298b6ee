"""Compact weights: packing, products and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsity
from sparsity import compact

SHAPE = (11, 7)
CONV_SHAPE = (3, 2, 5, 4)


def make_masks(shape, seed=0, densities=(0.2, 0.5)):
  scores = np.random.default_rng(seed).random(shape)
  forward, backward = (scores < density for density in densities)
  if len(shape) == 2:
    forward[:, 1] = backward[:, 1] = False  # an output without entries
    forward[:, 2] = backward[:, 2] = True  # a full output
    forward[3] = backward[3] = False  # an input without entries
  return forward, backward


def make_weight(shape=SHAPE, seed=0, dtype=jnp.float32):
  """Returns a dense weight, its masks, and the compact weight."""
  dense = jax.random.normal(jax.random.key(seed), shape, dtype)
  forward, backward = make_masks(shape, seed)
  packed = compact.pack({'w': dense}, {'w': forward}, {'w': backward})['w']
  return dense, forward, backward, packed


@pytest.fixture
def packed():
  return make_weight()[-1]


def assert_close(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def at_entries(packed, dense):
  """Returns a dense array's values at the entries of B."""
  at = compact.entries.places(packed.entries.structure, packed.shape)
  return np.asarray(dense).reshape(-1)[at]


@pytest.mark.parametrize('shape', [SHAPE, CONV_SHAPE])
def test_packing_keeps_the_backward_set_and_unpacking_shows_the_forward_set(
  shape,
):
  dense, forward, backward, packed = make_weight(shape)
  np.testing.assert_array_equal(
    compact.unpack({'w': packed})['w'], np.where(forward, dense, 0)
  )
  values = packed.values.reshape(-1)
  assert packed.values.shape == (*[1] * (len(shape) - 1), backward.sum())
  np.testing.assert_array_equal(values, at_entries(packed, dense))
  np.testing.assert_array_equal(np.sort(values), np.sort(dense[backward]))


def test_a_compact_weight_has_the_attributes_and_shapes_of_the_dense_one():
  dense, forward, _, packed = make_weight(CONV_SHAPE, dtype=jnp.bfloat16)
  for attribute in ('shape', 'dtype', 'ndim', 'size'):
    assert getattr(packed, attribute) == getattr(dense, attribute)
  assert packed.astype(jnp.float32).dtype == jnp.float32
  full = compact.pack({'w': dense}, {'w': np.ones(CONV_SHAPE, bool)})
  assert full['w'] is dense  # fully active
  for shape in ((-1, 4), (30, 4), (6, 1, 5, 4)):
    found = compact.unpack(packed.reshape(*shape))
    expected = np.where(forward, dense, 0).reshape(shape)
    np.testing.assert_array_equal(found, expected, strict=True)
  for shape in ((4, 30), (-1, 8), (29, 4)):
    with pytest.raises(ValueError, match='w: expected a shape of 120'):
      packed.reshape(*shape)


def test_products_and_gradients_equal_those_of_the_masked_weights():
  layers = {'w': make_weight(), 'kernel': make_weight((3, 2, 4, 6))}
  weights = {name: layer[-1] for name, layer in layers.items()}
  masked = {name: jnp.where(a, x, 0) for name, (x, a, _, _) in layers.items()}
  key = jax.random.key(1)
  # Without a batch, with one, and with two batch axes.
  xs = [jax.random.normal(key, (*b, SHAPE[0])) for b in ((), (5,), (2, 3))]
  images = jax.random.normal(key, (2, 7, 6, 4))

  def loss(weights, xs, images):
    results = [sparsity.matmul(x, weights['w']) for x in xs]
    for window in ((1, 'SAME'), ((2, 1), 'VALID')):
      options = dict(zip(('stride', 'padding'), window, strict=True))
      results.append(sparsity.conv(images, weights['kernel'], **options))
    return sum(jnp.sum(jnp.sin(y)) for y in results)

  def both(weights, *args):
    value, dw = sparsity.value_and_grad(loss)(weights, *args)
    return value, dw, jax.grad(loss, argnums=(1, 2))(weights, *args)

  expected, dense_dw, expected_dx = jax.jit(both)(masked, xs, images)
  for function in (both, jax.jit(both)):
    value, dw, dx = function(weights, xs, images)
    assert_close(value, expected)
    jax.tree.map(assert_close, dx, expected_dx)
    for name, w in weights.items():
      assert_close(dw[name].reshape(-1), at_entries(w, dense_dw[name]))


def test_vmap_maps_over_examples_and_over_weights():
  dense, forward, backward, first = make_weight()
  x = jax.random.normal(jax.random.key(1), (5, SHAPE[0]))
  y = jax.vmap(sparsity.matmul, (0, None))(x, first)
  assert_close(y, x @ jnp.where(forward, dense, 0))
  masks = ({'w': mask[::-1]} for mask in (forward, backward))
  second = compact.pack({'w': -dense[::-1]}, *masks)['w']
  both = jax.tree.map(lambda *xs: jnp.stack(xs), first, second)
  y = jax.vmap(sparsity.matmul, (None, 0))(x, both)
  assert_close(y, jnp.stack([sparsity.matmul(x, w) for w in (first, second)]))


EYE = np.eye(3, dtype=bool)


@pytest.mark.parametrize(
  ('shape', 'masks', 'message'),
  [
    ((3, 3), (EYE, EYE[::-1]), 'w: expected every entry of forward'),
    ((3, 4), (EYE, EYE), 'w: expected masks of shape'),
    (
      (2, 3, 4),
      [np.arange(24).reshape(2, 3, 4) < 5] * 2,
      'w: expected a matrix or a 2D conv',
    ),
  ],
)
def test_masks_that_cannot_be_packed_are_errors(shape, masks, message):
  with pytest.raises(ValueError, match=message):
    compact.pack({'w': jnp.ones(shape)}, *({'w': mask} for mask in masks))
  with pytest.raises(ValueError, match='outside of jit'):
    jax.jit(compact.pack)({'w': jnp.ones(shape)}, {'w': masks[0]})


@pytest.mark.parametrize(
  'use',
  [
    lambda w: jnp.dot(jnp.ones(SHAPE[0]), w),
    lambda w: 2 * w,
    lambda w: jnp.einsum('i,ij->j', jnp.ones(SHAPE[0]), w),
  ],
)
def test_layers_that_need_the_dense_weight_are_named(use, packed):
  with pytest.raises(ValueError, match=r'^w \(11, 7\): .* masked storage'):
    use(packed)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'feature_group_count': 2}, 'w: expected feature groups'),
    ({'dimension_numbers': ('NCHW', 'HWIO', 'NCHW')}, 'w: expected dimensions'),
  ],
)
def test_unsupported_products_name_the_layer(options, message, packed):
  with pytest.raises(ValueError, match='w: expected x'):
    sparsity.matmul(jnp.ones(5), packed)
  _, _, _, kernel = make_weight((3, 2, 4, 6))
  with pytest.raises(ValueError, match=message):
    sparsity.conv(jnp.ones((2, 4, 4, 4)), kernel, **options)
