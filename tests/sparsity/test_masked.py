"""Products that skip masked weights, against the masked weight written out."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import kernels
from sparsity import masked
from sparsity.kernels import native
from tests import oracles
from tests.sparsity import trainers
import topkast


def test_products_and_gradients_are_those_of_the_masked_weight():
  mask = jnp.asarray(np.eye(40, 30, dtype=bool))
  w = masked.MaskedWeights(jnp.where(mask, 2.0, jnp.nan), mask)

  def loss(w, x):
    return jnp.sum(sparsity.matmul(x, w))

  x = jnp.ones((5, 40))
  value, dw = sparsity.value_and_grad(loss)(w, x)
  assert value == 5 * 2 * 30
  np.testing.assert_array_equal(dw, 5.0 * jnp.ones(w.shape))  # dense
  dx = jax.grad(loss, argnums=1)(w, x)
  np.testing.assert_array_equal(dx[:, :30], 2.0)
  np.testing.assert_array_equal(dx[:, 30:], 0.0)


@pytest.fixture
def is_native(monkeypatch):
  """The native kernels in use; skips where they are not built."""
  if not native.supported():
    pytest.skip('native kernels are not built')
  monkeypatch.delenv('SPARSITY_KERNELS', raising=False)


@pytest.mark.usefixtures('is_native')
@pytest.mark.parametrize(
  'name', ['topkast', pytest.param('rigl', marks=pytest.mark.nightly)]
)
def test_training_equals_masked_training(name, monkeypatch):
  monkeypatch.setattr(masked, 'MIN_SIZE', 1)
  t = trainers.trainer(name)
  weights = sparsity.masked_weights(t.tx, *t.init_masked(), skip=True)
  assert masked.is_masked(weights['conv2_d']['w'])
  expected = t.train_masked(t.init_masked(), 0, 12)
  found = t.init_masked()
  for batch in trainers.make_batches()[:12]:
    found = t.skipping_step(*found, batch)
  sets = expected[1].sets.backward, t.init_masked()[1].sets.backward
  assert sparsity.overlap(*sets, found[0]) < 1  # a refresh has changed them
  oracles.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def make_tx(density=0.1, **options):
  return topkast.topkast(
    optax.sgd(0.1),
    forward_density=density,
    backward_density=2 * density,
    **options,
  )


def find_skipped(tx, params, **options):
  """Returns the paths of skipped layers; checks the weights' values."""
  state = tx.init(params)
  weights = sparsity.masked_weights(tx, params, state, **options)
  expected = sparsity.forward_weights(params, state)
  oracles.assert_same(masked.write_out(weights), expected)
  return [
    module
    for module in params
    if any(map(masked.is_masked, weights[module].values()))
  ]


@pytest.fixture
def params():
  shapes = {'large': (200, 128), 'small': (128, 3), 'rank_3': (3, 100, 128)}
  return oracles.normal({name: {'w': shapes[name]} for name in shapes}, 0)


@pytest.mark.usefixtures('is_native')
@pytest.mark.filterwarnings('ignore:scope=.global. leaves no active entry')
@pytest.mark.parametrize(
  ('make', 'expected'),
  [
    (make_tx, ['large']),
    (lambda: make_tx(density=0.4), []),
    (lambda: make_tx(scope='global'), []),
    (
      lambda: sparsity.gradual(
        optax.sgd(0.1), density=0.1, start=0, end=10, prune_every=1
      ),
      [],
    ),
  ],
  ids=['sparse', 'dense', 'global', 'gradual'],
)
def test_large_matrices_of_constant_sparsity_are_skipped(
  make, expected, params
):
  assert find_skipped(make(), params, skip=True) == expected


def test_several_devices_and_other_kernels_give_masked_arrays(
  params, monkeypatch
):
  assert find_skipped(make_tx(), params, skip=False) == []
  with kernels.use('xla'):
    assert find_skipped(make_tx(), params, skip=True) == []
  assert jax.device_count() > 1
  assert find_skipped(make_tx(), params) == []
  if not native.problem():
    monkeypatch.setattr(jax, 'device_count', lambda: 1)
    assert find_skipped(make_tx(), params) == ['large']


def test_layers_that_cannot_take_masked_weights_get_arrays():
  net = hk.without_apply_rng(hk.transform(lambda x: hk.Conv2D(64, 3)(x)))
  x = jax.random.normal(jax.random.key(0), (1, 4, 4, 40))
  params = net.init(jax.random.key(1), x)
  mask = np.random.default_rng(0).random((3, 3, 40, 64)) < 0.1
  w = masked.MaskedWeights(params['conv2_d']['w'], jnp.asarray(mask))
  weights = {'conv2_d': {**params['conv2_d'], 'w': w}}

  def loss(weights):
    return jnp.sum(jnp.sin(net.apply(weights, x)))

  expected = jax.value_and_grad(loss)(masked.write_out(weights))
  oracles.assert_same(sparsity.value_and_grad(loss)(weights), expected)
  with pytest.raises(ValueError, match='an error of the model'):
    sparsity.grad(lambda _: int('an error of the model'))(weights)


def test_other_transformations_and_mismatched_shapes_are_errors(params):
  tx = optax.sgd(1.0)
  with pytest.raises(ValueError, match='expected a sparse method such as'):
    sparsity.masked_weights(tx, params, tx.init(params))
  w = masked.MaskedWeights(jnp.ones((4, 3)), jnp.ones((3, 4), bool))
  with pytest.raises(ValueError, match=r'expected a weight .* of its shape'):
    sparsity.matmul(jnp.ones((2, 4)), w)
  with pytest.raises(ValueError, match=r'expected x'):
    sparsity.matmul(jnp.ones((2, 5)), w)
