"""Programs that are stricter than most, or sharded, or of other dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import powerprop
import sparsity
import topkast

PATTERNS = sparsity.patterns
DENSITY = {'density': 0.25}
SETS = {'forward_density': 0.25, 'backward_density': 0.5}
METHODS = {
  'topkast': lambda tx: topkast.topkast(tx, **SETS, refresh_every=2),
  'topkast random': lambda tx: topkast.topkast(
    tx, **SETS, exploration='random'
  ),
  'topkast global': lambda tx: topkast.topkast(tx, **SETS, scope='global'),
  'static': lambda tx: sparsity.static(tx, **DENSITY),
  'snip': lambda tx: sparsity.snip(tx, **DENSITY, scores=make_params()),
  'magnitude': lambda tx: sparsity.magnitude(
    tx, **DENSITY, at=2, score='saliency', pattern=PATTERNS.channels()
  ),
  'gradual': lambda tx: sparsity.gradual(
    tx, **DENSITY, start=0, end=4, prune_every=2, pattern=PATTERNS.n_of_m(2, 4)
  ),
  'acdc': lambda tx: sparsity.acdc(
    tx, **DENSITY, start=1, end=3, phase_steps=1, grow_at=0.1
  ),
  'set': lambda tx: sparsity.set_(
    tx, **DENSITY, refresh_every=1, grow_at=0.1, pattern=PATTERNS.block(2, 2)
  ),
  'rigl': lambda tx: sparsity.rigl(
    tx, **DENSITY, refresh_every=2, stop_refresh_at=9, grow_at=0.1
  ),
  'rigl n:m': lambda tx: sparsity.rigl(
    tx,
    **DENSITY,
    refresh_every=2,
    stop_refresh_at=9,
    pattern=PATTERNS.n_of_m(1, 4),
  ),
}


def make_params(dtype=np.float32):
  rng = np.random.default_rng(0)
  w = rng.normal(size=(16, 8)).astype(dtype)
  w[0] = 0  # where powers have no logarithm
  return {
    'l': {'w': jnp.asarray(w), 'b': jnp.zeros(8, dtype)},
    'm': {'w': jnp.asarray(rng.normal(size=(8, 4)).astype(dtype))},
  }


def loss(weights):
  w, b, v = weights['l']['w'], weights['l']['b'], weights['m']['w']
  x = jnp.eye(16, dtype=w.dtype) + 1
  hidden = jax.nn.relu(x @ w + jnp.broadcast_to(b, (16, 8)))
  return jnp.mean((hidden @ v) ** 2)


def train(method, alpha, params, num_steps=3, gather=lambda weights: weights):
  inner = optax.chain(
    topkast.exploration_penalty(1e-3), optax.sgd(1e-2, momentum=0.9)
  )
  tx = METHODS[method](powerprop.powerprop(inner, alpha))

  @jax.jit
  def step(params, state):
    weights = topkast.weights(powerprop.to_weights(params, alpha), state)
    gradients = jax.grad(lambda weights: loss(gather(weights)))(weights)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  params = powerprop.from_weights(params, alpha)
  state = tx.init(params)
  for _ in range(num_steps):
    params, state = step(params, state)
  return params, state


@pytest.fixture
def strict():
  with (
    jax.numpy_dtype_promotion('strict'),
    jax.debug_nans(True),
    jax.debug_infs(True),
  ):
    yield


@pytest.mark.parametrize(
  ('method', 'alpha'),
  [
    *((method, 1.375) for method in METHODS),
    *(('topkast', alpha) for alpha in (1, 1.3, 2, 3, 4)),
  ],
)
def test_methods_and_powers_run_in_strict_modes(strict, method, alpha):
  params, state = train(method, alpha, make_params())
  gradient = jax.grad(lambda p: loss(powerprop.to_weights(p, alpha)))(params)
  assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradient))
  assert sparsity.overlap(*state.sets, params) == 1


@pytest.mark.parametrize('dtype', ['bfloat16', 'float64'])
def test_other_dtypes_stay_and_run_in_strict_modes(strict, dtype):
  with jax.enable_x64(dtype == 'float64'):
    params, state = train('topkast', 1.3, make_params(jnp.dtype(dtype)))
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {dtype}
    assert int(state.sets.forward['l']['w'].sum()) == 32


@pytest.mark.parametrize('method', METHODS)
def test_sets_over_explicit_axes_are_those_of_one_device(method):
  expected = train(method, 2, make_params())
  with jax.set_mesh(jax.make_mesh((4,), ('data',))):
    spec = jax.sharding.PartitionSpec
    params = jax.tree.map(
      lambda x: jax.device_put(x, spec('data') if x.ndim > 1 else spec()),
      make_params(),
    )
    params, state = train(
      method, 2, params, gather=lambda w: jax.sharding.reshard(w, spec())
    )
    mask = state.sets.forward['l']['w']
    assert jax.typeof(mask).sharding.spec == spec('data', None)
    outside = sparsity.topk_mask(params['l']['w'], 5, magnitude=True)
  for x, y in zip(
    jax.tree.leaves(expected), jax.tree.leaves((params, state)), strict=True
  ):
    if x.dtype == bool:
      np.testing.assert_array_equal(x, y)
    else:
      np.testing.assert_allclose(x, y, atol=1e-6)
  np.testing.assert_array_equal(
    outside, sparsity.topk_mask(expected[0]['l']['w'], 5, magnitude=True)
  )
