"""Wide residual, AlexNet and LeNet networks: sizes, training, types."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.data import mnist
from experiments.models import alexnet
from experiments.models import convnet
from experiments.models import layers
from experiments.models import wide_resnet
import sparsity

KEY = jax.random.key(0)


def make_wide(dtype='float32', **changes):
  arguments = {'depth': 22, 'width': 2, 'dropout': 0.0, 'num_classes': 10}
  return wide_resnet.wide_resnet(
    **{**arguments, **changes}, compute_dtype=dtype
  )


def make_alexnet(dtype='float32', **changes):
  arguments = {'dropout': 0.0, 'num_classes': 10}
  return alexnet.alexnet(**{**arguments, **changes}, compute_dtype=dtype)


def make_lenet5(dtype='float32', **changes):
  return convnet.lenet5(**{'num_classes': 10, **changes}, compute_dtype=dtype)


def conv_size(kernel, inputs, outputs):
  return kernel * kernel * inputs * outputs


# name: make, shape of an image, (weights, scales and offsets, biases)
NETWORKS = {
  'wide_resnet': (
    make_wide,
    (32, 32, 3),
    (
      conv_size(3, 3, 16)
      + sum(
        conv_size(1, before, after)
        + conv_size(3, before, after)
        + 5 * conv_size(3, after, after)
        for before, after in ((16, 32), (32, 64), (64, 128))
      )
      + 128 * 10,
      2 * (16 + 5 * 32 + 32 + 5 * 64 + 64 + 5 * 128 + 128),
      10,
    ),
  ),
  'alexnet': (
    make_alexnet,
    (32, 32, 3),
    (
      conv_size(3, 3, 64)
      + conv_size(3, 64, 128)
      + conv_size(3, 128, 256)
      + 2 * conv_size(3, 256, 256)
      + 4 * 4 * 256 * 512
      + 512 * 512
      + 512 * 10,
      0,
      64 + 128 + 3 * 256 + 2 * 512 + 10,
    ),
  ),
  'lenet5': (make_lenet5, (28, 28, 1), (61_470, 0, 236)),
}


CONSTRUCTORS = {
  'wide_resnet': (wide_resnet, 'wide_resnet'),
  'alexnet': (alexnet, 'alexnet'),
  'lenet5': (convnet, 'lenet5'),
}


def shapes_of(network, shape):
  images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  return jax.eval_shape(lambda x: network.init(KEY, x, True), images)


@pytest.mark.parametrize('name', NETWORKS)
def test_every_parameter_is_a_weight_a_bias_or_of_a_norm(name):
  make, shape, expected = NETWORKS[name]
  params, _ = shapes_of(make(), shape)
  weights = sparsity.select.selected_paths(params, sparsity.is_weight)
  leaves = list(sparsity.select.named_leaves(params))
  counts = (
    sum(x.size for x in weights.values()),
    sum(x.size for _, leaf, x in leaves if leaf in ('scale', 'offset')),
    sum(x.size for _, leaf, x in leaves if leaf == 'b'),
  )
  assert counts == expected
  assert sum(counts) == sum(x.size for _, _, x in leaves)
  constructor = getattr(*CONSTRUCTORS[name])
  assert f'{counts[0]:,} weights' in ' '.join(constructor.__doc__.split())


def draw(network, images):
  """Returns parameters and state without compiling `init`."""
  params, state = jax.eval_shape(lambda x: network.init(KEY, x, True), images)
  rng = np.random.default_rng(0)

  def normal(x):
    scale = (2 / max(x.size // x.shape[-1], 1)) ** 0.5
    return jnp.asarray(scale * rng.normal(size=x.shape), x.dtype)

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
  return jax.tree.map(normal, params), zeros


@pytest.fixture(scope='module', params=sorted(NETWORKS))
def network(request):
  """Returns a small network by compute type, parameters, state and images."""
  make, shape, _ = NETWORKS[request.param]
  shape = (8, 8, 3) if shape[-1] == 3 else shape
  if make is make_wide:
    make = functools.partial(make_wide, depth=10, width=1)
  images = jax.random.normal(KEY, (4, *shape))
  return make, *draw(make(), images), images


def test_bfloat16_computes_nearly_the_same(network):
  make, params, state, images = network
  outputs = [
    jax.jit(make(dtype).apply, static_argnums=4)(
      params, state, None, images, True
    )[0]
    for dtype in ('float32', 'bfloat16')
  ]
  assert {x.dtype for x in outputs} == {jnp.dtype(jnp.float32)}
  assert outputs[0].shape == (4, 10)
  error = jnp.abs(outputs[0] - outputs[1]).max()
  assert 0 < error < 0.1 * jnp.std(outputs[0])


@pytest.mark.parametrize('make', [make_wide, make_alexnet])
def test_dropout_is_in_training_only(make):
  changes = {'depth': 10, 'width': 1} if make is make_wide else {}
  network = make(dropout=0.5, **changes)
  images = jax.random.normal(KEY, (2, 8, 8, 3))
  params, state = draw(network, images)

  def logits(params, rng, is_training):
    return network.apply(params, state, rng, images, is_training)[0]

  train = jax.jit(functools.partial(logits, is_training=True))
  one, again, other = (train(params, jax.random.key(i)) for i in (1, 1, 2))
  np.testing.assert_array_equal(one, again)
  assert not np.allclose(one, other)
  # In evaluation nothing depends on the key: it is not even needed.
  assert jax.eval_shape(lambda p: logits(p, None, False), params).shape == (
    2, 10
  )  # fmt: skip


def test_lenet5_learns_from_a_few_batches():
  network = make_lenet5()
  images, labels = (x[:1000] for x in mnist.load(data_dir=None).train)
  optimizer = optax.adam(5e-3)
  params, state = network.init(KEY, images[:1], True)

  @jax.jit
  def step(params, opt_state, images, labels):
    def loss_fn(params):
      logits, _ = network.apply(params, state, None, images, True)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return jnp.mean(losses)

    loss, gradients = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss

  opt_state, losses = optimizer.init(params), []
  for i in range(40):
    batch = slice(25 * i, 25 * (i + 1))
    params, opt_state, loss = step(
      params, opt_state, images[batch], labels[batch]
    )
    losses.append(loss)
  assert losses[0] > 2
  assert np.mean(losses[-5:]) < 1


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: make_wide(depth=21), r'depth = 6n \+ 4 .* got 21'),
    (lambda: make_wide(depth=4), r'depth = 6n \+ 4 .* got 4'),
    (lambda: make_wide(width=0), 'expected width and num_classes >= 1'),
    (lambda: make_wide(dropout=1.0), r'dropout in \[0, 1\), got 1.0'),
    (lambda: make_alexnet(dropout=-0.1), r'dropout in \[0, 1\), got -0.1'),
    (lambda: make_alexnet(num_classes=0), 'expected num_classes >= 1, got 0'),
    (lambda: make_lenet5(num_classes=0), 'expected num_classes >= 1, got 0'),
    (lambda: make_lenet5('int8'), 'expected compute_dtype out of'),
  ],
)
def test_bad_arguments_are_errors_at_once(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_convolution_is_padded_alike_for_even_and_odd_sizes():
  def forward(x, is_training):
    del is_training
    return layers.conv(x, 1, 3, stride=2, name='conv')

  network = layers.transform(forward, compute_dtype='float32')
  image = jax.random.normal(KEY, (1, 8, 8, 1))
  params, state = network.init(KEY, image, True)
  kernel = params['conv']['w'][:, :, 0, 0]
  padded = np.pad(image[0, :, :, 0], 1)
  expected = [
    [np.sum(padded[i : i + 3, j : j + 3] * kernel) for j in range(0, 8, 2)]
    for i in range(0, 8, 2)
  ]
  even, _ = network.apply(params, state, None, image, True)
  np.testing.assert_allclose(even[0, :, :, 0], expected, rtol=1e-5, atol=1e-6)
  odd, _ = network.apply(params, state, None, image[:, :7, :7], True)
  assert odd.shape == even.shape
  np.testing.assert_allclose(odd[:, :3, :3], even[:, :3, :3], rtol=1e-6)


def test_a_convolution_of_patches_is_the_convolution():
  def forward(cls, padding):
    def apply(x, is_training):
      del is_training
      options = {'padding': padding, 'w_init': layers.fan_in(1.0)}
      return cls(4, 5, **options, name='conv')(x)

    return layers.transform(apply, compute_dtype='float32')

  images = jax.random.normal(KEY, (2, 8, 7, 3))
  for padding in ('SAME', 'VALID'):
    expected, found = (
      forward(cls, padding) for cls in (layers.Conv2D, layers.PatchConv2D)
    )
    params, state = expected.init(KEY, images, True)
    jax.tree.map(
      np.testing.assert_array_equal, params, found.init(KEY, images, True)[0]
    )
    one, other = (
      network.apply(params, state, None, images, True)[0]
      for network in (expected, found)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
