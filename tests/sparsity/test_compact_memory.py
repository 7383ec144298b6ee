"""A compact training step holds no array of the dense weight's size."""

import math
import re

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsity
from sparsity import kernels
import topkast

WIDTH = 192
SHAPE = re.compile(r'\b(?:pred|bf16|[suf]\d+)\[([\d,]*)\]')


def forward(x):
  x = jax.nn.relu(sparsity.modules.Linear(WIDTH)(x))
  x = x.reshape(-1, 4, 4, WIDTH // 16)
  x = sparsity.modules.Conv2D(WIDTH, 4, padding='VALID')(x)
  return x.reshape(-1, WIDTH)


NET = hk.without_apply_rng(hk.transform(forward))


def make_tx():
  penalty = topkast.exploration_penalty(1e-4)
  return topkast.topkast(
    optax.chain(penalty, optax.adam(1e-3)),
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=100,
  )


@pytest.fixture(scope='module')
def params():
  return NET.init(jax.random.key(0), jnp.ones((2, WIDTH)))


def compile_step(implementation, params, state, update):
  def loss(weights, batch):
    return jnp.mean(jnp.square(NET.apply(weights, batch) - batch))

  def step(params, state, batch):
    weights = sparsity.forward_weights(params, state)
    gradients = sparsity.grad(loss)(weights, batch)
    updates, state = update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  batch = jnp.ones((2, WIDTH))
  with kernels.use(implementation):
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, batch)
  return lowered.compile()


def largest_array(compiled):
  """Returns the most entries of any array in a compiled program's text."""
  shapes = SHAPE.findall(compiled.as_text())
  assert shapes
  return max(
    math.prod(int(n) for n in shape.split(',') if n) for shape in shapes
  )


@pytest.mark.parametrize('name', ['native', 'xla'])
def test_a_step_has_no_array_of_the_dense_weights_size(name, params):
  if name == 'native' and kernels.implementation() != 'native':
    pytest.skip('native kernels are not built')
  training = sparsity.compact.compact(make_tx())
  rows, state, _ = training.init(params)
  compiled = compile_step(name, rows, state, training.update)
  size = WIDTH * WIDTH
  assert rows['linear']['w'].size == round(0.2 * size)
  if name == 'xla':  # writes the weight out, which this test has to notice
    assert largest_array(compiled) >= size
    return
  assert largest_array(compiled) < size // 2
  # Temporaries of less than one dense weight.
  assert compiled.memory_analysis().temp_size_in_bytes < 4 * size


def test_memory_follows_the_density_and_dense_parameters_lie_on_the_host(
  params,
):
  training = sparsity.compact.compact(make_tx())
  rows, state, host_params = training.init(params)
  num_bytes = sparsity.compact.num_bytes
  # Parameters and gradients once, Adam's moments twice: 4 arrays.
  dense = 4 * num_bytes(params)
  found = 2 * num_bytes(rows) + num_bytes(state)
  # Per entry of B 4 floats and an index, per entry of A two more indices.
  expected = 0.2 * (4 + 1) / 4 + 0.1 * 2 / 4
  assert found / dense == pytest.approx(expected, abs=0.03)
  assert {type(x) for x in host_params.values()} == {np.ndarray}
  sizes = [x.size for x in jax.tree.leaves((rows, state))]
  assert max(sizes) < WIDTH * WIDTH
