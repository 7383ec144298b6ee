"""Every kernel, on every instruction set, against NumPy in double precision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels
from sparsity.kernels import geometry
from sparsity.kernels import native

TOLERANCES = {jnp.float32: 2e-6, jnp.bfloat16: 8e-3}


def make_masks(shape, forward, backward, seed=0):
  """Returns A and B at random; one output is empty and one is full."""
  rng = np.random.default_rng(seed)
  scores = rng.random(shape)
  scores[:, :1] = 2.0
  scores[:, -1:] = 0.0
  return scores < forward, scores < backward


def make_weight(shape, forward, backward, seed=0):
  """Returns the structure, its values, the dense W_A and the mask of B."""
  A, B = make_masks(shape, forward, backward, seed)
  structure = kernels.from_masks(A, B)
  weight = np.random.default_rng(seed + 1).normal(size=shape)
  return structure, gather(weight, structure), np.where(A, weight, 0.0)


def outputs_of(structure, shape):
  """Returns the output of each entry, cell by cell."""
  num_inputs, num_outputs = shape
  strip = kernels.strip_size(shape, len(structure.t_columns))
  counts = iter(np.diff(structure.cells))
  outputs = []
  for _ in ('A', 'B only'):
    for first in range(0, num_outputs, kernels.BLOCK):
      block = range(first, min(first + kernels.BLOCK, num_outputs))
      for _ in range(0, num_inputs, strip):
        for output in block:
          outputs += [output] * next(counts)
  assert next(counts, None) is None
  return np.array(outputs, int)


def gather(weight, structure):
  """Returns the entries of a dense matrix in the structure's order."""
  outputs = outputs_of(structure, weight.shape)
  return np.asarray(weight)[np.asarray(structure.columns), outputs]


def assert_close(actual, expected, dtype, size):
  """Compares with an error that grows with the number of summands."""
  assert actual.dtype == dtype
  assert actual.shape == expected.shape
  tolerance = TOLERANCES[dtype] * max(1.0, size) ** 0.5
  scale = max(1.0, np.abs(expected).max(initial=0.0))
  actual = np.asarray(actual, np.float64)
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def rounded(array, dtype):
  """Returns an array that `dtype` holds exactly, for JAX and for NumPy."""
  array = jnp.asarray(array, jnp.float32).astype(dtype)
  return array, np.asarray(array, np.float64)


SHAPES = [  # batch, in, out, densities of A and B
  ((5,), 7, 9, 0.3, 0.6),
  ((1,), 33, 65, 0.1, 0.2),
  ((2, 65), 40, 18, 0.05, 0.1),
  ((130,), 24, 100, 0.5, 0.5),
  ((600,), 8, 17, 1.0, 1.0),
  ((33,), 300, 4, 0.0, 0.3),
  ((0,), 4, 5, 0.5, 0.5),
  ((3,), 0, 5, 0.5, 0.5),
  ((3,), 5, 0, 0.5, 0.5),
  ((3,), 6, 5, 0.0, 0.0),
]


@pytest.mark.parametrize('case', SHAPES, ids=str)
def test_products_equal_the_dense_ones(implementation, case):
  check_products(implementation, *case)


def check_products(name, batch, num_inputs, num_outputs, forward, backward):
  shape = (num_inputs, num_outputs)
  structure, values, _ = make_weight(shape, forward, backward)
  rng = np.random.default_rng(2)
  x = rng.normal(size=(*batch, num_inputs))
  dy = rng.normal(size=(*batch, num_outputs))

  def products(x, dy, values, structure):
    options = {'implementation': name}
    return (
      kernels.matmul(x, values, structure, shape, **options),
      kernels.matmul_dx(dy, values, structure, shape, **options),
      kernels.matmul_dw(x, dy, structure, shape, **options),
    )

  arrays = {d: [rounded(a, d) for a in (x, dy, values)] for d in TOLERANCES}
  # Both types in one go: it is compiling that takes the time.
  results = jax.jit(lambda arrays: [products(*a, structure) for a in arrays])(
    [[array for array, _ in arrays[dtype]] for dtype in TOLERANCES]
  )
  for (dtype, pairs), (y, dx, dw) in zip(arrays.items(), results, strict=True):
    x, dy, exact = (exact for _, exact in pairs)
    weight = dense_forward(exact, structure, shape)
    assert_close(y, x @ weight, dtype, num_inputs)
    assert_close(dx, dy @ weight.T, dtype, num_outputs)
    count = math.prod(batch)
    dense_dw = x.reshape(count, num_inputs).T @ dy.reshape(count, num_outputs)
    assert_close(dw, gather(dense_dw, structure), dtype, count)


@pytest.mark.parametrize(
  'case',
  [
    ((1100,), 1000, 1400, 0.1, 0.2),
    ((440,), 3000, 8, 0.1, 0.2),
    ((2100,), 24, 17, 0.1, 0.2),
  ],
  ids=['gradient', 'product', 'apart'],
)
def test_what_exceeds_the_cache_is_taken_in_rounds(case):
  if native.problem():
    pytest.skip(native.problem())
  check_products('native', *case)


@pytest.mark.parametrize(
  'case',
  [
    ((251,), 300, 310, 0.1, 0.2),
    ((1100,), 300, 270, 0.2, 0.4),
    ((1030,), 520, 20, 0.04, 1.0),
  ],
  ids=['few', 'many', 'long'],
)
def test_products_of_several_strips_equal_the_dense_ones(implementation, case):
  check_products(implementation, *case)


def dense_forward(values, structure, shape):
  """Returns W_A."""
  weight = np.zeros(shape)
  front = len(structure.t_columns)
  columns, outputs = structure.columns, outputs_of(structure, shape)
  weight[columns[:front], outputs[:front]] = values[:front]
  return weight


WINDOWS = [  # image, channels in and out, kernel, stride, padding
  ((6, 5), 50, 150, (3, 3), 2, 'SAME'),
  ((12, 11), 40, 33, (3, 3), 1, 'SAME'),
  ((8, 7), 5, 6, (3, 3), 1, 'SAME'),
  ((8, 7), 5, 18, (3, 3), 2, 'SAME'),
  ((9, 9), 20, 17, (3, 3), 2, 'VALID'),
  ((7, 8), 9, 24, (1, 1), 2, 'SAME'),
  ((6, 6), 16, 8, (1, 1), 1, 'VALID'),
  ((11, 10), 3, 9, (5, 2), (3, 2), ((2, 1), (0, 3))),
  ((5, 5), 3, 4, (2, 2), 3, 'VALID'),
  ((2, 2), 3, 4, (3, 3), 1, 'VALID'),
]


def dense_conv(x, weight, stride, pads):
  """Returns the convolution by the definition, and its patches."""
  kh, kw, _, _ = weight.shape
  x = np.pad(x, [(0, 0), *pads, (0, 0)])
  rows = range(0, x.shape[1] - kh + 1, stride[0])
  columns = range(0, x.shape[2] - kw + 1, stride[1])
  patches = np.zeros((len(x), len(rows), len(columns), *weight.shape[:3]))
  for i, row in enumerate(rows):
    for j, column in enumerate(columns):
      patches[:, i, j] = x[:, row : row + kh, column : column + kw]
  return np.tensordot(patches, weight, 3), patches


@pytest.mark.parametrize('case', WINDOWS, ids=str)
def test_convolutions_equal_the_dense_ones(implementation, case):
  image, channels, num_outputs, size, stride, padding = case
  shape = (*size, channels, num_outputs)
  flat = (size[0] * size[1] * channels, num_outputs)
  structure, values, _ = make_weight(flat, 0.3, 0.5)
  strides = (stride, stride) if isinstance(stride, int) else stride
  pads = padding
  if isinstance(padding, str):
    pads = jax.lax.padtype_to_pads(image, size, strides, padding)
  rng = np.random.default_rng(2)
  x = rng.normal(size=(3, *image, channels))
  window = geometry.Window(size, strides, tuple(pads))
  dy = rng.normal(size=(3, *window.output_size(*image), num_outputs))

  def products(x, dy, values):
    options = {
      'stride': stride,
      'padding': padding,
      'implementation': implementation,
    }
    return (
      kernels.conv(x, values, structure, shape, **options),
      kernels.conv_dx(
        dy, values, structure, shape, image_size=image, **options
      ),
      kernels.conv_dw(x, dy, structure, shape, **options),
    )

  arrays = {d: [rounded(a, d) for a in (x, dy, values)] for d in TOLERANCES}
  results = jax.jit(lambda arrays: [products(*a) for a in arrays])(
    [[array for array, _ in arrays[dtype]] for dtype in TOLERANCES]
  )
  for (dtype, pairs), (y, dx, dw) in zip(arrays.items(), results, strict=True):
    x, dy, exact = (exact for _, exact in pairs)
    weight = dense_forward(exact, structure, flat).reshape(shape)
    expected, patches = dense_conv(x, weight, strides, pads)
    assert_close(y, expected, dtype, flat[0])
    pull = dense_input_gradient(dy, weight, strides, pads, x.shape)
    assert_close(dx, pull, dtype, flat[1] * size[0] * size[1])
    dense_dw = np.tensordot(patches, dy, ([0, 1, 2], [0, 1, 2]))
    expected_dw = gather(dense_dw.reshape(flat), structure)
    assert_close(dw, expected_dw, dtype, dy[..., 0].size)


def dense_input_gradient(dy, weight, stride, pads, shape):
  """Returns dx: each output hands its gradient back to what it read."""
  kh, kw, _, _ = weight.shape
  n, height, width, channels = shape
  (top, bottom), (left, right) = pads
  dx = np.zeros((n, height + top + bottom, width + left + right, channels))
  for i in range(dy.shape[1]):
    for j in range(dy.shape[2]):
      row, column = i * stride[0], j * stride[1]
      dx[:, row : row + kh, column : column + kw] += np.tensordot(
        dy[:, i, j], weight, ([1], [3])
      )
  return dx[:, top : top + height, left : left + width]


def test_types_may_be_mixed(implementation):
  structure, values, weight = make_weight((6, 5), 0.4, 0.7)
  values = jnp.asarray(values, jnp.float32)
  x = jnp.ones((3, 6), jnp.bfloat16)
  y = kernels.matmul(
    x, values, structure, (6, 5), implementation=implementation
  )
  assert_close(y, np.ones((3, 6)) @ weight, jnp.float32, 6)


def test_bfloat16_is_summed_in_float32(implementation):
  mask = np.ones((4096, 1), bool)
  structure = kernels.from_masks(mask, mask)
  values = jnp.ones(4096, jnp.bfloat16)
  x = jnp.ones((1, 4096), jnp.bfloat16)  # bfloat16 cannot count beyond 256
  y = kernels.matmul(
    x, values, structure, (4096, 1), implementation=implementation
  )
  assert float(y[0, 0]) == 4096.0


def test_bfloat16_rounds_to_even_and_keeps_nan(implementation):
  mask = np.ones((1, 9), bool)
  structure = kernels.from_masks(mask, mask)
  numbers = [1.00390625, 1.01171875, np.inf, np.nan, -np.nan, 0, 1e-30, 3e38, 1]
  y = kernels.matmul(
    jnp.ones((1, 1), jnp.bfloat16),
    jnp.asarray(numbers, jnp.bfloat16),
    structure,
    (1, 9),
    implementation=implementation,
  )
  expected = jnp.asarray([numbers], jnp.bfloat16)
  np.testing.assert_array_equal(
    np.asarray(y, np.float32), np.asarray(expected, np.float32)
  )
  # A sum that bfloat16 has to round: 1 + 2^-8 is a tie, and 1 is even.
  mask = np.ones((2, 1), bool)
  y = kernels.matmul(
    jnp.ones((1, 2), jnp.bfloat16),
    jnp.asarray([1.0, 2.0**-8], jnp.bfloat16),
    kernels.from_masks(mask, mask),
    (2, 1),
    implementation=implementation,
  )
  assert float(y[0, 0]) == 1.0
