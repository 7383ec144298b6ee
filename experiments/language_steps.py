"""Compiled training steps of a language model.

S: steps of a chunk; B: batch.
"""

import functools
from typing import Any

import jax

from experiments import members
from experiments.common import step as step_lib
from experiments.common import storage as storage_lib


def compile_steps(
  make: members.MakeRecipe, shardings: Any, replicated: Any
) -> storage_lib.Steps:
  """Returns compiled steps, of (state, seed, batches [S, B, ...], steps).

  Args:
    make: how a member of a seed is trained.
    shardings: of the state.
    replicated: sharding of what is whole on each device.
  """

  def batch_at(i, batches):
    return jax.tree.map(lambda x: x[i], batches)

  def key_of(seed):
    return jax.random.fold_in(jax.random.key(seed), 1)

  @functools.partial(
    jax.jit, donate_argnums=0, out_shardings=(shardings, replicated)
  )
  def advance(state, seed, batches, first, last):
    return step_lib.train_steps(
      make(seed),
      state,
      functools.partial(batch_at, batches=batches),
      key_of(seed),
      first,
      last,
    )

  @functools.partial(
    jax.jit, donate_argnums=0, out_shardings=(shardings, replicated, replicated)
  )
  def measure(state, seed, batches, i):
    key = jax.random.fold_in(key_of(seed), state.step)
    return step_lib.measure_step(make(seed), state, batch_at(i, batches), key)

  return storage_lib.Steps(advance, measure)


def of_chunk(compiled: storage_lib.Steps, *chunk: Any) -> storage_lib.Steps:
  """Returns the steps with a seed and batches."""
  return storage_lib.Steps(
    lambda state, first, last: compiled.advance(state, *chunk, first, last),
    lambda state, i: compiled.measure(state, *chunk, i),
  )
