"""Every kernel, on every instruction set, against NumPy in double precision.

Also on several devices and for other platforms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels
from sparsity.kernels import native
from tests.sparsity import conftest

TOLERANCES = {jnp.float32: 2e-6, jnp.bfloat16: 8e-3}
PIXEL = (1, 1)


def cases(*quick, nightly=()):
  """Parametrizes over implementations and cases.

  Native kernels need no compilation and always run all cases; `xla` runs the
  nightly ones only at night.
  """
  return pytest.mark.parametrize(
    ('implementation', 'case'),
    [
      pytest.param(
        name,
        case,
        id=f'{name}-{case}',
        marks=pytest.mark.nightly if name == 'xla' and case in nightly else (),
      )
      for name in conftest.IMPLEMENTATIONS
      for case in (*quick, *nightly)
    ],
    indirect=['implementation'],
  )


def make_weight(shape, forward, backward, seed=0):
  """Returns a structure and its values; one output is empty and one is full."""
  rng = np.random.default_rng(seed)
  scores = rng.random(shape)
  scores[:, :1] = 2.0
  scores[:, -1:] = 0.0
  structure = kernels.from_masks(scores < forward, scores < backward)
  return structure, rng.normal(size=structure.columns.shape)


def densify(values, structure, shape):
  """Returns W_A."""
  weight = np.zeros(shape)
  front = len(structure.t_columns)
  outputs = kernels.outputs_of(structure, shape)
  weight[structure.columns[:front], outputs[:front]] = values[:front]
  return weight


def assert_close(actual, expected, dtype, size):
  """Compares with a tolerance that grows with the number of summands."""
  assert actual.dtype == dtype
  assert actual.shape == expected.shape
  tolerance = TOLERANCES[dtype] * max(1.0, size) ** 0.5
  scale = max(1.0, np.abs(expected).max(initial=0.0))
  actual = np.asarray(actual, np.float64)
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def run(products, *arrays):
  """Yields (dtype, exact arrays, products) in each dtype, from one program."""

  def rounded(array, dtype):
    array = jnp.asarray(array, jnp.float32).astype(dtype)
    return array, np.asarray(array, np.float64)

  pairs = {d: [rounded(a, d) for a in arrays] for d in TOLERANCES}
  results = jax.jit(lambda trees: [products(*tree) for tree in trees])(
    [[array for array, _ in pairs[dtype]] for dtype in TOLERANCES]
  )
  for dtype, result in zip(TOLERANCES, results, strict=True):
    yield dtype, [exact for _, exact in pairs[dtype]], result


# Batch, in, out, densities of A and B.
@cases(
  (130, 40, 18, 0.05, 0.1),
  (5, 300, 140, 0.04, 0.2),  # two blocks, two strips
  (3, 6, 5, 0.0, 0.0),
  *((0, 4, 5, 0.5, 0.5), (3, 0, 5, 0.5, 0.5), (3, 5, 0, 0.5, 0.5)),
  nightly=(
    (5, 7, 9, 0.3, 0.6),
    (600, 8, 17, 1.0, 1.0),
    (33, 300, 4, 0.0, 0.3),
    # Several blocks and strips.
    (1100, 300, 270, 0.2, 0.4),
    (1030, 520, 20, 0.04, 1.0),
  ),
)
def test_matrix_products_equal_the_dense_ones(implementation, case):
  check_products((case[0], *PIXEL), (*PIXEL, *case[1:3]), *case[3:])


# Larger than the cache: the weight gradient, a product, many partial sums.
@pytest.mark.parametrize(
  'case', [(1100, 1000, 1400), (440, 3000, 8), (2100, 24, 17)], ids=str
)
def test_native_products_larger_than_the_cache_equal_the_dense_ones(case):
  if native.problem():
    pytest.skip(native.problem())
  with kernels.use('native'):
    check_products((case[0], *PIXEL), (*PIXEL, *case[1:]), 0.1, 0.2)


# Image, channels in and out, kernel, stride, padding.
@cases(
  ((8, 7), 5, 18, (3, 3), 2, 'SAME'),
  ((11, 10), 3, 9, (5, 2), (3, 2), ((2, 1), (0, 3))),
  nightly=(
    ((6, 5), 50, 150, (3, 3), 2, 'SAME'),
    ((12, 11), 40, 33, (3, 3), 1, 'SAME'),
    ((9, 9), 20, 17, (3, 3), 2, 'VALID'),
    ((7, 8), 9, 24, (1, 1), 2, 'SAME'),
    ((5, 5), 3, 4, (2, 2), 3, 'VALID'),
    ((2, 2), 3, 4, (3, 3), 1, 'VALID'),
  ),
)
def test_convolutions_equal_the_dense_ones(implementation, case):
  image, num_inputs, num_outputs, size, stride, padding = case
  shape = (*size, num_inputs, num_outputs)
  check_products((3, *image), shape, 0.3, 0.5, stride, padding)


def check_products(image, shape, forward, backward, stride=1, padding='VALID'):
  """Checks y, dx and dw of images [batch, height, width]."""
  *size, num_inputs, num_outputs = shape
  flat = (size[0] * size[1] * num_inputs, num_outputs)
  structure, values = make_weight(flat, forward, backward)
  window = kernels.make_window(image[1:], size, stride, padding)
  mask = densify(np.ones(values.shape), structure, flat).reshape(shape) > 0

  def products(x, dy, values, dense):
    results = []
    for weight, active in ((values, structure), (dense, jnp.asarray(mask))):
      layer = active, shape, window
      y = kernels.conv(x, weight, *layer)
      dx = kernels.conv_dx(dy, weight, *layer, image[1:])
      results.append((y, dx, kernels.conv_dw(x, dy, *layer)))
    return results

  rng = np.random.default_rng(2)
  result_size = window.output_size(*image[1:])
  dense = densify(values, structure, flat).reshape(shape)
  arrays = (
    rng.normal(size=(*image, num_inputs)),
    rng.normal(size=(image[0], *result_size, num_outputs)),
    values,
    np.where(mask, dense, np.nan),  # masked entries are not multiplied
  )
  for dtype, (x, dy, exact, _), results in run(products, *arrays):
    weight = densify(exact, structure, flat).reshape(shape)
    expected_y, expected_dx, dense_dw = dense_products(x, dy, weight, window)
    entries = structure.columns, kernels.outputs_of(structure, flat)
    at_entries = dense_dw.reshape(flat)[entries]
    for (y, dx, dw), expected_dw in zip(
      results, (at_entries, dense_dw), strict=True
    ):
      assert_close(y, expected_y, dtype, flat[0])
      assert_close(dx, expected_dx, dtype, flat[1] * size[0] * size[1])
      assert_close(dw, expected_dw, jnp.float32, dy[..., :1].size)


def dense_products(x, dy, weight, window):
  """Returns y, dx and dw by definition, one pixel of y at a time."""
  kh, kw, _, _ = weight.shape
  (top, _), (left, _) = window.padding
  height, width = x.shape[1:3]
  x = np.pad(x, [(0, 0), *window.padding, (0, 0)])
  y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(weight.shape)
  for i, j in np.ndindex(dy.shape[1:3]):
    row, column = i * window.stride[0], j * window.stride[1]
    at = np.s_[:, row : row + kh, column : column + kw]
    y[:, i, j] = np.tensordot(x[at], weight, 3)
    dx[at] += np.tensordot(dy[:, i, j], weight, ([1], [3]))
    dw += np.tensordot(x[at], dy[:, i, j], ([0], [0]))
  return y, dx[:, top : top + height, left : left + width], dw


@pytest.mark.usefixtures('implementation')
def test_bfloat16_is_summed_in_float32_and_rounded_to_even():
  numbers = [1.00390625, 1.01171875, np.inf, np.nan, -np.nan, 0, 1e-30, 3e38, 1]
  cases = (  # x, values, (in, out), y
    # bfloat16 alone cannot count beyond 256.
    (np.ones((1, 4096)), np.ones(4096), (4096, 1), [4096]),
    (np.ones((1, 1)), numbers, (1, 9), jnp.asarray(numbers, jnp.bfloat16)),
    # 1 + 2^-8 is a tie, and 1 is even.
    (np.ones((1, 2)), [1.0, 2.0**-8], (2, 1), [1]),
  )

  @jax.jit
  def products(arrays):
    return [
      multiply(
        x, values, kernels.from_masks(*np.ones((2, *shape), bool)), shape
      )
      for (x, values), (_, _, shape, _) in zip(arrays, cases, strict=True)
    ]

  arrays = [
    [jnp.asarray(array, jnp.bfloat16) for array in case[:2]] for case in cases
  ]
  for found, (_, _, _, expected) in zip(products(arrays), cases, strict=True):
    np.testing.assert_array_equal(
      np.asarray(found[0, 0, 0], np.float32), np.asarray(expected, np.float32)
    )


def make_matrix(shape, forward, backward):
  """Returns a structure, its values, and the dense W_A."""
  structure, values = make_weight(shape, forward, backward)
  weight = densify(values, structure, shape)
  return structure, jnp.asarray(values, jnp.float32), weight


def multiply(x, values, structure, shape):
  layer = structure, (1, 1, *shape), kernels.PIXEL
  return kernels.conv(x[:, None, None], values, *layer)


@pytest.mark.usefixtures('implementation')
@pytest.mark.parametrize('is_shard_map', [False, True])
def test_four_devices_equal_one(is_shard_map):
  shape = (40, 24)
  structure, values, weight = make_matrix(shape, 0.2, 0.4)
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
  np.testing.assert_allclose(y[:, 0, 0], x @ weight, rtol=0, atol=2e-5)


def test_results_of_many_threads_are_deterministic():
  if native.problem():
    pytest.skip(native.problem())
  shape = (64, 700)
  structure, values, _ = make_matrix(shape, 0.3, 0.5)
  x = jnp.asarray(np.random.default_rng(5).normal(size=(700, 64)), jnp.float32)

  @jax.jit
  def products(x):
    layer = structure, (1, 1, *shape), kernels.PIXEL
    y = multiply(x, values, structure, shape)
    # Independent of each other: XLA may run them concurrently.
    dx = kernels.conv_dx(y, values, *layer, (1, 1))
    return y, dx, kernels.conv_dw(x[:, None, None], y, *layer)

  with kernels.use('native'):
    first = jax.tree.map(np.asarray, products(x))
  for _ in range(20):
    jax.tree.map(np.testing.assert_array_equal, first, products(x))
