"""The kernels under JAX's transformations: vmap, devices, other platforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels
from sparsity.kernels import native

OPTIONS = {'stride': 1, 'padding': 'VALID'}


@pytest.fixture(params=['xla', 'native'])
def implementation(request):
  if request.param == 'native' and native.problem():
    pytest.skip(native.problem())
  with kernels.use(request.param):
    yield request.param


def make_weight(shape, forward, backward):
  """Returns a structure, its values, and the dense W_A."""
  rng = np.random.default_rng(0)
  scores = rng.random(shape)
  structure = kernels.from_masks(scores < forward, scores < backward)
  values = rng.normal(size=structure.columns.shape)
  weight = np.zeros(shape)
  front = len(structure.t_columns)
  outputs = kernels.outputs_of(structure, shape)[:front]
  weight[structure.columns[:front], outputs] = values[:front]
  return structure, jnp.asarray(values, jnp.float32), weight


def multiply(x, values, structure, shape):
  pixels = x[:, None, None]
  return kernels.conv(pixels, values, structure, (1, 1, *shape), **OPTIONS)


def assert_close(actual, expected):
  actual = actual.reshape(expected.shape)
  np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)


@pytest.mark.usefixtures('implementation')
def test_vmap_maps_over_examples_and_over_weights():
  structure, values, weight = make_weight((6, 5), 0.4, 0.7)
  rng = np.random.default_rng(3)
  x = jnp.asarray(rng.normal(size=(4, 3, 6)), jnp.float32)
  scales = jnp.arange(1.0, 5.0)

  @jax.jit
  @jax.vmap
  def product(x, scale):
    return multiply(x, values * scale, structure, (6, 5))

  expected = (np.asarray(x) @ weight) * np.asarray(scales)[:, None, None]
  assert_close(product(x, scales), expected)


@pytest.mark.usefixtures('implementation')
@pytest.mark.parametrize('is_shard_map', [False, True])
def test_four_devices_equal_one(is_shard_map):
  shape = (40, 24)
  structure, values, weight = make_weight(shape, 0.2, 0.4)
  mesh = jax.make_mesh((4,), ('batch',))
  part = jax.sharding.PartitionSpec('batch')
  x = np.random.default_rng(4).normal(size=(36, 40))
  sharded = jax.device_put(
    jnp.asarray(x, jnp.float32), jax.NamedSharding(mesh, part)
  )

  def product(x, values, structure):
    return multiply(x, values, structure, shape)

  if is_shard_map:
    whole = jax.sharding.PartitionSpec()
    product = jax.shard_map(
      product,
      mesh=mesh,
      in_specs=(part, whole, whole),
      out_specs=part,
      check_vma=False,  # the native call does not track varying axes
    )
  y = jax.jit(product)(sharded, values, structure)
  assert_close(y, x @ weight)


def test_a_function_lowers_for_other_platforms():
  structure, values, _ = make_weight((6, 5), 0.4, 0.7)

  @jax.jit
  def product(x):
    return multiply(x, values, structure, (6, 5))

  exported = jax.export.export(product, platforms=['tpu', 'cuda'])
  x = jax.ShapeDtypeStruct((3, 6), jnp.float32)
  assert 'sparsity_' not in exported(x).mlir_module()


def test_results_of_many_threads_are_deterministic():
  if native.problem():
    pytest.skip(native.problem())
  shape = (64, 700)
  structure, values, _ = make_weight(shape, 0.3, 0.5)
  x = jnp.asarray(np.random.default_rng(5).normal(size=(700, 64)), jnp.float32)

  @jax.jit
  def products(x):
    weight = structure, (1, 1, *shape)
    y = multiply(x, values, structure, shape)
    # Independent of each other: XLA may run them concurrently.
    dx = kernels.conv_dx(y, values, *weight, image_size=(1, 1), **OPTIONS)
    return y, dx, kernels.conv_dw(x[:, None, None], y, *weight, **OPTIONS)

  with kernels.use('native'):
    first = jax.tree.map(np.asarray, products(x))
  for _ in range(50):
    jax.tree.map(np.testing.assert_array_equal, first, products(x))
