"""Products of traced functions, and the parameters they belong to."""

import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import powerprop
import sparsity
from sparsity import flops

KEY = jax.random.key(0)
W = jax.ShapeDtypeStruct((3, 5), jnp.float32)
X = jax.ShapeDtypeStruct((2, 3), jnp.float32)


def shape(*axes, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(axes, dtype)


def count(fn, params, *args):
  """Returns the nonzero FLOPs by path, and those without a parameter."""
  network = flops.count(fn, params, *args)
  by_path = {layer.path: layer.flops for layer in network.layers if layer.flops}
  return by_path, network.other


def count_haiku(fn, *args):
  """Returns `count` of a function of Haiku modules."""
  network = hk.without_apply_rng(hk.transform(fn))
  params = jax.eval_shape(network.init, KEY, *args)
  return count(network.apply, params, *args)


@pytest.mark.parametrize(
  ('make', 'image', 'products'),
  [
    (lambda: hk.Conv2D(7, 3, 2), (9, 8, 4), 5 * 4 * 3 * 3 * 4 * 7),
    (lambda: hk.Conv2D(8, 3, feature_group_count=4), (5, 5, 4), 5 * 5 * 9 * 8),
    (lambda: hk.Conv2DTranspose(6, 2, 2), (5, 5, 4), 5 * 5 * 4 * 2 * 2 * 6),
  ],
)
def test_a_convolution_has_a_product_for_each_window_entry(
  make, image, products
):
  by_path, other = count_haiku(lambda x: make()(x), shape(1, *image))
  assert list(by_path.values()) == [2 * products]
  assert other == 0


@pytest.mark.parametrize(
  'change',
  [
    lambda w: w.astype(jnp.bfloat16).astype(jnp.float32),
    lambda w: jnp.where(w > 0, w, 0.0),
    lambda w: w * sparsity.topk_mask(w, 4, magnitude=True),
    lambda w: powerprop.to_weights(w, 1.375),
    lambda w: w.T.reshape(5, 3).T,
    lambda w: jnp.concatenate([w[:1], w[1:]]),
    lambda w: w / jnp.linalg.norm(w),
    lambda w: jax.lax.stop_gradient(w),
    lambda w: jax.checkpoint(jnp.sin)(w),
    lambda w: w + 0.1 * jax.random.normal(KEY, w.shape),
    lambda w: jax.jit(lambda w: jax.lax.optimization_barrier(-w))(w),
  ],
)
def test_a_parameter_is_followed_through(change):
  by_path, other = count(lambda p, x: x @ change(p['w']), {'w': W}, X)
  assert by_path == {'w': 2 * 2 * 3 * 5}
  assert other == 0


def test_attention_scores_belong_to_no_parameter():
  num_heads, size, length = 2, 4, 6

  def forward(x):
    return hk.MultiHeadAttention(
      num_heads, size, w_init=hk.initializers.RandomNormal()
    )(x, x, x)

  by_path, other = count_haiku(forward, shape(1, length, 8))
  assert by_path == {
    f'multi_head_attention/{name}/w': 2 * length * 8 * 8
    for name in ('query', 'key', 'value', 'linear')
  }
  assert other == 2 * 2 * num_heads * length * length * size


def scan(params, x):
  return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params['w'])[0]


def most_expensive(params, x):
  return jax.lax.cond(
    jnp.sum(x) > 0,
    lambda x: x @ params['w'] @ params['v'],
    lambda x: x @ params['w'],
    x,
  )


def biased(params, x):
  x = x @ params['a'] + params['b']
  return (x * params['scale']) @ params['c']


def with_own_gradient(fn):
  wrapped = jax.custom_vjp(fn)
  wrapped.defvjp(lambda w, x: (fn(w, x), (w, x)), lambda saved, _: saved)
  return wrapped


def matmul(w, x):
  return x @ w


BIASED = {'a': W, 'b': shape(1, 5), 'c': shape(5, 4), 'scale': shape(1, 5)}
SQUARE = shape(3, 3)


@pytest.mark.parametrize(
  ('fn', 'params', 'args', 'expected'),
  [
    # Biases and scales do not turn activations into parameters.
    (biased, BIASED, [shape(2, 3)], {'a': 60, 'c': 80}),
    # A mask among the arguments is not data.
    (
      lambda p, mask, x: x @ (p['w'] * mask),
      {'w': W},
      [shape(3, 5, dtype=bool), X],
      {'w': 60},
    ),
    # Tied weights; a look-up is no product.
    (
      lambda p, tokens: p['embed'][tokens] @ p['embed'].T,
      {'embed': shape(9, 4)},
      [shape(6, dtype=jnp.int32)],
      {'embed': 2 * 6 * 4 * 9},
    ),
    # Joined parameters divide the operations.
    (
      lambda p, x: x @ jnp.concatenate([p['a'], p['b']], axis=1),
      {'a': W, 'b': shape(3, 2)},
      [X],
      {'a': 2 * 2 * 3 * 5, 'b': 2 * 2 * 3 * 2},
    ),
    # Loops of known length count every iteration.
    (scan, {'w': shape(7, 3, 3)}, [X], {'w': 7 * 2 * 2 * 3 * 3}),
    (
      lambda p, x: jax.lax.fori_loop(0, 4, lambda _, x: x @ p['w'], x),
      {'w': SQUARE},
      [X],
      {'w': 4 * 2 * 2 * 3 * 3},
    ),
    (most_expensive, {'v': SQUARE, 'w': SQUARE}, [X], {'v': 36, 'w': 36}),
    (lambda p, x: jax.checkpoint(matmul)(p['w'], x), {'w': W}, [X], {'w': 60}),
    (
      lambda p, x: with_own_gradient(matmul)(p['w'], x),
      {'w': W},
      [X],
      {'w': 60},
    ),
  ],
)
def test_products_belong_to_their_parameters(fn, params, args, expected):
  assert count(fn, params, *args) == (expected, 0)


def unknown_length(params, x):
  return jax.lax.while_loop(
    lambda x: jnp.sum(x) < 3, lambda x: x @ params['w'], x
  )


def opaque(params, x):
  mesh = jax.make_mesh((1,), ('batch',), (jax.sharding.AxisType.Auto,))
  specs = {'in_specs': jax.P(), 'out_specs': jax.P()}
  return jax.shard_map(matmul, mesh=mesh, **specs)(params['w'], x)


@pytest.mark.parametrize(
  ('fn', 'message'),
  [
    (unknown_length, 'loops of a known length'),
    (opaque, "outside of 'shard_map'"),
  ],
)
def test_products_that_cannot_be_counted_are_an_error(fn, message):
  with pytest.raises(ValueError, match=message):
    flops.count(fn, {'w': SQUARE}, X)
