"""Densities of layers against a slow bisection."""

import math

from hypothesis import assume
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import optax
import pytest

import sparsity
from sparsity import distributions

SHAPE = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple)
SHAPES = st.lists(SHAPE, min_size=1, max_size=6).map(
  lambda shapes: {f'layer_{i}/w': shape for i, shape in enumerate(shapes)}
)
# The share of a layer, up to a factor of all, as the papers write it.
FORMULAS = {
  distributions.uniform: lambda shape: 1.0,
  distributions.erdos_renyi: lambda shape: (
    sum(shape[-2:]) / math.prod(shape[-2:])
  ),
  distributions.erdos_renyi_kernel: lambda shape: sum(shape) / math.prod(shape),
}


def oracle(formula, shapes, density, dense):
  """Returns min(1, eps * formula), eps found by bisection of the total."""

  def densities(epsilon):
    return {
      path: 1.0 if path in dense else min(1.0, epsilon * formula(shape))
      for path, shape in shapes.items()
    }

  def total(epsilon):
    found = densities(epsilon)
    return sum(found[path] * math.prod(shapes[path]) for path in shapes)

  wanted = density * sum(map(math.prod, shapes.values()))
  low, high = 0.0, 1e6
  for _ in range(200):
    middle = (low + high) / 2
    low, high = (middle, high) if total(middle) < wanted else (low, middle)
  return densities(high)


@pytest.mark.parametrize('distribution', FORMULAS)
@settings(deadline=None, max_examples=50)
@given(
  shapes=SHAPES, density=st.floats(0.005, 1.0), num_dense=st.integers(0, 2)
)
def test_densities_and_their_total_are_those_of_a_bisection(
  distribution, shapes, density, num_dense
):
  dense = list(shapes)[:num_dense]
  total = sum(map(math.prod, shapes.values()))
  used = sum(math.prod(shapes[path]) for path in dense)
  assume(used < density * total)

  found = distribution(shapes, density, dense=dense)

  assert list(found) == list(shapes)
  assert found == pytest.approx(
    oracle(FORMULAS[distribution], shapes, density, dense), rel=1e-6
  )
  assert all(0 < x <= 1 for x in found.values())
  kept = sum(found[path] * math.prod(shapes[path]) for path in shapes)
  assert kept == pytest.approx(density * total)
  if all(found[path] * math.prod(shapes[path]) >= 0.5 for path in shapes):
    rounded = sum(
      sparsity.num_kept(found[path], math.prod(shapes[path])) for path in shapes
    )
    assert abs(rounded - density * total) <= 0.5 * len(shapes) + 1e-6


@pytest.mark.parametrize('distribution', FORMULAS)
def test_density_one_is_exactly_one(distribution):
  shapes = {'a/w': (7, 13), 'b/w': (3, 3, 5, 11), 'c/w': (1, 1)}
  assert set(distribution(shapes, 1.0).values()) == {1.0}
  assert distribution({}, 0.5) == {}


@pytest.mark.parametrize(
  ('density', 'dense', 'message'),
  [
    (0.0, (), r'in \(0, 1\], got 0\.0'),
    (float('nan'), (), r'in \(0, 1\], got nan'),
    (0.5, ('c/w',), r"out of \['a/w', 'b/w'\], got \['c/w'\]"),
    (
      0.5,
      ('a/w',),
      r"within density 0\.5 \(8 entries\), got \['a/w'\] with 12",
    ),
    (0.25, ('b/w',), r"got \['b/w'\] with 4, .* leaves none to \['a/w'\]"),
  ],
)
def test_a_bad_argument_is_an_error(density, dense, message):
  shapes = {'a/w': (3, 4), 'b/w': (2, 2)}
  with pytest.raises(ValueError, match=message):
    distributions.uniform(shapes, density, dense=dense)


def test_an_emptied_layer_is_named_once_masks_are_concrete():
  params = {
    'small': {'w': jnp.full((4, 3), 1e-3)},
    'large': {'w': jnp.ones((4, 3))},
  }
  tx = sparsity.snip(optax.sgd(0.1), scores=params, density=0.5, scope='global')
  with pytest.warns(UserWarning, match=r"'global' leaves .* in small/w: raise"):
    tx.init(params)
  sets = jax.jit(tx.init)(params).sets  # traced: no warning
  assert not sets.forward['small']['w'].any()
