"""Networks for images: sizes, initial values, training, types."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from experiments.models import alexnet
from experiments.models import layers
from experiments.models import lenet
from experiments.models import resnet
from experiments.tasks import classification
import sparsity

KEY = jax.random.key(0)


def defaults(make, **arguments):
  """Returns `make` with keyword arguments that a call may change."""
  return functools.partial(
    make, **{'num_classes': 10, 'compute_dtype': 'float32', **arguments}
  )


make_wide = defaults(resnet.wide_resnet, depth=22, width=2, dropout=0.0)
make_alexnet = defaults(alexnet.alexnet, dropout=0.0)
make_resnet32 = defaults(resnet.resnet32)
make_resnet50 = defaults(resnet.resnet50, num_classes=1000)

# make, shape of an image, (weights, scales and offsets, biases). In the
# literature ResNet-50 has 25,557,032 parameters, ResNet-32 464,154.
NETWORKS = {
  'alexnet': (make_alexnet, (32, 32, 3), (3_914_432, 0, 1994)),
  'lenet5': (lenet.lenet5, (28, 28, 1), (61_470, 0, 236)),
  'resnet32': (make_resnet32, (32, 32, 3), (461_872, 2_272, 10)),
  'resnet50': (make_resnet50, (224, 224, 3), (25_502_912, 53_120, 1_000)),
  'wide_resnet': (make_wide, (32, 32, 3), (1_076_912, 2_720, 10)),
}


def shapes_of(network, shape):
  images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  return jax.eval_shape(lambda x: network.init(KEY, x, True), images)


@pytest.mark.parametrize('name', NETWORKS)
def test_every_parameter_is_a_weight_a_bias_or_of_a_norm(name):
  make, shape, expected = NETWORKS[name]
  given = {'num_classes': 10} if name == 'lenet5' else {}
  params, _ = shapes_of(make(**given), shape)
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  leaves = list(sparsity.select.named_leaves(params))
  counts = (
    sum(x.size for x in weights.values()),
    sum(x.size for _, leaf, x in leaves if leaf in ('scale', 'offset')),
    sum(x.size for _, leaf, x in leaves if leaf == 'b'),
  )
  assert counts == expected
  assert sum(counts) == sum(x.size for _, _, x in leaves)


def make_small(dtype='float32'):
  """Returns a ResNet-8."""
  return resnet._resnet(resnet._basic, (1, 1, 1), 16, 'cifar', 10, dtype)


@pytest.fixture(scope='module')
def small():
  """Returns a ResNet-8, its parameters, state and images."""
  network, images = make_small(), jax.random.normal(KEY, (4, 8, 8, 3))
  init = jax.jit(network.init, static_argnums=2)
  apply = jax.jit(network.apply, static_argnums=4)
  return apply, *init(KEY, images, True), images


def test_each_block_begins_as_its_shortcut(small):
  apply, params, state, images = small
  changed = hk.data_structures.map(
    lambda module, _, x: 3 * x[::-1] if '/conv_' in module else x, params
  )
  expected, _ = apply(params, state, None, images, True)
  logits, _ = apply(changed, state, None, images, True)
  np.testing.assert_array_equal(logits, expected)
  assert jnp.std(expected) > 0
  scaled = jax.tree.map(
    lambda x: x if x.any() else jnp.full_like(x, 0.3), changed
  )
  logits, _ = apply(scaled, state, None, images, True)
  assert not np.allclose(logits, expected)


def test_weights_begin_as_the_recipe_says(small):
  _, params, _, _ = small
  kernel = np.asarray(params['stage_3/block_0/conv_2']['w'])  # [3, 3, 64, 64]
  deviation = (1 / (9 * 64)) ** 0.5
  np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
  np.testing.assert_allclose(kernel.mean(), 0, atol=0.02 * deviation)
  cut = 2 * deviation / 0.87962566103423978
  assert 0.9 * cut < np.abs(kernel).max() <= cut
  last = np.asarray(params['logits']['w'])  # [64, 10]
  np.testing.assert_allclose(last.std(), 0.01, rtol=0.1)
  np.testing.assert_array_equal(params['logits']['b'], 0.0)


@pytest.mark.parametrize('make', [make_wide, make_alexnet])
def test_dropout_is_in_training_only(make):
  changes = {'depth': 10, 'width': 1} if make is make_wide else {}
  network = make(dropout=0.5, **changes)
  images = jax.random.normal(KEY, (2, 8, 8, 3))
  params, state = jax.jit(network.init, static_argnums=2)(KEY, images, True)
  train = jax.jit(lambda key: network.apply(params, state, key, images, True))
  one, other = (train(jax.random.key(i))[0] for i in (1, 2))
  assert not np.allclose(one, other)
  # In evaluation the key is not even needed.
  jax.eval_shape(lambda p: network.apply(p, state, None, images, False), params)


def test_bfloat16_keeps_statistics_and_gradients_in_float32(small):
  _, params, state, images = small

  def loss(params):
    logits, new_state = make_small('bfloat16').apply(
      params, state, None, images, True
    )
    return jnp.mean(jnp.square(logits)), (logits, new_state)

  found = jax.eval_shape(jax.grad(loss, has_aux=True), params)
  floats = [x for x in jax.tree.leaves(found) if x.dtype != jnp.int32]
  assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}


def test_bfloat16_ranks_gradients_as_float32_does(small):
  # RigL grows by this ranking: bfloat16 alone has 128 values per power of two.
  _, params, state, images = small
  labels = jnp.arange(4)
  params = hk.data_structures.map(
    lambda _, name, x: jnp.ones_like(x) if name == 'scale' else x, params
  )

  def scores(dtype):
    def loss(params):
      logits, _ = make_small(dtype).apply(params, state, None, images, True)
      return classification.cross_entropy(logits, labels)

    # On a CPU, XLA might leave out a rounding to bfloat16.
    gradient = jax.jit(
      jax.grad(loss), compiler_options={'xla_allow_excess_precision': False}
    )
    return jax.tree.map(jnp.abs, gradient(params))

  found, expected = (scores(dtype) for dtype in ('bfloat16', 'float32'))
  for block in range(1, 4):
    module = f'stage_{block}/block_0/conv_1'
    ours, theirs = (np.ravel(x[module]['w']) for x in (found, expected))
    assert len(np.unique(ours)) > 0.99 * len(np.unique(theirs))
    assert scipy.stats.spearmanr(ours, theirs)[0] > 0.95


def test_layers_multiply_in_bfloat16():
  network = make_resnet50(compute_dtype='bfloat16')
  params, state = shapes_of(network, (32, 32, 3))
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  jaxpr = jax.make_jaxpr(
    lambda params, state, x: network.apply(params, state, None, x, True)
  )(params, state, images)
  text = str(jaxpr)
  names = ('conv_general_dilated[', 'dot_general[')
  lines = [line for line in text.splitlines() if any(n in line for n in names)]
  assert len(lines) == 54
  assert all('bf16' in line.split('=')[0] for line in lines)


def test_the_activations_of_blocks_may_be_computed_again():
  network = make_resnet50(num_classes=2, remat='blocks')
  params, state = shapes_of(network, (32, 32, 3))
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  jaxpr = jax.make_jaxpr(
    jax.grad(lambda p, s, x: network.apply(p, s, None, x, True)[0].sum())
  )(params, state, images)
  products = 3 * 53 - 1  # no gradient of the images
  assert str(jaxpr).count('conv_general_dilated[') == products + 52  # no stem


def test_a_convolution_is_padded_alike_for_even_and_odd_sizes():
  def forward(x, is_training):
    del is_training
    return layers.conv(x, 1, 3, stride=2, name='conv')

  network = layers.transform(forward, compute_dtype='float32')
  image = jax.random.normal(KEY, (1, 8, 8, 1))
  params, state = network.init(KEY, image, True)
  even, odd = (
    network.apply(params, state, None, image[:, :side, :side], True)[0]
    for side in (8, 7)
  )
  assert odd.shape == even.shape == (1, 4, 4, 1)
  np.testing.assert_allclose(odd[:, :3, :3], even[:, :3, :3], rtol=1e-6)


def test_a_convolution_of_patches_is_the_convolution():
  def conv(x, channels, kernel, **options):
    return layers.Conv2D(channels, kernel, **options)(x)

  def of_patches(x, *args, **options):
    last = jnp.moveaxis(x, (0, 3), (3, 0))
    y = layers.patch_conv(last, *args, **options)
    return jnp.moveaxis(y, (0, 3), (3, 0))

  def network(conv, padding):
    options = {'padding': padding, 'w_init': layers.fan_in(1.0)}
    return hk.without_apply_rng(
      hk.transform(lambda x: conv(x, 4, 5, **options, name='conv'))
    )

  images = jax.random.normal(KEY, (2, 8, 7, 3))
  for padding in ('SAME', 'VALID'):
    expected, found = (network(each, padding) for each in (conv, of_patches))
    params = expected.init(KEY, images)
    jax.tree.map(np.testing.assert_array_equal, params, found.init(KEY, images))
    one, other = (each.apply(params, images) for each in (expected, found))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_stem_with_a_stride_quarters_the_work():
  def flops(stem_stride):
    network = make_wide(num_classes=10, depth=10, stem_stride=stem_stride)
    params, state = shapes_of(network, (32, 32, 3))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    logits = jax.jit(lambda p, s, x: network.apply(p, s, None, x, False)[0])
    return logits.lower(params, state, images).cost_analysis()['flops']

  assert 3.5 < flops(1) / flops(2) < 4.5
