"""The Haiku form against the tree functions."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
from tests import oracles
import topkast

KEY = jax.random.key(0)
DENSITIES = {'forward_density': 0.25, 'backward_density': 0.5}
RATE = 0.05


def transform(fn):
  return hk.without_apply_rng(hk.transform_with_state(fn))


def usual(shape, dtype):
  """An initializer that compiles nothing."""
  values = np.random.default_rng(len(shape)).normal(size=shape)
  return jnp.asarray(values / np.sqrt(np.prod(shape[:-1])), dtype)


def network(x):
  x = jnp.tanh(hk.Conv2D(3, 2, w_init=usual)(x))
  x = hk.nets.MLP([6, 4], w_init=usual, activation=jnp.tanh)(hk.Flatten()(x))
  return x.sum(-1)


IMAGES = jax.random.normal(jax.random.key(1), (4, 4, 4, 2))
TARGETS = jax.random.normal(jax.random.key(2), (7, 4))
X = jnp.ones((1, 8))


@functools.cache
def initialized():
  """Returns a sparse network, its parameters and its state."""

  def forward(x, refresh):
    with topkast.sparsified(refresh=refresh, **DENSITIES):
      return network(x)

  net = transform(forward)
  return net, *jax.jit(net.init, static_argnums=2)(KEY, IMAGES, True)


def sets_in(state):
  """Returns the sets by layer path, from the Haiku state of one context."""
  return {k: v for k, v in state['topkast'].items() if k != 'count'}


def assert_same_sets(haiku_state, tree_sets):
  found = sets_in(haiku_state)
  assert len(found) == 3
  for i in (0, 1):
    expected = sparsity.select.pick(tree_sets[i], found)
    oracles.assert_same({path: x[i] for path, x in found.items()}, expected)


@pytest.mark.parametrize(
  ('options', 'alpha'),
  [
    ({'refresh_every': 1, 'stop_refresh_at': 2}, 1),
    ({'refresh_every': 2, 'exploration': 'random', 'seed': 5}, 2),
  ],
)
def test_training_by_sgd_equals_the_tree_form_at_every_step(options, alpha):
  def forward(x, refresh):
    with (
      powerprop.parameterize(alpha),
      topkast.sparsified(refresh=refresh, **DENSITIES, **options),
    ):
      return network(x)

  net, plain = transform(forward), transform(network)
  params, state = jax.jit(net.init, static_argnums=2)(KEY, IMAGES, True)
  tx = topkast.topkast(
    powerprop.powerprop(optax.sgd(RATE), alpha), **DENSITIES, **options
  )
  tree_params = powerprop.from_weights(plain.init(KEY, IMAGES)[0], alpha)
  tree_state = jax.jit(tx.init)(tree_params)
  oracles.assert_close(params, tree_params)

  @jax.jit
  def step(params, state, target):
    def loss(params):
      out, new_state = net.apply(params, state, IMAGES, True)
      return jnp.mean((out - target) ** 2), (out, new_state)

    (_, (out, new_state)), gradients = jax.value_and_grad(loss, has_aux=True)(
      params
    )
    params = jax.tree.map(lambda p, g: p - RATE * g, params, gradients)
    return params, new_state, out, gradients

  @jax.jit
  def tree_step(params, state, target):
    def loss(weights):
      out, _ = plain.apply(weights, {}, IMAGES)
      return jnp.mean((out - target) ** 2), out

    weights = topkast.weights(powerprop.to_weights(params, alpha), state)
    (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, out, updates

  changed = 0
  for t in range(7):
    sets_before = topkast.active_sets(tree_state)
    params, state, out, gradients = step(params, state, TARGETS[t])
    tree_params, tree_state, tree_out, updates = tree_step(
      tree_params, tree_state, TARGETS[t]
    )
    assert_same_sets(state, sets_before)
    oracles.assert_close(out, tree_out)
    oracles.assert_close(jax.tree.map(lambda g: -RATE * g, gradients), updates)
    oracles.assert_close(params, tree_params)
    assert int(state['topkast']['count']) == t + 1
    after = topkast.active_sets(tree_state)
    changed += not jax.tree.all(
      jax.tree.map(np.array_equal, sets_before, after)
    )
  assert changed >= 2


def test_evaluation_uses_the_stored_sets_and_changes_nothing():
  net, params, state = initialized()
  found = jax.jit(net.init, static_argnums=2)(KEY, IMAGES, False)
  oracles.assert_same(found, (params, state))
  apply = jax.jit(net.apply, static_argnums=3)
  other = jax.tree.map(lambda x: x[::-1], params)
  out, same = apply(other, state, IMAGES, False)
  oracles.assert_same(same, state)
  sets = sets_in(state)
  masked = sparsity.select.put(
    other,
    {
      path: x * sets[path].forward
      for path, x in sparsity.select.pick(other, sets).items()
    },
  )
  expected, _ = transform(network).apply(masked, {}, IMAGES)
  oracles.assert_close(out, expected)
  _, changed = apply(other, state, IMAGES, True)
  assert any(
    (changed['topkast'][path].forward != sets[path].forward).any()
    for path in sets
  )


@pytest.mark.parametrize(
  ('name', 'args', 'shape'),
  [('Linear', (5,), (2, 8)), ('Conv2D', (3, 2), (2, 4, 4, 2))],
)
def test_a_module_equals_the_plain_one_on_masked_weights(name, args, shape):
  options = {'w_init': usual, 'name': 'embed'}  # sparse, whatever its name
  densities = DENSITIES | {'forward_density': {'embed/w': 0.1}}
  module = getattr(topkast, name)
  net = transform(
    lambda x: module(*args, **options, **densities)(x, refresh=True)
  )
  plain = transform(lambda x: getattr(hk, name)(*args, **options)(x))
  x = jax.random.normal(KEY, shape)
  params, state = net.init(KEY, x)
  sets, w = state['topkast']['embed/w'], params['embed']['w']
  assert sets.forward.sum() == round(0.1 * w.size)
  assert sets.backward.sum() == w.size // 2
  masked = {'embed': params['embed'] | {'w': w * sets.forward}}
  out, _ = net.apply(params, state, x)
  oracles.assert_close(out, plain.apply(masked, {}, x)[0])


@pytest.mark.parametrize(
  'layers',
  [
    lambda x: hk.layer_stack(3)(lambda x: hk.Linear(4, w_init=usual)(x))(x),
    lambda x: hk.remat(lambda x: hk.Linear(4, w_init=usual)(x))(x),
    lambda x: hk.dynamic_unroll(hk.VanillaRNN(4), x, jnp.zeros(4))[0],
  ],
  ids=['layer_stack', 'remat', 'unroll'],
)
def test_inside_a_transformation_of_haiku_all_calls_count_as_one(layers):
  def forward(x, refresh):
    with topkast.sparsified(refresh=refresh, refresh_every=2, **DENSITIES):
      return layers(x)

  net = transform(forward)
  x = jax.random.normal(KEY, (3, 4))
  params, state = jax.jit(net.init, static_argnums=2)(KEY, x, True)
  step = jax.jit(net.apply, static_argnums=3)
  other = jax.tree.map(lambda p: jnp.roll(p, 1, axis=-1), params)
  histories = []
  for i, p in enumerate((params, other, other)):  # due, not due, due
    _, state = step(p, state, x, True)
    assert state['topkast']['count'] == i + 1
    masks = [x for x in jax.tree.leaves(state) if x.dtype == bool]
    histories.append(jax.device_get(masks))
  for first, second, third in zip(*histories, strict=True):
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.roll(first, 1, axis=-1), third)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'forward_density': 0.0}, r'forward_density in \(0, 1\], got 0\.0'),
    ({'exploration': 'rigl'}, "exploration out of .*'rigl'"),
    ({'refresh_every': 0}, 'interval >= 1, got 0'),
    (
      {'forward_density': {'liner/w': 0.1}},
      r"got \['liner/w'\]; selected are:\n  linear/w",
    ),
    ({'select': lambda *_: False}, 'around the call of a network'),
    (None, 'around the call of a network'),  # constructed within, called after
  ],
)
def test_a_bad_option_is_an_error(options, message):
  def forward(x):
    with topkast.sparsified(refresh=True, **(DENSITIES | (options or {}))):
      linear = hk.Linear(4)
      if options:
        linear(x)
    return linear(x)

  with pytest.raises(ValueError, match=message):
    jax.eval_shape(transform(forward).init, KEY, X)
