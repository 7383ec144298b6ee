"""Every kernel, on every instruction set, against NumPy in double precision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsity import kernels
from sparsity.kernels import native
from sparsity.kernels import shapes

TOLERANCES = {jnp.float32: 2e-6, jnp.bfloat16: 8e-3}


def cases(*quick, nightly=()):
  """Parametrizes over implementations and cases.

  Native kernels need no compilation and always run all cases; the others run
  the nightly ones only at night.
  """
  names = ('reference', 'xla', *(f'native-{isa}' for isa in native.ISAS))
  return pytest.mark.parametrize(
    ('implementation', 'case'),
    [
      pytest.param(name, case, id=f'{name}-{case}', marks=marks)
      for name in names
      for case, marks in (
        *((case, ()) for case in quick),
        *(
          (case, () if '-' in name else pytest.mark.nightly) for case in nightly
        ),
      )
    ],
    indirect=['implementation'],
  )


def make_masks(shape, forward, backward, seed=0):
  """Returns random A and B; one output is empty and one is full."""
  rng = np.random.default_rng(seed)
  scores = rng.random(shape)
  scores[:, :1] = 2.0
  scores[:, -1:] = 0.0
  return scores < forward, scores < backward


def make_weight(shape, forward, backward, seed=0):
  """Returns the structure, its values, and the dense W_A."""
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
  for _ in ('A', 'B minus A'):
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


def densify(values, structure, shape):
  """Returns W_A."""
  weight = np.zeros(shape)
  front = len(structure.t_columns)
  columns, outputs = np.asarray(structure.columns), outputs_of(structure, shape)
  weight[columns[:front], outputs[:front]] = values[:front]
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
  ((2, 65), 40, 18, 0.05, 0.1),
  ((5,), 300, 140, 0.04, 0.2),  # two blocks, two strips
  nightly=(
    ((5,), 7, 9, 0.3, 0.6),
    ((1,), 33, 65, 0.1, 0.2),
    ((130,), 24, 100, 0.5, 0.5),
    ((600,), 8, 17, 1.0, 1.0),
    ((33,), 300, 4, 0.0, 0.3),
    # Several blocks and strips.
    ((1100,), 300, 270, 0.2, 0.4),
    ((1030,), 520, 20, 0.04, 1.0),
  ),
)
def test_products_equal_the_dense_ones(implementation, case):
  check_products(implementation, *case)


# Larger than the cache: the weight gradient, a product, many partial sums.
@pytest.mark.parametrize(
  'case',
  [
    ((1100,), 1000, 1400, 0.1, 0.2),
    ((440,), 3000, 8, 0.1, 0.2),
    ((2100,), 24, 17, 0.1, 0.2),
  ],
  ids=str,
)
def test_native_products_larger_than_the_cache_equal_the_dense_ones(case):
  if native.problem():
    pytest.skip(native.problem())
  check_products('native', *case)


@pytest.mark.parametrize(
  'case',
  [
    ((0,), 4, 5, 0.5, 0.5),
    ((3,), 0, 5, 0.5, 0.5),
    ((3,), 5, 0, 0.5, 0.5),
    ((3,), 6, 5, 0.0, 0.0),
  ],
  ids=str,
)
def test_empty_products_are_zero(implementation, case):
  check_products(implementation, *case)


def check_products(name, batch, num_inputs, num_outputs, forward, backward):
  shape = (num_inputs, num_outputs)
  structure, values, _ = make_weight(shape, forward, backward)
  rng = np.random.default_rng(2)
  options = {'implementation': name}

  def products(x, dy, values):
    return (
      kernels.matmul(x, values, structure, shape, **options),
      kernels.matmul_dx(dy, values, structure, shape, **options),
      kernels.matmul_dw(x, dy, structure, shape, **options),
    )

  arrays = (rng.normal(size=(*batch, n)) for n in shape)
  for dtype, (x, dy, exact), (y, dx, dw) in run(products, *arrays, values):
    weight = densify(exact, structure, shape)
    assert_close(y, x @ weight, dtype, num_inputs)
    assert_close(dx, dy @ weight.T, dtype, num_outputs)
    count = math.prod(batch)
    dense_dw = x.reshape(count, num_inputs).T @ dy.reshape(count, num_outputs)
    assert_close(dw, gather(dense_dw, structure), dtype, count)


# Image, channels in and out, kernel, stride, padding.
@cases(
  ((8, 7), 5, 18, (3, 3), 2, 'SAME'),
  ((11, 10), 3, 9, (5, 2), (3, 2), ((2, 1), (0, 3))),
  nightly=(
    ((6, 5), 50, 150, (3, 3), 2, 'SAME'),
    ((12, 11), 40, 33, (3, 3), 1, 'SAME'),
    ((8, 7), 5, 6, (3, 3), 1, 'SAME'),
    ((9, 9), 20, 17, (3, 3), 2, 'VALID'),
    ((7, 8), 9, 24, (1, 1), 2, 'SAME'),
    ((6, 6), 16, 8, (1, 1), 1, 'VALID'),
    ((5, 5), 3, 4, (2, 2), 3, 'VALID'),
    ((2, 2), 3, 4, (3, 3), 1, 'VALID'),
  ),
)
def test_convolutions_equal_the_dense_ones(implementation, case):
  image, channels, num_outputs, size, stride, padding = case
  shape = (*size, channels, num_outputs)
  flat = (size[0] * size[1] * channels, num_outputs)
  structure, values, _ = make_weight(flat, 0.3, 0.5)
  window = shapes.make_window(image, size, stride, padding)
  options = {
    'stride': stride,
    'padding': padding,
    'implementation': implementation,
  }

  def products(x, dy, values):
    return (
      kernels.conv(x, values, structure, shape, **options),
      kernels.conv_dx(
        dy, values, structure, shape, image_size=image, **options
      ),
      kernels.conv_dw(x, dy, structure, shape, **options),
    )

  rng = np.random.default_rng(2)
  arrays = (
    rng.normal(size=(3, *image, channels)),
    rng.normal(size=(3, *window.output_size(*image), num_outputs)),
  )
  for dtype, (x, dy, exact), (y, dx, dw) in run(products, *arrays, values):
    weight = densify(exact, structure, flat).reshape(shape)
    expected, patches = dense_conv(x, weight, window)
    assert_close(y, expected, dtype, flat[0])
    expected = dense_input_gradient(dy, weight, window, x.shape)
    assert_close(dx, expected, dtype, flat[1] * size[0] * size[1])
    dense_dw = np.tensordot(patches, dy, ([0, 1, 2], [0, 1, 2]))
    expected = gather(dense_dw.reshape(flat), structure)
    assert_close(dw, expected, dtype, dy[..., 0].size)


def dense_conv(x, weight, window):
  """Returns the convolution by definition, and its patches."""
  kh, kw, _, _ = weight.shape
  x = np.pad(x, [(0, 0), *window.padding, (0, 0)])
  rows = range(0, x.shape[1] - kh + 1, window.stride[0])
  columns = range(0, x.shape[2] - kw + 1, window.stride[1])
  patches = np.zeros((len(x), len(rows), len(columns), *weight.shape[:3]))
  for i, row in enumerate(rows):
    for j, column in enumerate(columns):
      patches[:, i, j] = x[:, row : row + kh, column : column + kw]
  return np.tensordot(patches, weight, 3), patches


def dense_input_gradient(dy, weight, window, shape):
  """Returns dx: each output's gradient, added to the inputs it read."""
  kh, kw, _, _ = weight.shape
  n, height, width, channels = shape
  (top, bottom), (left, right) = window.padding
  dx = np.zeros((n, height + top + bottom, width + left + right, channels))
  for i in range(dy.shape[1]):
    for j in range(dy.shape[2]):
      row, column = i * window.stride[0], j * window.stride[1]
      dx[:, row : row + kh, column : column + kw] += np.tensordot(
        dy[:, i, j], weight, ([1], [3])
      )
  return dx[:, top : top + height, left : left + width]


def test_bfloat16_is_summed_in_float32_and_rounded_to_even(implementation):
  bf16 = jnp.bfloat16
  numbers = [1.00390625, 1.01171875, np.inf, np.nan, -np.nan, 0, 1e-30, 3e38, 1]

  def structure(*shape):
    return kernels.from_masks(np.ones(shape, bool), np.ones(shape, bool))

  cases = {  # x, values, shape
    'mixed': (jnp.ones((3, 6), bf16), jnp.full(30, 0.1, jnp.float32), (6, 5)),
    # bfloat16 alone cannot count beyond 256.
    'counts': (jnp.ones((1, 4096), bf16), jnp.ones(4096, bf16), (4096, 1)),
    'special': (jnp.ones((1, 1), bf16), jnp.asarray(numbers, bf16), (1, 9)),
    # 1 + 2^-8 is a tie, and 1 is even.
    'tie': (jnp.ones((1, 2), bf16), jnp.asarray([1.0, 2.0**-8], bf16), (2, 1)),
  }
  structures = {name: structure(*case[2]) for name, case in cases.items()}
  found = jax.jit(
    lambda arrays: {
      name: kernels.matmul(
        *arrays[name],
        structures[name],
        cases[name][2],
        implementation=implementation,
      )
      for name in cases
    }
  )({name: case[:2] for name, case in cases.items()})
  assert_close(found['mixed'], np.full((3, 5), 0.6), jnp.float32, 6)
  assert float(found['counts'][0, 0]) == 4096.0
  np.testing.assert_array_equal(
    np.asarray(found['special'], np.float32),
    np.asarray(cases['special'][1][None], np.float32),
  )
  assert float(found['tie'][0, 0]) == 1.0
