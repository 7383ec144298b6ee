"""Compact weights: packing, checking, products and their gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsity
from sparsity import compact
from sparsity import kernels
from sparsity.compact import layout

SHAPE = (11, 7)


def make_masks(shape, seed=0, densities=(0.2, 0.5)):
  scores = np.random.default_rng(seed).random(shape)
  forward, backward = (scores < density for density in densities)
  if len(shape) == 2:
    forward[:, 1] = backward[:, 1] = False  # an output without entries
    forward[:, 2] = backward[:, 2] = True  # and one that has all
    forward[3] = backward[3] = False  # an input without entries
  return forward, backward


def make_weight(shape=SHAPE, seed=0, dtype=jnp.float32):
  """Returns a dense weight, its masks, and it packed."""
  dense = jax.random.normal(jax.random.key(seed), shape, dtype)
  forward, backward = make_masks(shape, seed)
  packed = compact.pack({'w': dense}, {'w': forward}, {'w': backward})['w']
  return dense, forward, backward, packed


def test_unpacking_gives_what_the_network_sees():
  for shape in (SHAPE, (3, 2, 5, 4)):
    dense, forward, _, packed = make_weight(shape)
    np.testing.assert_array_equal(
      compact.unpack({'w': packed})['w'], np.where(forward, dense, 0)
    )


def test_values_are_all_of_the_backward_set():
  dense, _, backward, packed = make_weight()
  assert packed.values.shape == (1, backward.sum())
  np.testing.assert_array_equal(
    np.sort(packed.values[0]), np.sort(dense[backward])
  )


def test_a_compact_weight_has_the_shape_and_dtype_of_the_dense_one():
  dense, _, _, packed = make_weight(dtype=jnp.bfloat16)
  for attribute in ('shape', 'dtype', 'ndim', 'size'):
    assert getattr(packed, attribute) == getattr(dense, attribute)
  assert packed.astype(jnp.float32).dtype == jnp.float32


def test_axes_that_come_in_may_be_reshaped():
  dense, forward, _, packed = make_weight((3, 2, 5, 4))
  for shape in ((-1, 4), (30, 4), (6, 1, 5, 4)):
    found = compact.unpack(packed.reshape(*shape))
    assert found.shape == dense.reshape(shape).shape
    np.testing.assert_array_equal(
      found, np.where(forward, dense, 0).reshape(shape)
    )
  for shape in ((4, 30), (-1, 8), (29, 4)):
    with pytest.raises(ValueError, match='w: expected a shape of 120'):
      packed.reshape(*shape)


def test_a_weight_that_is_all_active_stays_an_array():
  dense = jnp.ones((2, 3))
  packed = compact.pack({'w': dense}, {'w': np.ones((2, 3), bool)})
  assert packed['w'] is dense


def test_structures_of_the_host_and_of_jit_are_those_of_the_kernels():
  build = jax.jit(layout.build, static_argnums=(2, 3))
  for seed, shape in enumerate([(19, 23), (23, 19), (300, 270), (270, 700)]):
    forward, backward = make_masks(shape, seed)
    if seed == 3:  # longer strips
      forward[: shape[0] - 20] = False
    counts = int(forward.sum()), int(backward.sum())
    expected = kernels.from_masks(forward, backward)
    on_host = layout.build(forward, backward, *counts)
    traced = build(forward, backward, *counts)
    for a, b, c in zip(expected, on_host, traced, strict=True):
      np.testing.assert_array_equal(a, b)
      np.testing.assert_array_equal(a, c)


@pytest.fixture(params=['built', 'not built'])
def native_is(request, monkeypatch):
  """With the native kernels, where they are, and as if they were not."""
  if request.param == 'not built':
    monkeypatch.setattr(layout.host, 'is_available', lambda: False)


@pytest.mark.usefixtures('native_is')
def test_what_a_refresh_does_on_the_host_is_what_it_does_under_jit():
  shape = (301, 243)  # enough for several threads
  masks = [make_masks(shape, seed) for seed in (0, 1)]
  counts = tuple(
    min(mask.sum() for mask in pair) for pair in zip(*masks, strict=True)
  )
  counts = tuple(map(int, counts))
  for pair in masks:
    extra = np.flatnonzero(pair[0])[counts[0] :]
    pair[0].reshape(-1)[extra] = False
    extra = np.flatnonzero(pair[1] & ~pair[0])[counts[1] - counts[0] :]
    pair[1].reshape(-1)[extra] = False
  dense = np.random.default_rng(2).normal(size=shape).astype(np.float32)

  def refresh(masks, dense):
    old, new = (layout.build(*pair, *counts) for pair in masks)
    at = layout.places(old, shape)
    origin = layout.origins(old, new, shape)
    values = layout.take(dense, at)
    moved = layout.move(
      values, origin, layout.take(dense, layout.places(new, shape))
    )
    return old, new, origin, moved, layout.write_back(dense, old, 2 * values)

  on_host = refresh(masks, dense)
  for a, b in zip(
    jax.tree.leaves(on_host),
    jax.tree.leaves(jax.jit(refresh)(masks, dense)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(
    on_host[3], dense.reshape(-1)[layout.places(on_host[1], shape)]
  )
  expected = np.where(masks[0][1], 2 * dense, dense)
  np.testing.assert_array_equal(on_host[4], expected)


def test_jax_need_not_copy_what_the_host_makes():
  if not layout.host.is_available():
    pytest.skip('native kernels are not built')
  _, _, backward, packed = make_weight()
  structure, size = packed.entries.structure, int(backward.sum())
  values, origin = np.ones(size, np.float32), np.zeros(size, np.int32)
  made = [
    layout.write_back(np.zeros(SHAPE, np.float32), structure, values),
    layout.move(values, origin, values),
    layout.origins(structure, structure, SHAPE),
    *layout.build(*make_masks(SHAPE), packed.entries.num_forward, size),
  ]
  assert {array.ctypes.data % 64 for array in made} == {0}


@pytest.mark.usefixtures('native_is')
def test_sets_of_other_sizes_are_refused():
  forward, backward = make_masks((19, 23))
  counts = int(forward.sum()), int(backward.sum())
  with pytest.raises(ValueError, match='numbers that never change'):
    layout.build(forward, backward, counts[0], counts[1] + 1)
  with pytest.raises(ValueError, match='every entry of forward'):
    layout.build(backward, forward, counts[1], counts[0])


@pytest.mark.usefixtures('native_is')
def test_origins_say_where_entries_were():
  structures = [
    kernels.from_masks(*make_masks((19, 23), seed)) for seed in (0, 1)
  ]
  old, new = (list(np.asarray(layout.places(s, (19, 23)))) for s in structures)
  expected = [old.index(place) if place in old else -1 for place in new]
  assert -1 in expected
  assert max(expected) > 0
  for origins in (layout.origins, jax.jit(layout.origins, static_argnums=2)):
    np.testing.assert_array_equal(origins(*structures, (19, 23)), expected)


def test_what_stays_moves_and_what_enters_is_fresh():
  x, fresh = np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0])
  origin = np.array([2, -1, 0], np.int32)
  for move in (layout.move, jax.jit(layout.move)):
    np.testing.assert_array_equal(move(x, origin, fresh), [7, 2, 5])


@pytest.mark.parametrize('batch', [(), (5,), (2, 3)])
@pytest.mark.parametrize('jit', [False, True])
def test_products_and_gradients_are_those_of_the_masked_weight(batch, jit):
  dense, forward, backward, packed = make_weight()
  x = jax.random.normal(jax.random.key(1), (*batch, SHAPE[0]))
  dy = jax.random.normal(jax.random.key(2), (*batch, SHAPE[1]))

  def loss(w, x):
    return jnp.sum(dy * sparsity.matmul(x, w))

  both = lambda w, x: sparsity.value_and_grad(loss)(w, x)  # noqa: E731
  value, slopes = (jax.jit(both) if jit else both)(packed, x)
  masked = jnp.where(forward, dense, 0)
  expected, dense_slopes = jax.value_and_grad(loss)(masked, x)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  at = layout.places(packed.entries.structure, packed.shape)
  np.testing.assert_allclose(
    slopes[0], dense_slopes.reshape(-1)[at], rtol=1e-5, atol=1e-5
  )
  assert len(at) == backward.sum()
  dx = jax.grad(lambda x: loss(packed, x))(x)
  np.testing.assert_allclose(
    dx, jax.grad(lambda x: loss(masked, x))(x), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(('stride', 'padding'), [(1, 'SAME'), (2, 'VALID')])
def test_convolutions_and_gradients_are_those_of_the_masked_weight(
  stride, padding
):
  dense, forward, _, packed = make_weight((3, 2, 4, 6))
  x = jax.random.normal(jax.random.key(1), (2, 7, 6, 4))

  def loss(w, x):
    y = sparsity.conv(x, w, stride=stride, padding=padding)
    return jnp.sum(jnp.sin(y))

  value, slopes = sparsity.value_and_grad(loss)(packed, x)
  masked = jnp.where(forward, dense, 0)
  expected, dense_slopes = jax.value_and_grad(loss)(masked, x)
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  at = layout.places(packed.entries.structure, packed.shape)
  np.testing.assert_allclose(
    slopes.reshape(-1), dense_slopes.reshape(-1)[at], rtol=1e-4, atol=1e-4
  )


def test_gradients_keep_the_tree_and_auxiliary_results():
  _, _, _, packed = make_weight()
  weights = {'sparse': packed, 'b': jnp.ones(SHAPE[1])}

  def loss(weights, x):
    y = sparsity.matmul(x, weights['sparse']) + weights['b']
    return jnp.sum(y), y.shape

  slopes, shape = sparsity.grad(loss, has_aux=True)(weights, jnp.ones(SHAPE[0]))
  assert shape == SHAPE[1:]
  assert slopes['sparse'].shape == packed.values.shape
  np.testing.assert_array_equal(slopes['b'], 1)


def test_gradients_of_dense_weights_are_those_of_jax():
  loss = lambda w, x: jnp.sum(jnp.sin(x @ w))  # noqa: E731
  w, x = jnp.ones((3, 2)), jnp.ones((4, 3))
  np.testing.assert_array_equal(sparsity.grad(loss)(w, x), jax.grad(loss)(w, x))


def test_examples_of_a_batch_are_mapped():
  dense, forward, _, packed = make_weight()
  x = jax.random.normal(jax.random.key(1), (5, SHAPE[0]))
  y = jax.vmap(sparsity.matmul, (0, None))(x, packed)
  np.testing.assert_allclose(
    y, x @ jnp.where(forward, dense, 0), rtol=1e-5, atol=1e-5
  )


def test_members_with_sets_of_their_own_are_mapped():
  x = jax.random.normal(jax.random.key(1), (5, SHAPE[0]))
  dense, forward, backward, first = make_weight()
  other = compact.pack({'w': -dense[::-1]}, {'w': forward[::-1]},
                       {'w': backward[::-1]})['w']  # fmt: skip
  both = jax.tree.map(lambda *xs: jnp.stack(xs), first, other)
  y = jax.vmap(sparsity.matmul, (None, 0))(x, both)
  expected = [sparsity.matmul(x, w) for w in (first, other)]
  np.testing.assert_allclose(y, jnp.stack(expected), rtol=1e-5, atol=1e-5)


def broken(**changes):
  _, _, _, packed = make_weight()
  s = jax.tree.map(np.array, packed.entries.structure)
  for field, change in changes.items():
    s = s._replace(**{field: change(getattr(s, field))})
  return compact.CompactWeights(
    packed.values, dataclasses.replace(packed.entries, structure=s)
  )


def _set(index, value):
  def change(array):
    array[index] = value
    return array

  return change


@pytest.mark.parametrize(
  'changes',
  [
    {'columns': _set(0, SHAPE[0])},
    {'columns': _set(0, -1)},
    {'columns': lambda x: x[::-1]},
    {'columns': lambda x: x[:-1]},
    {'cells': _set(-1, 3)},
    {'cells': lambda x: x + 1},
    {'t_columns': _set(0, SHAPE[1])},
    {'t_entries': _set(0, 10**6)},
    {'t_cells': lambda x: x[:-1]},
  ],
)
def test_broken_indices_are_an_error_that_names_the_layer(changes):
  with pytest.raises(ValueError, match='w: expected'):
    compact.check({'net': broken(**changes)})


def test_sound_indices_pass_the_check():
  _, _, _, packed = make_weight()
  compact.check({'w': packed, 'b': jnp.ones(3)})


def test_values_of_another_length_are_an_error():
  _, _, _, packed = make_weight()
  short = compact.CompactWeights(packed.values[:, 1:], packed.entries)
  with pytest.raises(ValueError, match='w: expected values of shape'):
    compact.check({'w': short})


def test_a_shape_that_does_not_match_the_structure_is_an_error():
  _, _, _, packed = make_weight()
  entries = dataclasses.replace(packed.entries, shape=(12, 7))
  with pytest.raises(ValueError, match='w: expected'):
    compact.check(compact.CompactWeights(packed.values, entries))


def test_too_many_entries_for_an_int32_are_an_error():
  with pytest.raises(ValueError, match=r'fewer than 2\^31 entries'):
    layout.check_size((2**16, 2**15))
  layout.check_size((2**16, 2**15 - 1))


def test_a_forward_set_outside_of_the_backward_set_is_an_error():
  mask = np.eye(3, dtype=bool)
  with pytest.raises(ValueError, match='w: expected every entry of forward'):
    compact.pack({'w': jnp.ones((3, 3))}, {'w': mask}, {'w': mask[::-1]})


def test_masks_of_another_shape_are_an_error():
  mask = np.eye(3, dtype=bool)
  with pytest.raises(ValueError, match='w: expected masks of shape'):
    compact.pack({'w': jnp.ones((3, 4))}, {'w': mask})


def test_a_weight_that_is_no_matrix_nor_convolution_is_an_error():
  mask = np.arange(24).reshape(2, 3, 4) < 5
  with pytest.raises(ValueError, match='w: expected a matrix or a 2D conv'):
    compact.pack({'w': jnp.ones((2, 3, 4))}, {'w': mask})


def test_packing_under_jit_is_an_error():
  mask = jnp.eye(3, dtype=bool)
  with pytest.raises(ValueError, match='outside of jit'):
    jax.jit(lambda m: compact.pack({'w': jnp.ones((3, 3))}, {'w': m}))(mask)


@pytest.mark.parametrize(
  'use',
  [
    lambda w: jnp.dot(jnp.ones(SHAPE[0]), w),
    lambda w: jnp.ones(SHAPE[0]) @ w,
    lambda w: 2 * w,
    lambda w: w + jnp.ones(SHAPE),
    lambda w: w.T,
    lambda w: w[0],
    lambda w: jnp.transpose(w),
    lambda w: jnp.einsum('i,ij->j', jnp.ones(SHAPE[0]), w),
  ],
)
def test_a_layer_that_needs_the_dense_weight_is_named(use):
  _, _, _, packed = make_weight()
  with pytest.raises(ValueError, match=r'w .* masked storage'):
    use(packed)


def test_a_product_of_other_shapes_is_an_error_that_names_the_layer():
  _, _, _, packed = make_weight()
  with pytest.raises(ValueError, match='w: expected x'):
    sparsity.matmul(jnp.ones(5), packed)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'dilation': (2, 2)}, 'w: expected dilation'),
    ({'feature_group_count': 2}, 'w: expected feature groups'),
    ({'dimension_numbers': ('NCHW', 'HWIO', 'NCHW')}, 'w: expected dimensions'),
  ],
)
def test_a_convolution_that_cannot_be_compact_is_named(options, message):
  _, _, _, packed = make_weight((3, 2, 4, 6))
  with pytest.raises(ValueError, match=message):
    sparsity.conv(jnp.ones((2, 4, 4, 4)), packed, **options)


def test_a_model_whose_layers_all_take_compact_weights_passes():
  _, _, _, packed = make_weight()
  x = jax.ShapeDtypeStruct((3, SHAPE[0]), jnp.float32)
  compact.check_model(lambda w, x: sparsity.matmul(x, w['a']), {'a': packed}, x)


def test_the_layers_of_a_model_that_compact_storage_cannot_serve_are_named():
  _, _, _, packed = make_weight()
  names = ('served', 'sine', 'lookup')
  weights = {
    name: compact.CompactWeights(
      packed.values, dataclasses.replace(packed.entries, name=f'{name}/w')
    )
    for name in names
  }

  def apply(weights, x):
    y = sparsity.matmul(x, weights['served'])
    y += jax.lax.sin(weights['sine']).sum(0)
    return y + weights['lookup'][0]

  with pytest.raises(ValueError, match='got others for lookup/w, sine/w:'):
    compact.check_model(apply, weights, jnp.ones(SHAPE[0]))


def test_an_error_of_the_model_itself_is_not_blamed_on_storage():
  _, _, _, packed = make_weight()

  def apply(weights, x):
    raise KeyError('no such layer')

  with pytest.raises(KeyError, match='no such layer'):
    compact.check_model(apply, {'a': packed}, jnp.ones(SHAPE[0]))
