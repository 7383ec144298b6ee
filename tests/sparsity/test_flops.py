"""FLOPs and bytes against counts by hand, and against published ones."""

import math

import haiku as hk
import jax
import jax.numpy as jnp
import pytest

from experiments.models import resnet
import powerprop
import sparsity
from sparsity import flops

KEY = jax.random.key(0)
W = jax.ShapeDtypeStruct((3, 5), jnp.float32)
X = jax.ShapeDtypeStruct((2, 3), jnp.float32)


def shape(*axes, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(axes, dtype)


def count(fn, params, *args):
  """Returns FLOPs by path, without the zeros, and of no parameter."""
  network = flops.count(fn, params, *args)
  by_path = {layer.path: layer.flops for layer in network.layers if layer.flops}
  return by_path, network.other


def loop_conv(image, kernel, stride):
  """Returns how many products a padded convolution makes, one by one."""
  height, width, _ = image
  size, _, num_in, num_out = kernel
  products = 0
  for _ in range(0, height, stride):
    for _ in range(0, width, stride):
      products += size * size * num_in * num_out
  return products


def test_a_matrix_product_is_two_flops_for_each_pair():
  by_path, other = count(lambda p, x: x @ p['w'], {'w': W}, X)
  assert by_path == {'w': 2 * 2 * 3 * 5}
  assert other == 0


@pytest.mark.parametrize(('stride', 'kernel'), [(1, 3), (2, 3), (2, 1), (3, 5)])
def test_a_convolution_is_counted_as_by_loops(stride, kernel):
  network = hk.without_apply_rng(
    hk.transform(lambda x: hk.Conv2D(7, kernel, stride)(x))
  )
  images = shape(1, 9, 8, 4)
  params = jax.eval_shape(network.init, KEY, images)
  by_path, other = count(network.apply, params, images)
  products = loop_conv((9, 8, 4), (kernel, kernel, 4, 7), stride)
  assert by_path == {'conv2_d/w': 2 * products}
  assert other == 0


def test_a_grouped_convolution_sees_a_share_of_the_channels():
  network = hk.without_apply_rng(
    hk.transform(lambda x: hk.Conv2D(8, 3, feature_group_count=4)(x))
  )
  images = shape(1, 5, 5, 4)
  params = jax.eval_shape(network.init, KEY, images)
  by_path, _ = count(network.apply, params, images)
  assert by_path == {'conv2_d/w': 2 * 5 * 5 * 9 * 1 * 8}


def test_a_transposed_convolution_has_a_product_for_each_input():
  network = hk.without_apply_rng(
    hk.transform(lambda x: hk.Conv2DTranspose(6, 2, 2)(x))
  )
  images = shape(1, 5, 5, 4)
  params = jax.eval_shape(network.init, KEY, images)
  by_path, _ = count(network.apply, params, images)
  assert by_path == {'conv2_d_transpose/w': 2 * 5 * 5 * 4 * 2 * 2 * 6}


@pytest.mark.parametrize(
  'change',
  [
    lambda w: w.astype(jnp.bfloat16).astype(jnp.float32),
    lambda w: w * jnp.abs(w),
    lambda w: jnp.where(w > 0, w, 0.0),
    lambda w: w * sparsity.topk_mask(w, 4, magnitude=True),
    lambda w: powerprop.to_weights(w, 3.0),
    lambda w: powerprop.to_weights(w, 1.375),
    lambda w: w.T.reshape(5, 3).T,
    lambda w: jnp.concatenate([w[:1], w[1:]]),
    lambda w: w / jnp.linalg.norm(w),
    lambda w: jax.lax.stop_gradient(w),
    lambda w: jax.checkpoint(jnp.sin)(w),
    lambda w: w + 0.1 * jax.random.normal(KEY, w.shape),
    lambda w: jax.lax.optimization_barrier(w),
    lambda w: jax.jit(lambda w: -w)(w),
  ],
)
def test_a_parameter_is_followed_through(change):
  by_path, other = count(lambda p, x: x @ change(p['w']), {'w': W}, X)
  assert by_path == {'w': 2 * 2 * 3 * 5}
  assert other == 0


def test_masks_among_the_arguments_are_no_data():
  def fn(params, mask, x):
    return x @ (params['w'] * mask)

  mask = shape(3, 5, dtype=bool)
  assert count(fn, {'w': W}, mask, X) == ({'w': 60}, 0)


@pytest.mark.parametrize('batch', [1, 2])
def test_biases_and_scales_make_no_parameter_of_activations(batch):
  def fn(params, x):
    x = x @ params['a'] + params['b']
    return (x * params['scale']) @ params['c']

  params = {'a': W, 'b': shape(1, 5), 'c': shape(5, 4), 'scale': shape(1, 5)}
  by_path, other = count(lambda p, x: fn(p, x), params, shape(batch, 3))
  assert by_path == {'a': batch * 30, 'c': batch * 40}
  assert other == 0


def test_attention_scores_belong_to_no_parameter():
  num_heads, size, length = 2, 4, 6

  def forward(x):
    return hk.MultiHeadAttention(
      num_heads, size, w_init=hk.initializers.RandomNormal()
    )(x, x, x)

  network = hk.without_apply_rng(hk.transform(forward))
  x = shape(1, length, 8)
  params = jax.eval_shape(network.init, KEY, x)
  by_path, other = count(network.apply, params, x)
  assert by_path == {
    f'multi_head_attention/{name}/w': 2 * length * 8 * 8
    for name in ('query', 'key', 'value', 'linear')
  }
  assert other == 2 * 2 * num_heads * length * length * size


def test_tied_weights_are_counted_at_each_use():
  def fn(params, tokens):
    x = params['embed'][tokens]  # a look-up: no product
    return x @ params['embed'].T

  by_path, other = count(fn, {'embed': shape(9, 4)}, shape(6, dtype=jnp.int32))
  assert by_path == {'embed': 2 * 6 * 4 * 9}
  assert other == 0


def test_joined_parameters_divide_their_flops():
  def fn(params, x):
    return x @ jnp.concatenate([params['a'], params['b']], axis=1)

  by_path, other = count(fn, {'a': W, 'b': shape(3, 2)}, X)
  assert by_path == {'a': 2 * 2 * 3 * 5, 'b': 2 * 2 * 3 * 2}
  assert other == 0


def test_a_scan_counts_each_round():
  def fn(params, x):
    def body(x, w):
      return jax.nn.relu(x @ w), None

    return jax.lax.scan(body, x, params['w'])[0]

  by_path, _ = count(fn, {'w': shape(7, 3, 3)}, X)
  assert by_path == {'w': 7 * 2 * 2 * 3 * 3}


def test_a_recurrent_network_counts_each_step():
  def forward(x):
    core = hk.LSTM(5)
    return hk.dynamic_unroll(core, x, core.initial_state(2))[0]

  network = hk.without_apply_rng(hk.transform(forward))
  x = shape(7, 2, 3)
  params = jax.eval_shape(network.init, KEY, x)
  by_path, other = count(network.apply, params, x)
  assert by_path == {'lstm/linear/w': 7 * 2 * 2 * (3 + 5) * 20}
  assert other == 0


def test_a_loop_of_known_length_counts_each_round():
  def fn(params, x):
    return jax.lax.fori_loop(0, 4, lambda _, x: x @ params['w'], x)

  assert count(fn, {'w': shape(3, 3)}, X)[0] == {'w': 4 * 2 * 2 * 3 * 3}


def test_a_loop_of_unknown_length_is_an_error():
  def fn(params, x):
    return jax.lax.while_loop(
      lambda x: jnp.sum(x) < 3, lambda x: x @ params['w'], x
    )

  with pytest.raises(ValueError, match='loops of a known length'):
    flops.count(fn, {'w': shape(3, 3)}, X)


def test_the_dearest_branch_counts():
  def fn(params, x):
    return jax.lax.cond(
      jnp.sum(x) > 0,
      lambda x: x @ params['w'] @ params['v'],
      lambda x: x @ params['w'],
      x,
    )

  params = {'v': shape(3, 3), 'w': shape(3, 3)}
  assert count(fn, params, X)[0] == {'v': 36, 'w': 36}


def with_own_gradient(fn):
  wrapped = jax.custom_vjp(fn)
  wrapped.defvjp(lambda w, x: (fn(w, x), (w, x)), lambda saved, _: saved)
  return wrapped


@pytest.mark.parametrize('wrap', [jax.checkpoint, jax.jit, with_own_gradient])
def test_products_within_other_functions_are_found(wrap):
  def fn(params, x):
    return wrap(lambda w, x: x @ w)(params['w'], x)

  assert count(fn, {'w': W}, X) == ({'w': 60}, 0)


def test_products_that_cannot_be_counted_are_an_error():
  mesh = jax.make_mesh((1,), ('batch',), (jax.sharding.AxisType.Auto,))

  def fn(params, x):
    product = jax.shard_map(
      lambda w, x: x @ w, mesh=mesh, in_specs=jax.P(), out_specs=jax.P()
    )
    return product(params['w'], x)

  with pytest.raises(ValueError, match="outside of 'shard_map'"):
    flops.count(fn, {'w': W}, X)


def test_the_number_of_examples_is_a_factor():
  network = resnet.resnet32(num_classes=10, compute_dtype='bfloat16')
  one, four = (traced(network, shape(batch, 32, 32, 3)) for batch in (1, 4))
  for a, b in zip(one.layers, four.layers, strict=True):
    assert 4 * a.flops == b.flops
  stages = [(432 + 10 * 2304, 1024), (4608 + 9 * 9216, 256)]
  stages += [(18_432 + 9 * 36_864, 64), (640, 1)]
  products = sum(size * num_pixels for size, num_pixels in stages)
  assert flops.forward(one) == 2 * products


def traced(network, images):
  params, state = jax.eval_shape(lambda x: network.init(KEY, x, True), images)

  def apply(params, state, images):
    return network.apply(params, state, None, images, False)[0]

  return flops.count(apply, params, state, images)


@pytest.fixture(scope='module')
def resnet50():
  network = resnet.resnet50(num_classes=1000, compute_dtype='bfloat16')
  return traced(network, shape(1, 224, 224, 3))


def test_resnet50_makes_4089_million_products(resnet50):
  assert flops.forward(resnet50) == 2 * 4_089_184_256
  assert resnet50.other == 0
  assert sum(layer.size for layer in resnet50.layers) == 25_557_032
  used = [layer for layer in resnet50.layers if layer.flops]
  assert sum(layer.size for layer in used) == 25_502_912
  assert len(used) == 54


# README of google-research/rigl: sparsity, FLOPs of inference as a share of
# dense, and of five times as long training.
RIGL = [
  ('uniform', 0.8, 0.23, 1.14),
  ('uniform', 0.9, 0.13, 0.66),
  ('uniform', 0.95, 0.08, 0.42),
  ('uniform', 0.965, 0.07, 0.34),
  ('erdos_renyi_kernel', 0.8, 0.42, 2.09),
  ('erdos_renyi_kernel', 0.9, 0.24, 1.23),
  ('erdos_renyi_kernel', 0.95, 0.12, 0.63),
  ('erdos_renyi_kernel', 0.965, 0.09, 0.45),
]


def as_rigl_counts(network):
  """Returns the network with what RigL counts beyond our conventions.

  One FLOP for the activation of each output, whatever the density; and the
  first convolution, whose input its Keras model pads in a layer before, as if
  the padded image of 230 pixels were padded again: 115 pixels of output a side
  and not 112. (The repository's Resnet_50_Param_Flops_Counting.ipynb and
  sparse_utils.get_stats, counting.py of google-research/micronet_challenge.)
  """
  layers, num_outputs = [], 0
  for layer in network.layers:
    if layer.path == 'stem/conv/w':
      assert layer.flops == 2 * layer.size * 112**2
      layer = layer._replace(flops=2 * layer.size * 115**2)
    if layer.flops:
      num_outputs += layer.flops * layer.shape[-1] // (2 * layer.size)
    layers.append(layer)
  return flops.Network(tuple(layers), network.other + num_outputs)


def test_dense_resnet50_has_the_flops_that_rigl_prints(resnet50):
  assert f'{flops.forward(as_rigl_counts(resnet50)):.1e}' == '8.2e+09'


@pytest.mark.parametrize(('name', 'level', 'inference', 'training'), RIGL)
def test_shares_of_resnet50_are_those_that_rigl_prints(
  resnet50, name, level, inference, training
):
  network = as_rigl_counts(resnet50)
  weights = {layer.path: layer.shape for layer in network.layers if layer.flops}
  if name == 'uniform':  # the first convolution is dense, and does not count
    del weights['stem/conv/w']
  distribution = getattr(sparsity, name)
  densities = distribution(weights, 1 - level)
  dense = flops.forward(network)
  assert round(flops.forward(network, densities) / dense, 2) == inference
  cost = flops.train_rigl(network, densities, refresh_every=100)
  assert round(5 * cost / (3 * dense), 2) == training


def test_shares_by_our_conventions_are_within_a_hundredth(resnet50):
  weights = {
    layer.path: layer.shape for layer in resnet50.layers if layer.flops
  }
  for name, level, inference, _ in RIGL:
    densities = getattr(sparsity, name)(weights, 1 - level)
    share = flops.forward(resnet50, densities) / flops.forward(resnet50)
    if name == 'uniform':
      assert math.isclose(share, 1 - level)
    else:
      assert abs(share - inference) < 0.01


NETWORK = flops.Network(
  (
    flops.Layer('a/w', (4, 5), 20, 400),
    flops.Layer('b/b', (5,), 5, 0),
    flops.Layer('b/w', (5, 2), 10, 200),
  ),
  50,
)
DENSITIES = {'a/w': 0.25}


def test_sparse_layers_cost_their_density():
  assert flops.forward(NETWORK) == 650
  assert flops.forward(NETWORK, DENSITIES) == 350


def test_a_step_costs_three_forward_passes():
  assert flops.train(NETWORK) == 3 * 650
  assert flops.train(NETWORK, DENSITIES) == 3 * 350


def test_topkast_costs_two_forward_sets_and_a_backward_set():
  backward = {'a/w': 0.5}
  assert flops.train(NETWORK, DENSITIES, backward) == 2 * 350 + 450


def test_rigl_costs_a_dense_gradient_on_some_steps():
  steps = [3 * 350] * 9 + [2 * 350 + 650]
  cost = flops.train_rigl(NETWORK, DENSITIES, refresh_every=9)
  assert math.isclose(cost, sum(steps) / len(steps))


@pytest.mark.parametrize(
  ('num_steps', 'start', 'end', 'every'),
  [(40, 10, 30, 5), (40, 10, 30, 7), (25, 10, 30, 4), (5, 10, 30, 5),
   (40, 0, 3, 10)],
)  # fmt: skip
def test_gradual_pruning_is_a_mean_over_its_steps(num_steps, start, end, every):
  schedule = sparsity.cubic(0.2, start=start, end=end)
  is_due = sparsity.every_to(end, every, start=start)
  density, total = 1.0, 0.0
  for step in range(num_steps):
    if is_due(step):
      density = float(schedule(step))
    total += 3 * flops.forward(NETWORK, {'a/w': density, 'b/w': density})
  unpruned = flops.unpruned_gradual(
    num_steps=num_steps, start=start, end=end, prune_every=every
  )
  cost = flops.train_pruned(
    NETWORK, {'a/w': 0.2, 'b/w': 0.2}, unpruned=unpruned
  )
  assert math.isclose(cost, total / num_steps, rel_tol=1e-6)


@pytest.mark.parametrize(
  ('num_kept', 'expected'),
  [(1000, 4000), (990, 4000), (500, 2125), (31, 248), (32, 253), (0, 0)],
)
def test_bytes_are_those_of_the_smallest_form(num_kept, expected):
  assert flops.num_bytes(1000, num_kept) == expected


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: flops.forward(NETWORK, {'c/w': 0.5}), r"got \['c/w'\]"),
    (lambda: flops.forward(NETWORK, {'a/w': 1.5}), 'got a/w: 1.5'),
    (
      lambda: flops.train_rigl(NETWORK, DENSITIES, refresh_every=0),
      'refresh_every >= 1, got 0',
    ),
    (
      lambda: flops.train_pruned(NETWORK, DENSITIES, unpruned=-0.1),
      r'unpruned in \[0, 1\], got -0.1',
    ),
    (
      lambda: flops.unpruned_gradual(
        num_steps=9, start=5, end=5, prune_every=1
      ),
      '0 <= start < end',
    ),
    (lambda: flops.num_bytes(8, 9), 'num_kept from 0 to 8, got 9'),
  ],
)
def test_bad_input_is_an_error(call, message):
  with pytest.raises(ValueError, match=message):
    call()
