"""Residual networks: their layers and initial values."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import resnet
import sparsity

KEY = jax.random.key(0)
# name: network, image size, and (weights, scales and offsets, biases). In the
# literature ResNet-50 has 25,557,032 parameters, -18 11,689,512, -32 464,154.
NETWORKS = {
  'resnet50': (
    resnet.resnet50(num_classes=1000, compute_dtype='float32'),
    224,
    (25_502_912, 53_120, 1000),
  ),
  'resnet18': (
    resnet.resnet18(stem='imagenet', num_classes=1000, compute_dtype='float32'),
    224,
    (11_678_912, 9_600, 1000),
  ),
  'resnet32': (
    resnet.resnet32(num_classes=10, compute_dtype='float32'),
    32,
    (461_872, 2_272, 10),
  ),
}


def shapes_of(network, size, num_examples=2):
  images = jax.ShapeDtypeStruct((num_examples, size, size, 3), jnp.float32)
  return jax.eval_shape(lambda x: network.init(KEY, x, True), images)


def outputs_of(network, size):
  """Returns the shape of what each convolution and norm returns, in order."""
  found = {}

  def record(next_fn, args, kwargs, context):
    out = next_fn(*args, **kwargs)
    if context.method_name == '__call__':
      found[context.module.module_name] = out.shape
    return out

  with hk.intercept_methods(record):
    shapes_of(network, size)
  return found


@pytest.mark.parametrize('name', NETWORKS)
def test_parameters_are_as_many_as_in_the_literature(name):
  network, size, expected = NETWORKS[name]
  params, _ = shapes_of(network, size)
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  leaves = list(sparsity.select.named_leaves(params))
  counts = (
    sum(x.size for x in weights.values()),
    sum(x.size for _, leaf, x in leaves if leaf in ('scale', 'offset')),
    sum(x.size for _, leaf, x in leaves if leaf == 'b'),
  )
  assert counts == expected
  assert sum(counts) == sum(x.size for _, _, x in leaves)
  assert {path for path in weights if 'conv' not in path} == {'logits/w'}


def test_resnet50_has_the_stages_of_the_paper():
  network, size, _ = NETWORKS['resnet50']
  outputs = outputs_of(network, size)
  assert outputs['stem/conv'] == (2, 112, 112, 64)
  sizes = {1: (56, 256, 3), 2: (28, 512, 4), 3: (14, 1024, 6), 4: (7, 2048, 3)}
  for stage, (pixels, channels, num_blocks) in sizes.items():
    for block in range(num_blocks):
      name = f'stage_{stage}/block_{block}'
      assert outputs[f'{name}/norm_3'] == (2, pixels, pixels, channels)
      has_shortcut = f'{name}/shortcut_conv' in outputs
      assert has_shortcut == (block == 0)
      stride = 2 if stage > 1 and not block else 1  # in the 3x3 convolution
      assert outputs[f'{name}/conv_1'][1] == stride * pixels
      assert outputs[f'{name}/conv_2'][1] == pixels
  assert outputs['logits'] == (2, 1000)
  convolutions = [name for name in outputs if 'conv' in name]
  assert len(convolutions) == 53


@pytest.mark.parametrize('size', [32, 33])
def test_resnet32_has_three_stages_for_any_size(size):
  network, _, _ = NETWORKS['resnet32']
  outputs = outputs_of(network, size)
  half, quarter = (size + 1) // 2, ((size + 1) // 2 + 1) // 2
  assert outputs['stage_1/block_4/norm_2'] == (2, size, size, 16)
  assert outputs['stage_2/block_4/norm_2'] == (2, half, half, 32)
  assert outputs['stage_3/block_4/norm_2'] == (2, quarter, quarter, 64)


def test_the_stem_of_cifar_keeps_the_size():
  network = resnet.resnet18(
    stem='cifar', num_classes=10, compute_dtype='float32'
  )
  outputs = outputs_of(network, 32)
  assert outputs['stem/conv'] == (2, 32, 32, 64)
  assert outputs['stage_1/block_1/norm_2'] == (2, 32, 32, 64)
  assert outputs['stage_4/block_1/norm_2'] == (2, 4, 4, 512)


@pytest.fixture(scope='module')
def small():
  """Returns a ResNet-8 by its compute type, parameters, state and images."""
  networks = {
    dtype: resnet._resnet(
      resnet._basic_padded,
      num_blocks=(1, 1, 1),
      channels=(16, 32, 64),
      stem='cifar',
      num_classes=10,
      compute_dtype=dtype,
    )
    for dtype in ('float32', 'bfloat16')
  }
  images = jax.random.normal(KEY, (4, 8, 8, 3))
  init = jax.jit(networks['float32'].init, static_argnums=2)
  applies = {
    dtype: jax.jit(network.apply, static_argnums=4)
    for dtype, network in networks.items()
  }
  return applies, *init(KEY, images, True), images


def other_values(params):
  """Returns parameters with other scales, among them those that are zero."""
  return jax.tree.map(lambda x: x if x.any() else jnp.full_like(x, 0.3), params)


def test_each_block_begins_as_its_shortcut(small):
  applies, params, state, images = small
  changed = hk.data_structures.map(
    lambda module, _, x: 3 * x[::-1] if '/conv_' in module else x, params
  )
  assert not np.array_equal(
    params['stage_3/block_0/conv_2']['w'],
    changed['stage_3/block_0/conv_2']['w'],
  )
  expected, _ = applies['float32'](params, state, None, images, True)
  logits, _ = applies['float32'](changed, state, None, images, True)
  np.testing.assert_array_equal(logits, expected)
  assert jnp.std(expected) > 0
  logits, _ = applies['float32'](
    other_values(changed), state, None, images, True
  )
  assert not np.allclose(logits, expected)


def test_only_the_last_norm_of_a_block_begins_at_zero(small):
  _, params, _, _ = small
  for module, leaves in params.items():
    if 'norm' in module.split('/')[-1]:
      last = module.endswith('norm_2')
      np.testing.assert_array_equal(leaves['scale'], 0.0 if last else 1.0)
      np.testing.assert_array_equal(leaves['offset'], 0.0)


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


def test_statistics_follow_the_batch_in_training_only(small):
  applies, params, state, images = small
  _, evaluated = applies['float32'](params, state, None, images, False)
  jax.tree.map(np.testing.assert_array_equal, evaluated, state)
  # Haiku's first average is already that of the batch of `init`.
  _, trained = applies['float32'](params, state, None, 1 + images, True)
  for module, leaves in trained.items():
    for name, value in leaves.items():
      assert not np.array_equal(value, state[module][name]), (module, name)


def test_statistics_decay_by_a_tenth(small):
  applies, params, state, images = small
  for factor in (1.0, 3.0):  # The output of the first layer is linear in it.
    _, state = applies['float32'](params, state, None, factor * images, True)
  hidden = state['stem/norm/~/mean_ema']['hidden'].ravel()
  _, once = applies['float32'](
    params, jax.tree.map(jnp.zeros_like, state), None, images, True
  )
  mean = once['stem/norm/~/mean_ema']['hidden'].ravel() / 0.1
  np.testing.assert_allclose(hidden, 0.1 * 0.9 * mean + 0.1 * 3 * mean, 1e-4)


def test_bfloat16_computes_nearly_the_same(small):
  applies, params, state, images = small
  params = other_values(params)
  outputs = [
    applies[dtype](params, state, None, images, True)
    for dtype in ('float32', 'bfloat16')
  ]
  (expected, _), (logits, new_state) = outputs
  assert logits.dtype == jnp.float32
  floats = [x for x in jax.tree.leaves(new_state) if x.dtype != jnp.int32]
  assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}
  error = jnp.abs(logits - expected).max()
  assert 0 < error < 0.1 * jnp.std(expected)

  def loss(params):
    logits, _ = applies['bfloat16'](params, state, None, images, True)
    return jnp.mean(jnp.square(logits))

  gradients = jax.tree.leaves(jax.eval_shape(jax.grad(loss), params))
  assert {x.dtype for x in gradients} == {jnp.dtype(jnp.float32)}


def test_layers_multiply_in_bfloat16():
  network = resnet.resnet50(num_classes=1000, compute_dtype='bfloat16')
  params, state = shapes_of(network, 32)
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  jaxpr = jax.make_jaxpr(
    lambda params, state, x: network.apply(params, state, None, x, True)
  )(params, state, images)
  text = str(jaxpr)
  names = ('conv_general_dilated[', 'dot_general[')
  lines = [line for line in text.splitlines() if any(n in line for n in names)]
  assert len(lines) == 54
  assert all('bf16' in line.split('=')[0] for line in lines)


def test_a_batch_on_many_devices_has_the_statistics_of_all_of_it(small):
  applies, params, state, images = small
  mesh = jax.make_mesh((4,), ('batch',))
  sharding = jax.NamedSharding(mesh, jax.P('batch'))
  whole = jax.NamedSharding(mesh, jax.P())
  params = other_values(params)
  expected = applies['float32'](params, state, None, images, True)
  sharded = applies['float32'](
    jax.device_put(params, whole),
    jax.device_put(state, whole),
    None,
    jax.device_put(images, sharding),
    True,
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
    sharded,
    expected,
  )


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (
      lambda: resnet.resnet50(num_classes=10, compute_dtype='float16'),
      'expected compute_dtype out of',
    ),
    (
      lambda: resnet.resnet50(num_classes=0, compute_dtype='float32'),
      'expected num_classes >= 1, got 0',
    ),
    (
      lambda: resnet.resnet18(
        stem='mnist', num_classes=10, compute_dtype='float32'
      ),
      r"expected stem out of \['cifar', 'imagenet'\], got 'mnist'",
    ),
    (
      lambda: NETWORKS['resnet32'][0].init(KEY, jnp.ones((2, 784)), True),
      r'images \[B, H, W, C\], got \(2, 784\)',
    ),
  ],
)
def test_bad_arguments_are_errors(make, message):
  with pytest.raises(ValueError, match=message):
    make()
