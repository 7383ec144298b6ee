"""Matrices divided among devices: sets are chosen where their entries lie."""

import math
import re

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.common import sharding
import powerprop
import topkast

SHAPES = {'q': (64, 32), 'out': (32, 128)}


def gathered(update, state, params) -> list[tuple[int, ...]]:
  """Returns the shapes of what a compiled update gathers, several devices."""
  mesh = sharding.make_mesh(4, 4)
  place = lambda tree: jax.tree.map(  # noqa: E731
    lambda x: sharding.over_model(mesh, x.shape), tree
  )
  whole = (params, state, params)
  compiled = jax.jit(
    update,
    in_shardings=place(whole),
    out_shardings=place((params, state)),
  ).lower(*whole)
  text = compiled.compile().as_text()
  # Counts of all devices are added, in the one or the other way.
  assert 'all-reduce' in text or 'all-gather' in text
  return [
    tuple(int(size) for size in shape.split(',') if size)
    for line in text.splitlines()
    if ' all-gather' in line
    for shape in re.findall(r'\w+\[([\d,]*)\]', line.split(' all-gather')[0])
  ]


def make_params():
  keys = jax.random.split(jax.random.key(0), len(SHAPES))
  return {
    name: {'w': jax.random.normal(key, shape)}
    for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)
  }


@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_sets_are_chosen_without_gathering_a_parameter(scope):
  tx = topkast.topkast(
    powerprop.powerprop(optax.adam(1e-3), 2.0),
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=2,
    scope=scope,
  )
  params = make_params()
  shapes = gathered(tx.update, tx.init(params), params)
  smallest = min(math.prod(shape) for shape in SHAPES.values())
  assert all(math.prod(shape) < smallest // 16 for shape in shapes), shapes


def test_a_sort_would_gather():
  params = make_params()

  def update(grads, state, params):
    del grads
    kept = jax.tree.map(
      lambda x: jnp.where(x >= jnp.sort(x.ravel())[-100], x, 0.0), params
    )
    total = sum(jnp.sum(x) for x in jax.tree.leaves(kept))
    return kept, state + total

  shapes = gathered(update, jnp.float32(0), params)
  assert max(math.prod(shape) for shape in shapes) >= 64 * 32
