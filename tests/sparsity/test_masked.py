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
from sparsity.kernels import native
from tests.sparsity import trainers
import topkast

TOLERANCES = {jnp.float32: 2e-6, jnp.bfloat16: 1e-2}

PRODUCTS = [  # batch, in, out, density
  (3, 5, 7, 0.5),
  (65, 129, 300, 0.02),  # several strips and blocks, the last ones not full
  (17, 1100, 40, 0.004),
  (4, 130, 260, 1.0),
]
CONVOLUTIONS = [  # kernel, stride, padding, size of the result
  ((3, 3), 2, 'SAME', (3, 3)),
  ((5, 3), (2, 1), ((2, 1), (0, 1)), (3, 5)),
]


@functools.cache
def make_problems():
  """Returns products as (multiply, x, w, mask, dy), in both dtypes."""
  rng = np.random.default_rng(0)
  layers = [
    (sparsity.matmul, (batch, n), (n, m), (batch, m), density)
    for batch, n, m, density in PRODUCTS
  ] + [
    (
      functools.partial(sparsity.conv, stride=stride, padding=padding),
      (3, 6, 6, 20),
      (*kernel, 20, 33),
      (3, *size, 33),
      0.1,
    )
    for kernel, stride, padding, size in CONVOLUTIONS
  ]
  problems = []
  for multiply, *shapes, density in layers:
    mask = rng.random(shapes[1]) < density
    mask[..., :1], mask[..., -1:] = False, True  # an empty and a full output
    arrays = [rng.normal(size=shape) for shape in shapes]
    for dtype in TOLERANCES:
      x, w, dy = (jnp.asarray(array, dtype) for array in arrays)
      problems.append((multiply, x, w, jnp.asarray(mask), dy))
  return problems


def differentiate(multiply, weight, x, w, mask, dy):
  y, pull = jax.vjp(lambda x, w: multiply(x, weight(w, mask)), x, w)
  return y, *pull(dy)


@functools.cache
def expected_products():
  """Returns y, dx, and dw of the masked weight, in float32."""
  results = []
  for multiply, x, w, mask, dy in make_problems():
    x, w, dy = (a.astype(jnp.float32) for a in (x, w, dy))
    with jax.default_matmul_precision('highest'):
      results.append(
        jax.jit(
          lambda x, w, dy, multiply=multiply: differentiate(
            multiply, lambda w, mask: w, x, w, None, dy
          )
        )(x, jnp.where(mask, w, 0), dy)
      )
  return results


def test_products_equal_those_of_the_masked_weight(implementation):
  problems = make_problems()

  def run(arrays):
    return [
      differentiate(problem[0], masked.MaskedWeights, *tree)
      for problem, tree in zip(problems, arrays, strict=True)
    ]

  with kernels.use(implementation):
    found = jax.jit(run)([problem[1:] for problem in problems])
  for problem, results, expected in zip(
    problems, found, expected_products(), strict=True
  ):
    dtype = problem[1].dtype
    for a, b in zip(results, expected, strict=True):
      assert a.dtype == dtype
      scale = np.abs(b).max() + 1
      error = np.abs(np.asarray(a, np.float64) - b).max() / scale
      assert error < TOLERANCES[dtype.type]


def test_masked_entries_are_not_multiplied(implementation):
  masks = {
    'none': jnp.zeros((40, 30), bool),
    'some': jnp.asarray(np.eye(40, 30, dtype=bool)),
    'all': jnp.ones((40, 30), bool),
  }

  @jax.jit
  def run(masks):
    return {
      name: differentiate(
        sparsity.matmul,
        masked.MaskedWeights,
        jnp.ones((5, 40)),
        jnp.where(mask, 2.0, jnp.nan),
        mask,
        jnp.ones((5, 30)),
      )
      for name, mask in masks.items()
    }

  with kernels.use(implementation):
    found = run(masks)
  for name, mask in masks.items():
    y, dx, dw = found[name]
    weight = np.where(mask, 2.0, 0.0)
    np.testing.assert_array_equal(y, np.broadcast_to(weight.sum(0), (5, 30)))
    np.testing.assert_array_equal(dx, np.broadcast_to(weight.sum(1), (5, 40)))
    np.testing.assert_array_equal(dw, 5.0)


def test_vmap_maps_over_weights_and_masks():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(3, 8, 40)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(3, 40, 30)), jnp.float32)
  mask = jnp.asarray(rng.random((3, 40, 30)) < 0.2)

  def run(x, w, mask):
    return sparsity.matmul(x, masked.MaskedWeights(w, mask))

  found = jax.jit(jax.vmap(run))(x, w, mask)
  expected = jnp.matmul(x, jnp.where(mask, w, 0))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


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
  assert sparsity.overlap(*sets) < 1  # a refresh has changed them
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


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
  jax.tree.map(
    np.testing.assert_array_equal,
    masked.write_out(weights),
    sparsity.forward_weights(params, state),
  )
  return [
    module
    for module in params
    if any(map(masked.is_masked, weights[module].values()))
  ]


@pytest.fixture
def params():
  shapes = {'large': (200, 128), 'small': (128, 3), 'rank_3': (3, 100, 128)}
  return {
    name: {'w': jnp.arange(1.0, np.prod(shape) + 1).reshape(shape)}
    for name, shape in shapes.items()
  }


@pytest.mark.usefixtures('is_native')
def test_large_sparse_matrices_are_skipped(params):
  assert find_skipped(make_tx(), params, skip=True) == ['large']


@pytest.mark.usefixtures('is_native')
@pytest.mark.parametrize(
  'make',
  [
    lambda: make_tx(density=0.4),
    lambda: make_tx(scope='global'),
    lambda: sparsity.gradual(
      optax.sgd(0.1), density=0.1, start=0, end=10, prune_every=1
    ),
  ],
  ids=['dense', 'global', 'gradual'],
)
def test_other_methods_give_masked_arrays(make, params):
  assert find_skipped(make(), params, skip=True) == []


def test_several_devices_give_masked_arrays(params, monkeypatch):
  assert find_skipped(make_tx(), params, skip=False) == []
  assert jax.device_count() > 1
  assert find_skipped(make_tx(), params) == []
  if not native.problem():
    monkeypatch.setattr(jax, 'device_count', lambda: 1)
    assert find_skipped(make_tx(), params) == ['large']


def test_other_kernels_give_masked_arrays(params):
  with kernels.use('xla'):
    assert find_skipped(make_tx(), params, skip=True) == []


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
  jax.tree.map(
    np.testing.assert_array_equal,
    sparsity.value_and_grad(loss)(weights),
    expected,
  )
  with pytest.raises(KeyError, match='an error of the model'):
    sparsity.grad(lambda _: {}['an error of the model'])(weights)
  with pytest.raises(ValueError, match='an error of the model'):
    sparsity.grad(lambda _: int('an error of the model'))(weights)


def test_other_transformations_are_refused(params):
  tx = optax.sgd(1.0)
  with pytest.raises(ValueError, match='expected a sparse method such as'):
    sparsity.masked_weights(tx, params, tx.init(params))


def test_mismatched_shapes_are_errors():
  w = masked.MaskedWeights(jnp.ones((4, 3)), jnp.ones((3, 4), bool))
  with pytest.raises(ValueError, match=r'expected a weight .* of its shape'):
    sparsity.matmul(jnp.ones((2, 4)), w)
  w = masked.MaskedWeights(jnp.ones((4, 3)), jnp.ones((4, 3), bool))
  with pytest.raises(ValueError, match=r'expected x'):
    sparsity.matmul(jnp.ones((2, 5)), w)
