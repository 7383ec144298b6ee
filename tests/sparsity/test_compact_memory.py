"""Nothing of the dense weight's size exists in a compact training step."""

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
IMPLEMENTATIONS = ['xla', 'native']


def is_missing(name):
  return name == 'native' and kernels.implementation() != 'native'


def largest_buffer(compiled):
  """Returns the most entries of any array in a compiled program's text."""
  shapes = SHAPE.findall(compiled.as_text())
  assert shapes
  return max(
    math.prod(int(n) for n in shape.split(',') if n) for shape in shapes
  )


def forward(x):
  x = jax.nn.relu(sparsity.modules.Linear(WIDTH)(x))
  x = x.reshape(-1, 4, 4, WIDTH // 16)
  x = jax.nn.relu(sparsity.modules.Conv2D(WIDTH, 4, padding='VALID')(x))
  return sparsity.modules.Linear(WIDTH)(x.reshape(-1, WIDTH))


NET = hk.without_apply_rng(hk.transform(forward))


def make_step(update):
  def loss(weights, batch):
    return jnp.mean(jnp.square(NET.apply(weights, batch) - batch))

  def step(params, state, batch):
    weights = sparsity.forward_weights(params, state)
    gradients = sparsity.grad(loss)(weights, batch)
    updates, state = update(gradients, state, params)
    return optax.apply_updates(params, updates), state

  return step


def make_training():
  penalty = topkast.exploration_penalty(1e-4)
  return topkast.topkast(
    optax.chain(penalty, optax.adam(1e-3)),
    forward_density=0.1,
    backward_density=0.2,
    refresh_every=100,
  )


def compile_step(implementation, *, is_compact=True):
  batch = jnp.ones((2, WIDTH))
  params = NET.init(jax.random.key(0), batch)
  tx = make_training()
  if is_compact:
    training = sparsity.compact.compact(tx)
    params, state, _ = training.init(params)
    step = make_step(training.update)
  else:
    state, step = tx.init(params), make_step(tx.update)
  with kernels.use(implementation):
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, batch)
  return lowered.compile(), (params, state)


@pytest.mark.parametrize('name', IMPLEMENTATIONS)
def test_a_step_has_no_array_of_the_dense_weights_size(name):
  if is_missing(name):
    pytest.skip('native kernels are not built')
  compiled, (params, _) = compile_step(name)
  size = WIDTH * WIDTH
  assert params['linear']['w'].size == round(0.2 * size)
  assert largest_buffer(compiled) < size // 2
  if name == 'native':  # all that is temporary is less than one dense weight
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * size


def test_the_dense_weight_is_found_where_there_is_one():
  compiled, _ = compile_step('xla', is_compact=False)
  assert largest_buffer(compiled) >= WIDTH * WIDTH
  compiled, _ = compile_step('reference')
  assert largest_buffer(compiled) >= WIDTH * WIDTH


def test_bytes_of_parameters_gradients_and_state_follow_the_density():
  params = NET.init(jax.random.key(0), jnp.ones((2, WIDTH)))
  training = sparsity.compact.compact(make_training())
  rows, state, _ = training.init(params)
  num_bytes = sparsity.compact.num_bytes
  # Parameters and gradients once, Adam's moments twice: 4 arrays.
  dense = 4 * num_bytes(params)
  found = 2 * num_bytes(rows) + num_bytes(state)
  # Per entry of B 4 floats and an index, per entry of A two indices more.
  expected = 0.2 * (4 + 1) / 4 + 0.1 * 2 / 4
  assert found / dense == pytest.approx(expected, abs=0.03)


def test_what_is_stored_lies_on_the_host_and_is_not_part_of_the_state():
  params = NET.init(jax.random.key(0), jnp.ones((2, WIDTH)))
  training = sparsity.compact.compact(make_training())
  rows, state, stored = training.init(params)
  assert {type(x) for x in stored.values()} == {np.ndarray}
  sizes = [x.size for x in jax.tree.leaves((rows, state))]
  assert max(sizes) < WIDTH * WIDTH
