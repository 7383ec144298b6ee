"""Products that skip masked weights, against the masked weight written out."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import kernels
from sparsity import masked
import topkast

TOLERANCES = {jnp.float32: 2e-6, jnp.bfloat16: 1e-2}


def written_out(x, w, mask, dy, multiply):
  """Returns y, dx and dw, of which dw is that of the masked w, in float32."""
  x, w, dy = (a.astype(jnp.float32) for a in (x, w, dy))
  with jax.default_matmul_precision('highest'):
    y, pull = jax.vjp(multiply, x, jnp.where(mask, w, 0))
    return y, *pull(dy)


def skipped(x, w, mask, dy, multiply, implementation):
  """Returns the same of `MaskedWeights`."""

  @jax.jit
  def run(x, w, mask, dy):
    def call(x, values):
      return multiply(x, masked.MaskedWeights(values, mask))

    y, pull = jax.vjp(call, x, w)
    return y, *pull(dy)

  with kernels.use(implementation):
    return run(x, w, mask, dy)


def compare(x_shape, w_shape, y_shape, density, dtype, multiply, name, seed=0):
  """Compares y, dx and dw, one output of the weight empty and one full."""
  rng = np.random.default_rng(seed)
  x, w, dy = (
    jnp.asarray(rng.normal(size=shape), dtype)
    for shape in (x_shape, w_shape, y_shape)
  )
  mask = rng.random(w_shape) < density
  mask[..., :1], mask[..., -1:] = False, True
  expected = written_out(x, w, mask, dy, multiply)
  found = skipped(x, w, jnp.asarray(mask), dy, multiply, name)
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == dtype
    scale = np.abs(b).max() + 1
    error = np.abs(np.asarray(a, np.float64) - b).max() / scale
    assert error < TOLERANCES[dtype]


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(
  ('batch', 'num_inputs', 'num_outputs', 'density'),
  [
    (3, 5, 7, 0.5),
    (60, 300, 129, 0.1),
    (65, 129, 300, 0.02),  # strips of more than 128, rows of no whole block
    (1, 64, 64, 0.3),
    (17, 1100, 40, 0.004),
    (4, 130, 260, 1.0),
  ],
)
def test_products(
  implementation, batch, num_inputs, num_outputs, density, dtype
):
  compare(
    (batch, num_inputs),
    (num_inputs, num_outputs),
    (batch, num_outputs),
    density,
    dtype,
    sparsity.matmul,
    implementation,
  )


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize(
  ('kernel', 'stride', 'padding', 'size'),
  [
    ((3, 3), 1, 'SAME', (6, 6)),
    ((3, 3), 2, 'SAME', (3, 3)),
    ((1, 1), 1, 'VALID', (6, 6)),
    ((5, 3), (2, 1), ((2, 1), (0, 1)), (3, 5)),
  ],
)
def test_convolutions(implementation, kernel, stride, padding, size, dtype):
  compare(
    (3, 6, 6, 20),
    (*kernel, 20, 33),
    (3, *size, 33),
    0.1,
    dtype,
    functools.partial(sparsity.conv, stride=stride, padding=padding),
    implementation,
  )


@pytest.mark.parametrize('mask', [False, True])
def test_all_and_nothing_active(implementation, mask):
  x, w = jnp.ones((5, 40)), jnp.ones((40, 30))
  ones = jnp.full((40, 30), mask)
  y, dx, dw = skipped(
    x, w, ones, jnp.ones((5, 30)), sparsity.matmul, implementation
  )
  np.testing.assert_array_equal(y, 40.0 * mask)
  np.testing.assert_array_equal(dx, 30.0 * mask)
  np.testing.assert_array_equal(dw, 5.0)


def test_masked_weights_are_not_multiplied(implementation):
  mask = jnp.asarray(np.eye(40, 30, dtype=bool))
  w = jnp.where(mask, 2.0, jnp.nan)
  y, dx, _ = skipped(
    jnp.ones((5, 40)),
    w,
    mask,
    jnp.ones((5, 30)),
    sparsity.matmul,
    implementation,
  )
  np.testing.assert_array_equal(y, 2.0)
  assert np.isfinite(dx).all()


def test_side_by_side():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(3, 8, 40)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(3, 40, 30)), jnp.float32)
  mask = jnp.asarray(rng.random((3, 40, 30)) < 0.2)

  def run(x, w, mask):
    return sparsity.matmul(x, masked.MaskedWeights(w, mask))

  found = jax.jit(jax.vmap(run))(x, w, mask)
  for i in range(3):
    np.testing.assert_allclose(found[i], run(x[i], w[i], mask[i]), rtol=1e-5)


class Problem:
  """A network of one sparse layer that is large enough and one that is not."""

  def __init__(self, linear=sparsity.modules.Linear):
    def net(x):
      hidden = jax.nn.relu(linear(128, name='first')(x))
      return linear(3, name='second')(hidden)

    self.net = hk.without_apply_rng(hk.transform(net))
    self.batch = jax.random.normal(jax.random.key(1), (16, 200))
    self.params = self.net.init(jax.random.key(0), self.batch)

  def loss(self, weights):
    """Returns a loss that depends on everything."""
    return jnp.mean(jnp.square(self.net.apply(weights, self.batch) - 1.0))

  def train(self, tx, see, num_steps=12):
    """Returns parameters, state and losses."""

    @jax.jit
    def step(params, state):
      loss, gradients = sparsity.value_and_grad(self.loss)(see(params, state))
      updates, state = tx.update(gradients, state, params)
      return optax.apply_updates(params, updates), state, loss

    params, state, losses = self.params, tx.init(self.params), []
    for _ in range(num_steps):
      params, state, loss = step(params, state)
      losses.append(loss)
    return params, state, np.array(losses)


def make_tx(name='topkast', density=0.1):
  if name == 'topkast':
    return topkast.topkast(
      optax.adam(1e-2),
      forward_density=density,
      backward_density=2 * density,
      refresh_every=3,
    )
  if name == 'rigl':
    return sparsity.rigl(
      optax.adam(1e-2),
      density=density,
      refresh_every=3,
      stop_refresh_at=100,
      drop_fraction=0.3,
    )
  return sparsity.static(optax.adam(1e-2), density=density)


@pytest.mark.parametrize('name', ['topkast', 'rigl', 'static'])
@pytest.mark.parametrize('linear', [sparsity.modules.Linear, hk.Linear])
def test_training_ends_where_masked_training_does(name, linear):
  problem, tx = Problem(linear), make_tx(name)
  plain = problem.train(tx, sparsity.forward_weights)
  skipping = problem.train(tx, functools.partial(sparsity.masked_weights, tx))
  assert plain[2][-1] < 0.5 * plain[2][0]
  np.testing.assert_allclose(skipping[2], plain[2], rtol=1e-4)
  for a, b in zip(
    jax.tree.leaves(skipping[:2]), jax.tree.leaves(plain[:2]), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_what_is_skipped():
  problem = Problem()
  cases = {
    make_tx(): [True, False],  # the second layer is small
    make_tx(density=0.4): [False, False],
    topkast.topkast(
      optax.sgd(0.1), forward_density=0.1, backward_density=0.2, scope='global'
    ): [False, False],
    sparsity.gradual(
      optax.sgd(0.1), density=0.1, start=0, end=10, prune_every=1
    ): [False, False],
  }
  for tx, expected in cases.items():
    state = tx.init(problem.params)
    weights = sparsity.masked_weights(tx, problem.params, state)
    found = [masked.is_masked(weights[name]['w']) for name in problem.params]
    assert found == expected
    seen = sparsity.forward_weights(problem.params, state)
    for a, b in zip(
      jax.tree.leaves(
        jax.tree.map(jnp.asarray, weights, is_leaf=masked.is_masked)
      ),
      jax.tree.leaves(seen),
      strict=True,
    ):
      np.testing.assert_array_equal(a, b)


def test_other_transformations_are_refused():
  params = Problem().params
  tx = optax.sgd(1.0)
  with pytest.raises(ValueError, match='expected a sparse method such as'):
    sparsity.masked_weights(tx, params, tx.init(params))


def test_shapes_that_do_not_match():
  w = masked.MaskedWeights(jnp.ones((4, 3)), jnp.ones((3, 4), bool))
  with pytest.raises(ValueError, match=r'expected a weight .* of its shape'):
    sparsity.matmul(jnp.ones((2, 4)), w)
  w = masked.MaskedWeights(jnp.ones((4, 3)), jnp.ones((4, 3), bool))
  with pytest.raises(ValueError, match=r'expected x'):
    sparsity.matmul(jnp.ones((2, 5)), w)
