import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import powerprop
from sparsity import select
from tests import oracles

KEY = jax.random.key(0)

MODULES = {
  'Linear': ((6,), (2, 5)),
  'Conv1D': ((3, 2), (2, 8, 4)),
  'Conv2D': ((3, 2), (2, 8, 8, 4)),
  'Conv3D': ((3, 2), (2, 4, 4, 4, 3)),
  'Conv1DTranspose': ((3, 2), (2, 8, 4)),
  'Conv2DTranspose': ((3, 2), (2, 8, 8, 4)),
  'Conv3DTranspose': ((3, 2), (2, 4, 4, 4, 3)),
}


def usual(shape, dtype):
  """Initializer that compiles nothing."""
  values = np.random.default_rng(len(shape)).normal(size=shape)
  return jnp.asarray(values / np.sqrt(np.prod(shape[:-1])), dtype)


def transform(fn):
  return hk.without_apply_rng(hk.transform(fn))


def network(x):
  x = hk.Conv2D(4, 3, w_init=usual)(x)
  x = hk.BatchNorm(True, True, 0.9)(x, is_training=True)
  x = hk.Flatten()(jax.nn.relu(x))
  return hk.nets.MLP([8, 3], w_init=usual)(x)


@pytest.mark.parametrize(
  ('name', 'alpha'),
  [
    ('Linear', 1.3),
    ('Conv2D', 2),
    ('Conv2DTranspose', 2),
    *(
      pytest.param(name, 2, marks=pytest.mark.nightly)
      for name in MODULES
      if '2D' not in name
    ),
  ],
)
def test_module_equals_the_plain_one_on_theta(name, alpha):
  args, shape = MODULES[name]
  x = jax.random.normal(jax.random.key(1), shape)
  net = transform(
    lambda x: getattr(powerprop, name)(*args, w_init=usual, alpha=alpha)(x)
  )
  plain = transform(lambda x: getattr(hk, name)(*args, w_init=usual)(x))

  params = net.init(KEY, x)
  oracles.assert_close(
    params, powerprop.from_weights(plain.init(KEY, x), alpha)
  )

  def reference(params):
    return jnp.sum(plain.apply(powerprop.to_weights(params, alpha), x) ** 2)

  def module(params):
    return jnp.sum(net.apply(params, x) ** 2)

  actual = jax.jit(jax.value_and_grad(module))(params)
  oracles.assert_close(
    actual, jax.jit(jax.value_and_grad(reference))(params), 1e-4, 1e-5
  )


@pytest.mark.parametrize(
  ('alpha', 'selected'),
  [
    (2, select.is_weight),
    ({'conv2_d': 3, 'mlp/~/linear_1/w': 1.5}, select.is_weight),
    (2, select.matching('linear_1/w')),
  ],
)
def test_context_equals_the_tree_functions_on_a_network(alpha, selected):
  def parameterized(x):
    with powerprop.parameterize(alpha, selected):
      return network(x)

  net, plain = (
    hk.without_apply_rng(hk.transform_with_state(fn))
    for fn in (parameterized, network)
  )
  x = jax.random.normal(jax.random.key(1), (4, 6, 6, 3))
  params, state = net.init(KEY, x)
  weights, _ = plain.init(KEY, x)
  oracles.assert_close(params, powerprop.from_weights(weights, alpha, selected))
  oracles.assert_close(powerprop.to_weights(params, alpha, selected), weights)

  def value_and_grad(apply):
    def value(params):
      return jnp.sum(apply(params, state, x)[0] ** 2)

    return jax.jit(jax.value_and_grad(value))(params)

  def through(params, *rest):
    return plain.apply(powerprop.to_weights(params, alpha, selected), *rest)

  oracles.assert_close(
    value_and_grad(net.apply), value_and_grad(through), 1e-4, 1e-4
  )


def constructed(x):
  with powerprop.parameterize(2):
    net = hk.nets.MLP([3, 2])
  return net(x)


def misspelt(x):
  with powerprop.parameterize({'linear': 2, 'liner_1': 2}):
    return hk.Linear(3, w_init=usual)(x)


def failing(x):
  with powerprop.parameterize(2):
    raise ValueError('inside')


@pytest.mark.parametrize(
  ('forward', 'message'),
  [
    (constructed, 'around the call'),
    (misspelt, r"\['liner_1'\].*\n  linear/w"),
    (failing, '^inside'),  # not hidden by the check of the context
    (lambda x: powerprop.Linear(3, alpha=0.5)(x), 'alpha'),
    (lambda x: powerprop.Linear(3, alpha=None)(x), 'alpha'),
  ],
)
def test_an_unused_context_or_bad_alpha_is_an_error(forward, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(transform(forward).init, KEY, jnp.ones((1, 2)))
