"""The training state: arrays, first state, and weights."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import methods


class TrainState(NamedTuple):
  """Everything that a step changes, and so everything in a checkpoint."""

  step: jax.Array  # int32 [], completed steps of the stage
  params: Any  # phi
  net_state: Any  # batch statistics, memory and the like
  opt_state: optax.OptState  # with the active sets
  host_params: dict[str, Any] | None = None  # dense, of compact storage


def init_state(
  method: methods.Method,
  init: Callable[[jax.Array], tuple[Any, Any]],
  seed: Any,
  scores: Any = None,
) -> TrainState:
  """Returns the masked state before the first step; the seed may be traced."""
  weights, net_state = init(init_key(seed))
  params = method.from_weights(weights)
  tx, _ = method.make(seed, scores)
  return TrainState(
    jnp.zeros([], jnp.int32), params, net_state, tx.init(params)
  )


def init_key(seed: Any) -> jax.Array:
  """Returns the key of the initial weights."""
  return jax.random.fold_in(jax.random.key(seed), 0)


def training_key(seed: Any) -> jax.Array:
  """Returns the key of the training; each step folds in its number."""
  return jax.random.fold_in(jax.random.key(seed), 1)


def forward_weights(method: methods.Method, state: TrainState) -> Any:
  """Returns theta on the forward set, as evaluation uses it.

  The sparse layers of a compact state are `sparsity.CompactWeights`.
  """
  weights = method.to_weights(state.params)
  return method.forward_weights(weights, state.opt_state)
